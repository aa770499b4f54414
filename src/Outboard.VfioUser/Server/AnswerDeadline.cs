// Answers in time, whatever the device does: the commands that wait for an answer, in order, and a timer that answers
// those that waited too long. Whoever holds the turn to send and finds a command unanswered answers it; the other one,
// who comes later, sees that and sends nothing. So a client gets one answer, in order, and never a late one.
using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Server;

/// <summary>Watches over the answers of one connection.</summary>
internal sealed class AnswerDeadline : IAsyncDisposable
{
    /// <summary>ETIMEDOUT.</summary>
    private const int TimedOut = 110;

    /// <summary>How often it looks; short against any sensible limit.</summary>
    private static readonly TimeSpan s_mostBetweenLooks = TimeSpan.FromMilliseconds(200);

    private readonly SocketChannel _channel;
    private readonly ILogger _log;
    private readonly long _limitMs;
    private readonly Lock _lock = new();
    private readonly Queue<VfioUserMessage> _waiting = [];
    private readonly CancellationTokenSource _ending = new();
    private readonly Task _looking;

    internal AnswerDeadline(SocketChannel channel, TimeSpan limit, ILogger log)
    {
        _channel = channel;
        _log = log;
        _limitMs = (long)limit.TotalMilliseconds;
        _looking = LookAsync(limit / 4 < s_mostBetweenLooks ? limit / 4 : s_mostBetweenLooks);
    }

    /// <summary>The answer "failed".</summary>
    internal static byte[] Failure(in MessageHeader command, int errno)
    {
        byte[] message = new byte[MessageHeader.Bytes];
        MessageHeader header = new(
            command.Id, command.Command, MessageHeader.Bytes, MessageFlags.Reply | MessageFlags.Error, (uint)errno);
        MemoryMarshal.Write(message, header);
        return message;
    }

    /// <summary>Takes note of a command that arrived.</summary>
    internal void Add(VfioUserMessage message)
    {
        message.ArrivedMs = Environment.TickCount64;
        lock (_lock)
        {
            _waiting.Enqueue(message);
        }
    }

    /// <summary>The first command in line is done with; it may be used again.</summary>
    internal void RemoveFirst()
    {
        lock (_lock)
        {
            _waiting.Dequeue();
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _ending.CancelAsync().ConfigureAwait(false);
        await _looking.ConfigureAwait(false);
        _ending.Dispose();
    }

    private async Task LookAsync(TimeSpan interval)
    {
        using PeriodicTimer timer = new(interval);
        try
        {
            while (await timer.WaitForNextTickAsync(_ending.Token).ConfigureAwait(false))
            {
                if (IsAnyLate(takes: false, out _))
                {
                    await AnswerLateAsync().ConfigureAwait(false);
                }
            }
        }
        catch (Exception error) when (error is OperationCanceledException or IOException or ObjectDisposedException)
        {
            // the connection is over
        }
    }

    private async Task AnswerLateAsync()
    {
        await _channel.BeginSendingAsync(_ending.Token).ConfigureAwait(false);
        try
        {
            // again, now that nobody else answers
            while (IsAnyLate(takes: true, out MessageHeader header))
            {
                _log.LogError(
                    "{Command}: no answer from the device within {Limit} ms; it is answered as failed",
                    header.Command, _limitMs);
                if (header.WantsReply)
                {
                    await _channel.SendAsync(Failure(header, TimedOut)).ConfigureAwait(false);
                }
            }
        }
        finally
        {
            _channel.EndSending();
        }
    }

    /// <summary>Whether the first unanswered command is late; it is counted as answered when it is taken.</summary>
    private bool IsAnyLate(bool takes, out MessageHeader header)
    {
        lock (_lock)
        {
            foreach (VfioUserMessage message in _waiting)
            {
                if (!message.IsAnswered)
                {
                    header = message.Header;
                    bool isLate = Environment.TickCount64 - message.ArrivedMs >= _limitMs;
                    message.IsAnswered = isLate && takes;
                    return isLate;
                }
            }

            header = default;
            return false;
        }
    }
}
