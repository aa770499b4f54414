// The back-end's own requests to the front-end (the socket of SET_BACKEND_REQ_FD).
//
// Nothing that answers the front-end ever waits here: a front-end may block while it waits for a reply of ours, and it
// answers these requests only afterwards. Requests are queued, and sent in order by a task of their own; another one
// receives the replies, which come in the order of their requests. Post wants no reply, AskAsync has one to await: by
// whoever asked, never by the control loop.
using System.Threading.Channels;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

/// <summary>Sends requests to the front-end.</summary>
internal sealed class BackendChannel : IAsyncDisposable
{
    /// <summary>
    /// Requests without a reply that may wait; a front-end that reads nothing loses the rest, which it would not miss.
    /// </summary>
    private const int MaxPosted = 64;

    /// <summary>
    /// Requests with a reply that may be outstanding: what all queues of a device may ask for at one time, and more.
    /// A front-end that answers none cannot make this process remember more of them.
    /// </summary>
    private const int MaxAsked = 32768;

    private Line? _line;
    private int _replaced;

    /// <summary>Whether there is a channel.</summary>
    internal bool IsOpen => _line is not null;

    /// <summary>How often the channel was replaced: a question that failed with an earlier one may be asked again.
    /// </summary>
    internal int Replaced => Volatile.Read(ref _replaced);

    /// <summary>Uses another channel from now on (front-ends may send one at each activation).</summary>
    internal async Task ReplaceAsync(VhostUserChannel channel)
    {
        // The new one first: who asks again what the old one left unanswered finds it.
        if (Interlocked.Exchange(ref _line, new Line(channel)) is { } old)
        {
            Interlocked.Increment(ref _replaced);
            await old.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Queues a request that wants no reply. From any thread.</summary>
    internal void Post(BackendRequest request, byte[] payload, params ReadOnlySpan<Attachment> attachments)
    {
        VhostUserMessage message = new((uint)request, MessageFlags.Version1, payload, attachments);
        if (Volatile.Read(ref _line)?.TryPost(message) != true)
        {
            message.Dispose();
        }
    }

    /// <summary>Queues a request that is answered. From any thread.</summary>
    /// <returns>The reply, to be disposed by the caller.</returns>
    /// <exception cref="IOException">There is no channel, it was closed, or too much is outstanding.</exception>
    internal Task<VhostUserMessage> AskAsync(
        BackendRequest request, byte[] payload, params ReadOnlySpan<Attachment> attachments)
    {
        VhostUserMessage message = new((uint)request, MessageFlags.NeedReply, payload, attachments);
        if (Volatile.Read(ref _line) is { } line)
        {
            return line.AskAsync(message);
        }

        message.Dispose();
        return Task.FromException<VhostUserMessage>(new IOException("the front-end has given no channel for requests"));
    }

    public async ValueTask DisposeAsync()
    {
        if (Interlocked.Exchange(ref _line, null) is { } line)
        {
            await line.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>One channel, from SET_BACKEND_REQ_FD until the next one.</summary>
    private sealed class Line : IAsyncDisposable
    {
        private readonly VhostUserChannel _channel;
        private readonly Channel<VhostUserMessage> _waiting =
            System.Threading.Channels.Channel.CreateUnbounded<VhostUserMessage>(new() { SingleReader = true });

        private readonly Lock _lock = new();
        private readonly Queue<Question> _asked = new();
        private readonly Task _sender;
        private readonly Task _receiver;
        private int _posted;
        private bool _hasEnded;

        internal Line(VhostUserChannel channel)
        {
            _channel = channel;
            _sender = SendAllAsync();
            _receiver = ReceiveAllAsync();
        }

        internal bool TryPost(VhostUserMessage message)
        {
            if (Interlocked.Increment(ref _posted) <= MaxPosted && _waiting.Writer.TryWrite(message))
            {
                return true;
            }

            Interlocked.Decrement(ref _posted);
            return false;
        }

        internal Task<VhostUserMessage> AskAsync(VhostUserMessage message)
        {
            Question question = new(message.Request);
            lock (_lock)
            {
                // Both at once: replies come in the order in which requests were queued.
                if (!_hasEnded && _asked.Count < MaxAsked && _waiting.Writer.TryWrite(message))
                {
                    _asked.Enqueue(question);
                    return question.Answer.Task;
                }
            }

            message.Dispose();
            return Task.FromException<VhostUserMessage>(
                new IOException("the front-end's channel for requests is closed, or it answers none"));
        }

        public async ValueTask DisposeAsync()
        {
            _waiting.Writer.TryComplete();
            _channel.Close();
            await _sender.ConfigureAwait(false);
            await _receiver.ConfigureAwait(false);
            while (_waiting.Reader.TryRead(out VhostUserMessage? unsent))
            {
                unsent.Dispose();
            }

            await _channel.DisposeAsync().ConfigureAwait(false);
        }

        private async Task SendAllAsync()
        {
            try
            {
                await foreach (VhostUserMessage message in _waiting.Reader.ReadAllAsync().ConfigureAwait(false))
                {
                    if (!message.NeedsReply)
                    {
                        Interlocked.Decrement(ref _posted);
                    }

                    await _channel.SendAsync(message).ConfigureAwait(false);
                }
            }
            catch (IOException)
            {
                // The front-end closed this channel; the main one tells whether it is gone.
                EndQuestions();
            }
        }

        /// <summary>Hands replies to who asked. What is no reply to anything is nothing to us.</summary>
        private async Task ReceiveAllAsync()
        {
            try
            {
                while (await _channel.ReceiveAsync().ConfigureAwait(false) is { } reply)
                {
                    if (!TryTakeQuestion(reply, out Question? question))
                    {
                        reply.Dispose();
                        break;
                    }

                    if (question is null || !question.Answer.TrySetResult(reply))
                    {
                        reply.Dispose();
                    }
                }
            }
            catch (Exception error) when (error is IOException or ProtocolException)
            {
                // No reply can be found in that stream any more; requests without one still go out.
            }

            EndQuestions();
        }

        /// <summary>The question that a message answers; null when nothing was asked.</summary>
        /// <returns>False when it answers another one: the channel is out of step.</returns>
        private bool TryTakeQuestion(VhostUserMessage reply, out Question? question)
        {
            question = null;
            lock (_lock)
            {
                if ((reply.Flags & MessageFlags.Reply) == 0 || _asked.Count == 0)
                {
                    return true;
                }

                question = _asked.Dequeue();
            }

            if (question.Request == reply.Request)
            {
                return true;
            }

            question.Answer.TrySetException(new IOException($"a reply to {reply.Request} instead"));
            return false;
        }

        private void EndQuestions()
        {
            Question[] left;
            lock (_lock)
            {
                _hasEnded = true;
                left = [.. _asked];
                _asked.Clear();
            }

            foreach (Question question in left)
            {
                question.Answer.TrySetException(new IOException("the front-end's channel for requests was closed"));
            }
        }
    }

    private sealed class Question(uint request)
    {
        internal uint Request { get; } = request;

        internal TaskCompletionSource<VhostUserMessage> Answer { get; } =
            new(TaskCreationOptions.RunContinuationsAsynchronously);
    }
}
