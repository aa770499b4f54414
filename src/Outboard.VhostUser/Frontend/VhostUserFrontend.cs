// The front-end's half of the protocol: one method for each request, named as the request. A program that is no virtual
// machine drives a device with it, whoever wrote the back-end.
//
// Requests are sent one at a time, each with its reply awaited when it has one. With REPLY_ACK every request that has
// none of its own asks for an acknowledgement, and a refusal becomes an exception.
// Not here: reconnection, which is in ReconnectingFrontend.
using System.Runtime.InteropServices;
using Outboard.Linux.Sockets;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend;

/// <summary>A connection to a vhost-user back-end.</summary>
/// <remarks>Methods may be called from any thread; they wait for each other.</remarks>
public sealed partial class VhostUserFrontend : IAsyncDisposable
{
    /// <summary>Most queues of a device: their indices have 16 bits.</summary>
    private const int MaxQueueCount = 65536;

    private readonly VhostUserChannel _channel;
    private readonly VhostUserFrontendOptions _options;
    private readonly SemaphoreSlim _turn = new(1);
    private readonly CancellationTokenSource _closing = new();
    private readonly Lazy<Task> _disconnected;
    private volatile string? _brokenBy;

    /// <summary>What the back-end was told.</summary>
    internal ControlState State { get; } = new();

    /// <summary>Takes ownership of a channel to a back-end. Nothing is sent yet.</summary>
    public VhostUserFrontend(VhostUserChannel channel, VhostUserFrontendOptions? options = null)
    {
        _channel = channel;
        _options = options ?? new VhostUserFrontendOptions();
        _disconnected = new Lazy<Task>(() => _channel.WaitForCloseAsync(_closing.Token));
    }

    /// <summary>The virtio features that the back-end offers, after <see cref="NegotiateAsync"/>.</summary>
    public ulong OfferedFeatures { get; private set; }

    /// <summary>The virtio features in force.</summary>
    public ulong Features { get; private set; }

    /// <summary>The protocol features that the back-end offers, after <see cref="NegotiateAsync"/>.</summary>
    public ProtocolFeatures OfferedProtocolFeatures { get; private set; }

    /// <summary>The protocol features in force.</summary>
    public ProtocolFeatures ProtocolFeatures { get; private set; }

    /// <summary>Queues that the back-end has; 0 when it does not tell (without MQ).</summary>
    public int QueueCount { get; private set; }

    /// <summary>Completes when the back-end is gone, or when this object is disposed.</summary>
    public Task Disconnected => _disconnected.Value;

    /// <summary>Connects to a back-end and negotiates.</summary>
    /// <exception cref="System.Net.Sockets.SocketException">Nobody listens there.</exception>
    /// <exception cref="ProtocolException">The back-end does not answer as it should.</exception>
    public static async Task<VhostUserFrontend> ConnectAsync(
        string socketPath, VhostUserFrontendOptions? options = null, CancellationToken cancellation = default)
    {
        UnixSocket socket = await UnixSocket.ConnectAsync(socketPath, cancellation).ConfigureAwait(false);
        VhostUserFrontend frontend = new(new SocketChannel(socket), options);
        try
        {
            await frontend.NegotiateAsync(cancellation).ConfigureAwait(false);
            return frontend;
        }
        catch
        {
            await frontend.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>
    /// Takes the session: owner, features, protocol features, number of queues, the back-end's own channel.
    /// </summary>
    public async Task NegotiateAsync(CancellationToken cancellation = default)
    {
        OfferedFeatures = await GetFeaturesAsync(cancellation).ConfigureAwait(false);
        if ((OfferedFeatures & VirtioFeatures.ProtocolFeatures) != 0)
        {
            OfferedProtocolFeatures = await GetProtocolFeaturesAsync(cancellation).ConfigureAwait(false);
            await SetProtocolFeaturesAsync(
                Consistent(OfferedProtocolFeatures & _options.ProtocolFeatures), cancellation).ConfigureAwait(false);
        }

        await SetOwnerAsync(cancellation).ConfigureAwait(false);
        if (Has(ProtocolFeatures.MultiQueue))
        {
            ulong count = await GetQueueNumAsync(cancellation).ConfigureAwait(false);
            QueueCount = count <= MaxQueueCount
                ? (int)count
                : throw new ProtocolException(
                    "GET_QUEUE_NUM", "reply", $"{count} queues, at most {MaxQueueCount} are possible");
        }

        if (Has(ProtocolFeatures.Shmem))
        {
            OpenSharedRegions(await GetShmemConfigAsync(cancellation).ConfigureAwait(false));
        }

        if (Has(ProtocolFeatures.BackendReq))
        {
            await OpenBackendChannelAsync(cancellation).ConfigureAwait(false);
        }

        ulong wanted = _options.Features | (_options.UsePacked ? VirtioFeatures.RingPacked : 0)
            | (_options.UseInOrder ? VirtioFeatures.InOrder : 0)
            | (_options.Iommu is null ? 0 : VirtioFeatures.AccessPlatform);
        ulong accepted = OfferedFeatures & wanted;
        await SetFeaturesAsync(accepted | (
            OfferedFeatures & VirtioFeatures.ProtocolFeatures), cancellation).ConfigureAwait(false);
    }

    /// <summary>Drops features whose conditions are not met.</summary>
    private ProtocolFeatures Consistent(ProtocolFeatures features)
    {
        bool records = (features & ProtocolFeatures.InflightShmFd) != 0;
        bool asks = (features & ProtocolFeatures.GetVringBaseSkipDrain) != 0;
        if (!records || !(asks || _options.AcceptsSuspendedStops))
        {
            features &= ~ProtocolFeatures.GetVringBaseInflight;
        }

        return (features & ProtocolFeatures.GetVringBaseInflight) != 0
            ? features : features & ~ProtocolFeatures.GetVringBaseSkipDrain;
    }

    /// <summary>Closes the connection. The back-end stops all rings.</summary>
    public async ValueTask DisposeAsync()
    {
        try
        {
            // First, so that nobody waits for an answer on it.
            _channel.Close();
            await CloseBackendChannelAsync().ConfigureAwait(false);
        }
        finally
        {
            await EndWatchAsync().ConfigureAwait(false);
            _closing.Dispose();
            await _channel.DisposeAsync().ConfigureAwait(false);
            DropSharedMappings();
            _turn.Dispose();
        }
    }

    private async Task EndWatchAsync()
    {
        if (!_closing.IsCancellationRequested)
        {
            await _closing.CancelAsync().ConfigureAwait(false);
        }

        if (_disconnected.IsValueCreated)
        {
            await _disconnected.Value.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    /// <summary>Whether a protocol feature is in force.</summary>
    public bool Has(ProtocolFeatures feature) => (ProtocolFeatures & feature) == feature;

    /// <summary>Sends a request and awaits what answers it.</summary>
    /// <returns>The reply's payload, or an empty one when no reply is due.</returns>
    private Task<ReadOnlyMemory<byte>> RequestAsync(
        FrontendRequest request, byte[] payload, CancellationToken cancellation, params Attachment[] attachments) =>
        RequestAsync(request, payload, null, cancellation, attachments);

    /// <summary>As above; <paramref name="take"/> sees the reply before its attachments are closed.</summary>
    private async Task<ReadOnlyMemory<byte>> RequestAsync(
        FrontendRequest request,
        byte[] payload,
        Action<VhostUserMessage>? take,
        CancellationToken cancellation,
        params Attachment[] attachments)
    {
        RequestRow row = RequestTable.Frontend(request);
        await _turn.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            if (_brokenBy is { } reason)
            {
                throw new ProtocolException(row.Name, "connection", $"ended earlier by {reason}") { IsFatal = true };
            }

            bool acknowledged = !row.HasOwnReply && Has(ProtocolFeatures.ReplyAck);
            VhostUserMessage message =
                new((uint)request, acknowledged ? MessageFlags.NeedReply : 0, payload, attachments);
            ReadOnlyMemory<byte> reply =
                await ExchangeAsync(row, message, row.HasOwnReply
                    || acknowledged, take, cancellation).ConfigureAwait(false);
            return acknowledged && Value(row, reply) is ulong status and not 0
                ? throw new ProtocolException(row.Name, "reply", $"the back-end refused the request ({status})")
                : reply;
        }
        finally
        {
            _turn.Release();
        }
    }

    /// <summary>Sends and receives. An exchange that was begun and not finished ends the connection: a late reply would
    /// answer another request.</summary>
    private async Task<ReadOnlyMemory<byte>> ExchangeAsync(
        RequestRow row,
        VhostUserMessage message,
        bool hasReply,
        Action<VhostUserMessage>? take,
        CancellationToken cancellation)
    {
        using CancellationTokenSource limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        try
        {
            limit.CancelAfter(_options.ReplyTimeout);
            await _channel.SendAsync(message, limit.Token).ConfigureAwait(false);
            if (!hasReply)
            {
                return default;
            }

            using VhostUserMessage reply = await ReceiveReplyAsync(row, limit.Token).ConfigureAwait(false);
            take?.Invoke(reply);
            return reply.Payload;
        }
        catch (OperationCanceledException error) when (!cancellation.IsCancellationRequested)
        {
            string problem = $"none within {_options.ReplyTimeout.TotalSeconds} s";
            throw Broken(new ProtocolException(row.Name, "reply", problem, error) { IsFatal = true });
        }
        catch (OperationCanceledException)
        {
            Break($"{row.Name}, which was cancelled");
            throw;
        }
        catch (ProtocolException error)
        {
            throw Broken(error);
        }
        catch (IOException error)
        {
            throw Broken(new ProtocolException(row.Name, "connection", error.Message, error) { IsFatal = true });
        }
    }

    private async Task<VhostUserMessage> ReceiveReplyAsync(RequestRow row, CancellationToken cancellation)
    {
        VhostUserMessage reply = await _channel.ReceiveAsync(cancellation).ConfigureAwait(false)
            ?? throw new ProtocolException(row.Name, "reply", "the back-end closed the connection") { IsFatal = true };
        if (reply.Request == row.Id && reply.Flags == (MessageFlags.Version1 | MessageFlags.Reply))
        {
            return reply;
        }

        reply.Dispose();
        throw new ProtocolException(
            row.Name,
            "reply",
            $"request {reply.Request} with flags 0x{(uint)reply.Flags:x} came instead") { IsFatal = true };
    }

    /// <summary>Nothing is sent or received any more.</summary>
    private void Break(string reason)
    {
        _brokenBy ??= reason;
        _channel.Close();
    }

    private ProtocolException Broken(ProtocolException error)
    {
        Break(error.Message);
        return error;
    }

    private ProtocolException BrokenReply(string request, string field, string problem) =>
        Broken(new ProtocolException(request, field, problem) { IsFatal = true });

    private async Task<ulong> RequestValueAsync(FrontendRequest request, CancellationToken cancellation)
    {
        ReadOnlyMemory<byte> reply = await RequestAsync(request, [], cancellation).ConfigureAwait(false);
        return Value(RequestTable.Frontend(request), reply);
    }

    private ulong Value(RequestRow row, ReadOnlyMemory<byte> payload) => payload.Length == sizeof(ulong)
        ? MemoryMarshal.Read<ulong>(payload.Span)
        : throw BrokenReply(row.Name, "size", $"{payload.Length} bytes of reply, 8 are due");
}
