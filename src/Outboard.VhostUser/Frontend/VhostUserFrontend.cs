// The front-end's half of the protocol: one method for each request, named as the request. A program that is no virtual
// machine drives a device with it, whoever wrote the back-end.
//
// Requests are sent one at a time, each with its reply awaited when it has one. With REPLY_ACK every request that has
// none of its own asks for an acknowledgement, and a refusal becomes an exception.
// Not here: what RequestTable marks NotBuilt. Reconnection.
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
    private readonly VhostUserChannel _channel;
    private readonly VhostUserFrontendOptions _options;
    private readonly SemaphoreSlim _turn = new(1);

    /// <summary>Takes ownership of a channel to a back-end. Nothing is sent yet.</summary>
    public VhostUserFrontend(VhostUserChannel channel, VhostUserFrontendOptions? options = null)
    {
        _channel = channel;
        _options = options ?? new VhostUserFrontendOptions();
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

    /// <summary>Takes the session: owner, features, protocol features, number of queues, the back-end's own channel.</summary>
    public async Task NegotiateAsync(CancellationToken cancellation = default)
    {
        OfferedFeatures = await GetFeaturesAsync(cancellation).ConfigureAwait(false);
        if ((OfferedFeatures & VirtioFeatures.ProtocolFeatures) != 0)
        {
            OfferedProtocolFeatures = await GetProtocolFeaturesAsync(cancellation).ConfigureAwait(false);
            await SetProtocolFeaturesAsync(OfferedProtocolFeatures & _options.ProtocolFeatures, cancellation).ConfigureAwait(false);
        }

        await SetOwnerAsync(cancellation).ConfigureAwait(false);
        if (Has(ProtocolFeatures.MultiQueue))
        {
            QueueCount = checked((int)await GetQueueNumAsync(cancellation).ConfigureAwait(false));
        }

        if (Has(ProtocolFeatures.BackendReq))
        {
            await OpenBackendChannelAsync(cancellation).ConfigureAwait(false);
        }

        ulong accepted = OfferedFeatures & _options.Features;
        await SetFeaturesAsync(accepted | (OfferedFeatures & VirtioFeatures.ProtocolFeatures), cancellation).ConfigureAwait(false);
    }

    /// <summary>Closes the connection. The back-end stops all rings.</summary>
    public async ValueTask DisposeAsync()
    {
        await CloseBackendChannelAsync().ConfigureAwait(false);
        await _channel.DisposeAsync().ConfigureAwait(false);
        _turn.Dispose();
    }

    /// <summary>Whether a protocol feature is in force.</summary>
    public bool Has(ProtocolFeatures feature) => (ProtocolFeatures & feature) == feature;

    /// <summary>Sends a request and awaits what answers it.</summary>
    /// <returns>The reply's payload, or an empty one when no reply is due.</returns>
    private async Task<ReadOnlyMemory<byte>> RequestAsync(
        FrontendRequest request, byte[] payload, CancellationToken cancellation, params Attachment[] attachments)
    {
        RequestRow row = RequestTable.Frontend(request);
        bool acknowledged = !row.HasOwnReply && Has(ProtocolFeatures.ReplyAck);
        using CancellationTokenSource limit = CancellationTokenSource.CreateLinkedTokenSource(cancellation);
        await _turn.WaitAsync(cancellation).ConfigureAwait(false);
        try
        {
            VhostUserMessage message = new((uint)request, acknowledged ? MessageFlags.NeedReply : 0, payload, attachments);
            await _channel.SendAsync(message, cancellation).ConfigureAwait(false);
            if (!row.HasOwnReply && !acknowledged)
            {
                return default;
            }

            limit.CancelAfter(_options.ReplyTimeout);
            using VhostUserMessage reply = await ReceiveReplyAsync(row, limit.Token).ConfigureAwait(false);
            if (acknowledged && Value(row, reply.Payload) is ulong status and not 0)
            {
                throw new ProtocolException(row.Name, "reply", $"the back-end refused the request ({status})");
            }

            return reply.Payload;
        }
        catch (OperationCanceledException error) when (!cancellation.IsCancellationRequested)
        {
            throw new ProtocolException(row.Name, "reply", $"none within {_options.ReplyTimeout.TotalSeconds} s", error) { IsFatal = true };
        }
        finally
        {
            _turn.Release();
        }
    }

    private async Task<VhostUserMessage> ReceiveReplyAsync(RequestRow row, CancellationToken cancellation)
    {
        VhostUserMessage reply = await _channel.ReceiveAsync(cancellation).ConfigureAwait(false)
            ?? throw new ProtocolException(row.Name, "reply", "the back-end closed the connection") { IsFatal = true };
        if (reply.Request == row.Id && (reply.Flags & MessageFlags.Reply) != 0)
        {
            return reply;
        }

        reply.Dispose();
        throw new ProtocolException(
            row.Name, "reply", $"request {reply.Request} with flags 0x{(uint)reply.Flags:x} came instead") { IsFatal = true };
    }

    private async Task<ulong> RequestValueAsync(FrontendRequest request, CancellationToken cancellation)
    {
        ReadOnlyMemory<byte> reply = await RequestAsync(request, [], cancellation).ConfigureAwait(false);
        return Value(RequestTable.Frontend(request), reply);
    }

    private static ulong Value(RequestRow row, ReadOnlyMemory<byte> payload) => payload.Length == sizeof(ulong)
        ? MemoryMarshal.Read<ulong>(payload.Span)
        : throw new ProtocolException(row.Name, "size", $"{payload.Length} bytes of reply, 8 are due") { IsFatal = true };
}
