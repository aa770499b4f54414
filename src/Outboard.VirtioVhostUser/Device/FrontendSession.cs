// One front-end's session: its messages are checked, what comes with them is laid out, and they go to the driver; the
// driver's messages come back the other way. The front-end's socket carries requests and their replies; the back-end's
// own requests and their replies have a second one. In the driver's queues the REPLY flag tells the two apart.
//
//   RunAsync           reads the front-end: check -> lay out -> deliver -> what follows a delivery
//   AnswerAllAsync     what the driver sends, in its order: replies to the socket, requests to the second one. It alone
//                      writes to the sockets, so that refusals of this device's own keep their places among replies
//   RelayRepliesAsync  reads the second socket
//
// Every request that is answered stands in _due until then, whoever answers it. A driver that answers something else is
// broken; a front-end that sends what may not pass is told so, where a reply can tell it, and cut off otherwise.
using System.Threading.Channels;
using Microsoft.Extensions.Logging;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.Device;

/// <summary>A front-end and its resources.</summary>
internal sealed partial class FrontendSession : IAsyncDisposable
{
    /// <summary>
    /// Messages of the driver's that may wait for the front-end; then the driver's queue is left alone. A conversation
    /// has one or two.
    /// </summary>
    private const int MaxWaiting = 64;

    /// <summary>Requests that may wait for the driver's replies; a front-end sends one at a time, usually.</summary>
    private const int MaxDue = 256;

    private readonly VirtioVhostUserDevice _device;
    private readonly VhostUserChannel _channel;
    private readonly ILogger _log;
    private readonly Lock _lock = new();
    private readonly Queue<Due> _due = new();
    private readonly Channel<DriverFrame?> _fromDriver =
        System.Threading.Channels.Channel.CreateUnbounded<DriverFrame?>(new() { SingleReader = true });

    private ProtocolFeatures _passed;
    private ProtocolFeatures _offered;
    private ProtocolFeatures _negotiated;
    private ulong _driverFeatures;
    private VhostUserChannel? _backendChannel;
    private Task _relaying = Task.CompletedTask;
    private Task _answering = Task.CompletedTask;
    private int _waiting;

    internal FrontendSession(VirtioVhostUserDevice device, VhostUserChannel channel)
    {
        _device = device;
        _channel = channel;
        _log = device.Options.Logger;
    }

    /// <summary>Whether another message of the driver's can wait.</summary>
    internal bool HasRoom => Volatile.Read(ref _waiting) < MaxWaiting;

    private bool HasExplicitOffsets => (_driverFeatures & VirtioVhostUserSpec.ExplicitOffsets) != 0;

    private bool HasAcknowledgements => (_negotiated & ProtocolFeatures.ReplyAck) != 0;

    /// <summary>The driver is there, with these features.</summary>
    internal void Begin(ulong driverFeatures)
    {
        _driverFeatures = driverFeatures;
        _passed = MessagePolicy.PassedFor(driverFeatures, _device.Windows.Has(VirtioVhostUserSpec.LogWindow));
    }

    /// <summary>Serves until either side is gone.</summary>
    internal async Task RunAsync(CancellationToken cancellation)
    {
        _answering = AnswerAllAsync(cancellation);
        try
        {
            while (await _channel.ReceiveAsync(cancellation).ConfigureAwait(false) is { } message)
            {
                using (message)
                {
                    if (!await HandleAsync(message).ConfigureAwait(false))
                    {
                        return;
                    }
                }
            }
        }
        catch (ProtocolException error)
        {
            _log.LogWarning("connection closed: {Reason}", error.Message);
        }
        catch (IOException error)
        {
            _log.LogWarning("the connection failed: {Reason}", error.Message);
        }
    }

    /// <summary>Ends the session, from any thread.</summary>
    internal void Close()
    {
        _channel.Close();
        _fromDriver.Writer.TryComplete();
        lock (_lock)
        {
            _backendChannel?.Close();
        }
    }

    /// <summary>Takes a message of the driver's. On its queue's thread; waits for nothing.</summary>
    internal void TakeFromDriver(DriverFrame frame)
    {
        Interlocked.Increment(ref _waiting);
        if (!_fromDriver.Writer.TryWrite(frame))
        {
            Interlocked.Decrement(ref _waiting);
        }
    }

    /// <summary>Ends everything. The session is not the device's any more.</summary>
    public async ValueTask DisposeAsync()
    {
        Close();
        await _answering.ConfigureAwait(false);
        await _relaying.ConfigureAwait(false);
        if (_backendChannel is { } backend)
        {
            await backend.DisposeAsync().ConfigureAwait(false);
        }

        foreach (Due due in _due)
        {
            due.Dispose();
        }

        await _channel.DisposeAsync().ConfigureAwait(false);
    }

    /// <returns>False when the session is over.</returns>
    private async Task<bool> HandleAsync(VhostUserMessage message)
    {
        try
        {
            MessagePolicy.Check(message, _negotiated, _device.Rings);
            return await PassAsync(message, await TryLayOutAsync(message).ConfigureAwait(false)).ConfigureAwait(false);
        }
        catch (ProtocolException refusal)
        {
            if (refusal.IsFatal || FailureOf(message) is not { } reply)
            {
                throw;
            }

            _log.LogWarning("refused: {Reason}", refusal.Message);
            AddDue(new Due(message.Request) { OwnReply = reply });
            TellAnswerer();
            return true;
        }
    }

    private async Task<Delivery> TryLayOutAsync(VhostUserMessage message)
    {
        try
        {
            return await LayOutAsync(message).ConfigureAwait(false);
        }
        catch (IOException error)
        {
            string name = RequestTable.Frontend(message.Request)!.Name;
            throw new ProtocolException(name, "resources", error.Message, error);
        }
    }

    /// <returns>False when the session is over.</returns>
    private async Task<bool> PassAsync(VhostUserMessage message, Delivery delivery)
    {
        bool isDelivered = false;
        try
        {
            bool isAnswered = Expect(message, delivery);
            DriverFrame frame = new(message.Request, message.Flags, delivery.Payload);
            isDelivered = await DeliverUntilCloseAsync(frame).ConfigureAwait(false);
            if (!isDelivered)
            {
                return false;
            }

            delivery.Delivered?.Invoke();
            if (!isAnswered)
            {
                _retired.AddRange(delivery.Retired);
            }

            return true;
        }
        finally
        {
            if (!isDelivered)
            {
                delivery.Dropped?.Dispose();
            }
        }
    }

    /// <summary>The reply by which a refusal can be told; null when the connection has to end.</summary>
    private byte[]? FailureOf(VhostUserMessage message) =>
        RequestTable.Frontend(message.Request) is { HasOwnReply: true }
            ? FailureReplies.Of((FrontendRequest)message.Request)
            : message.NeedsReply && HasAcknowledgements ? VhostUserMessage.PayloadOf(1UL) : null;

    /// <summary>Notes that a reply is due, if one is. It means that the driver has done what came before it, too.
    /// </summary>
    private bool Expect(VhostUserMessage message, Delivery delivery)
    {
        bool isDue = RequestTable.Frontend(message.Request)!.HasOwnReply || (message.NeedsReply && HasAcknowledgements);
        if (isDue)
        {
            AddDue(new Due(message.Request) { Delivery = delivery, Retired = [.. _retired] });
            _retired.Clear();
        }

        return isDue;
    }

    private void AddDue(Due due)
    {
        lock (_lock)
        {
            if (_due.Count >= MaxDue)
            {
                due.Dispose();
                throw new ProtocolException("message", "request", $"{MaxDue} wait for replies") { IsFatal = true };
            }

            _due.Enqueue(due);
        }
    }

    private void TellAnswerer()
    {
        Interlocked.Increment(ref _waiting);
        if (!_fromDriver.Writer.TryWrite(null))
        {
            Interlocked.Decrement(ref _waiting);
        }
    }

    private async Task AnswerAllAsync(CancellationToken cancellation)
    {
        try
        {
            await foreach (DriverFrame? frame in _fromDriver.Reader.ReadAllAsync(cancellation).ConfigureAwait(false))
            {
                if (frame is { IsReply: true } reply)
                {
                    await AnswerAsync(reply).ConfigureAwait(false);
                }
                else if (frame is { } request)
                {
                    await AskAsync(request).ConfigureAwait(false);
                }

                await SendOwnRepliesAsync().ConfigureAwait(false);
                if (Interlocked.Decrement(ref _waiting) == MaxWaiting - 1)
                {
                    _device.WakeTransmit();
                }
            }
        }
        catch (Exception error) when (error is IOException or OperationCanceledException)
        {
            _channel.Close();
        }
    }

    private async Task AnswerAsync(DriverFrame reply)
    {
        Due? due;
        lock (_lock)
        {
            due = _due.TryPeek(out Due? next) && next.OwnReply is null ? _due.Dequeue() : null;
        }

        using (due)
        {
            await AnswerAsync(reply, due).ConfigureAwait(false);
        }
    }

    private async Task AnswerAsync(DriverFrame reply, Due? due)
    {
        if (due is null || due.Request != reply.Request)
        {
            Break($"a reply to request {reply.Request}, where "
                + (due is null ? "none is due" : $"one to {due.Request} is"));
            return;
        }

        FrontendRequest request = (FrontendRequest)due.Request;
        RequestRow row = RequestTable.Frontend(request);
        if (!FitsReply(row, reply.Payload.Length))
        {
            Break($"a reply of {reply.Payload.Length} bytes to {row.Name}");
            return;
        }

        await SettleAsync(row, due, reply.Payload).ConfigureAwait(false);
        (ReadOnlyMemory<byte> payload, Attachment[] attachments) =
            Rewrite(request, due.Delivery!.Record, reply.Payload);
        VhostUserMessage message = new(reply.Request, MessageFlags.Reply, payload, attachments);
        await _channel.SendAsync(message).ConfigureAwait(false);
    }

    /// <summary>The driver broke a rule of this session. One that was ended is not the driver's any more.</summary>
    private void Break(string problem) => _device.Break(problem, this);

    private async Task SendOwnRepliesAsync()
    {
        while (true)
        {
            Due due;
            lock (_lock)
            {
                if (!_due.TryPeek(out Due? next) || next.OwnReply is null)
                {
                    return;
                }

                due = _due.Dequeue();
            }

            await _channel.SendAsync(new VhostUserMessage(due.Request, MessageFlags.Reply, due.OwnReply))
                .ConfigureAwait(false);
        }
    }

    /// <summary>A request of the driver's: to the front-end's second socket, if there is one already.</summary>
    private async Task AskAsync(DriverFrame request)
    {
        RequestRow? row = RequestTable.Backend(request.Request);
        bool passes = row is not null && MessagePolicy.Passes((BackendRequest)request.Request)
            && row.Size.Allows((uint)request.Payload.Length) && (row.Gate & ~_negotiated) == 0;
        VhostUserChannel? channel;
        lock (_lock)
        {
            channel = _backendChannel;
        }

        if (channel is not null && passes)
        {
            try
            {
                await channel.SendAsync(new VhostUserMessage(request.Request, request.Flags, request.Payload))
                    .ConfigureAwait(false);
                return;
            }
            catch (Exception error) when (error is IOException or ObjectDisposedException)
            {
                // Also when another one has just taken its place.
                _log.LogWarning("the front-end's channel for requests failed: {Reason}", error.Message);
            }
        }

        if (request.NeedsReply)
        {
            DriverFrame refusal = new(request.Request, MessageFlags.Reply, VhostUserMessage.PayloadOf(1UL));
            _device.TryWithSession(this, () => _device.Mailbox.Post(refusal));
        }
    }

    private async Task RelayRepliesAsync(VhostUserChannel channel, Task before)
    {
        await before.ConfigureAwait(false);
        try
        {
            while (await channel.ReceiveAsync().ConfigureAwait(false) is { } message)
            {
                using (message)
                {
                    if ((message.Flags & MessageFlags.Reply) == 0 || message.Attachments.Count > 0
                        || message.Payload.Length > VirtioVhostUserSpec.MaxPayloadBytes)
                    {
                        _log.LogWarning("request {Request} on the channel for requests is no reply", message.Request);
                        break;
                    }

                    DriverFrame frame = new(message.Request, message.Flags, message.Payload);
                    if (!await DeliverAsync(frame).ConfigureAwait(false))
                    {
                        break;
                    }
                }
            }
        }
        catch (Exception error) when (error is IOException or ProtocolException or ObjectDisposedException)
        {
            _log.LogWarning("the front-end's channel for requests failed: {Reason}", error.Message);
        }

        channel.Close();
    }

    /// <summary>Hands a message to the driver, unless the session was ended meanwhile.</summary>
    private async Task<bool> DeliverAsync(DriverFrame frame)
    {
        Task<bool>? delivery = null;
        return _device.TryWithSession(this, () => delivery = _device.Mailbox.DeliverAsync(frame))
            && await delivery!.ConfigureAwait(false);
    }

    /// <summary>As <see cref="DeliverAsync"/>; a front-end that goes away meanwhile is not kept waiting for.</summary>
    private async Task<bool> DeliverUntilCloseAsync(DriverFrame frame)
    {
        using CancellationTokenSource delivered = new();
        Task<bool> delivery = DeliverAsync(frame);
        Task closed = _channel.WaitForCloseAsync(delivered.Token);
        bool isDelivered = await Task.WhenAny(delivery, closed).ConfigureAwait(false) == delivery
            && await delivery.ConfigureAwait(false);
        await delivered.CancelAsync().ConfigureAwait(false);
        await closed.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        return isDelivered;
    }

    private static bool FitsReply(RequestRow row, int bytes) => row.Reply switch
    {
        ReplyKind.Acknowledge or ReplyKind.Value => bytes == sizeof(ulong),
        ReplyKind.VringState => bytes == 2 * sizeof(uint),
        ReplyKind.SameLayout => bytes == 0 || row.Size.Allows((uint)bytes),
        _ => false,
    };

    /// <summary>A reply that is due.</summary>
    private sealed class Due(uint request) : IDisposable
    {
        internal uint Request => request;

        /// <summary>What this device answers by itself.</summary>
        internal byte[]? OwnReply { get; init; }

        internal Delivery? Delivery { get; init; }

        /// <summary>To be unmapped when the driver has answered: it did without them before.</summary>
        internal IReadOnlyList<WindowPart> Retired { get; init; } = [];

        public void Dispose() => Delivery?.Record?.Memory.Dispose();
    }
}
