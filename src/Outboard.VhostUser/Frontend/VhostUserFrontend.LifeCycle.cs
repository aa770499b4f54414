// The front-end's half of LIFE_CYCLE: what the protocol lacks for a whole VIRTIO device. RelayedDevice uses it.
using System.Runtime.InteropServices;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Frontend;

public sealed partial class VhostUserFrontend
{
    /// <summary>GET_IDENTITY: what the device is.</summary>
    public Task<IdentityPayload> GetIdentityAsync(CancellationToken cancellation = default) =>
        RequestLayoutAsync<IdentityPayload>(FrontendRequest.GetIdentity, [], cancellation);

    /// <summary>GET_QUEUE_LIMIT: the largest size of a queue.</summary>
    /// <exception cref="ProtocolException">There is no such queue.</exception>
    public async Task<int> GetQueueLimitAsync(int index, CancellationToken cancellation = default)
    {
        byte[] payload = VhostUserMessage.PayloadOf(new VringStatePayload((uint)index, 0));
        VringStatePayload reply = await RequestLayoutAsync<VringStatePayload>(
            FrontendRequest.GetQueueLimit, payload, cancellation).ConfigureAwait(false);
        return reply.Index == (uint)index && reply.Num is > 0 and <= 32768
            ? (int)reply.Num
            : throw BrokenReply("GET_QUEUE_LIMIT", "reply", $"{reply.Num} for queue {reply.Index}, asked for {index}");
    }

    /// <summary>GET_IOVA_RANGE: the bus addresses that are possible.</summary>
    public Task<IovaRangePayload> GetIovaRangeAsync(CancellationToken cancellation = default) =>
        RequestLayoutAsync<IovaRangePayload>(FrontendRequest.GetIovaRange, [], cancellation);

    /// <summary>
    /// SUSPEND: when it is done nothing is in flight, no guest memory is written and nobody is notified until
    /// <see cref="ResumeAsync"/> or a reset.
    /// </summary>
    /// <exception cref="ProtocolException">The device is before FEATURES_OK.</exception>
    public async Task SuspendAsync(CancellationToken cancellation = default)
    {
        await RequestAsync(FrontendRequest.Suspend, [], cancellation).ConfigureAwait(false);
        State.IsSuspended = true;
    }

    /// <summary>RESUME.</summary>
    /// <exception cref="ProtocolException">The device is not suspended.</exception>
    public async Task ResumeAsync(CancellationToken cancellation = default)
    {
        await RequestAsync(FrontendRequest.Resume, [], cancellation).ConfigureAwait(false);
        State.IsSuspended = false;
    }

    /// <summary>GET_QUEUE_STATE: where a queue stands, also while it runs.</summary>
    /// <exception cref="ProtocolException">There is no such queue.</exception>
    public async Task<QueueStatePayload> GetQueueStateAsync(int index, CancellationToken cancellation = default)
    {
        byte[] payload = VhostUserMessage.PayloadOf(new VringStatePayload((uint)index, 0));
        QueueStatePayload reply = await RequestLayoutAsync<QueueStatePayload>(
            FrontendRequest.GetQueueState, payload, cancellation).ConfigureAwait(false);
        return reply.Index == (uint)index
            ? reply
            : throw BrokenReply("GET_QUEUE_STATE", "reply", $"queue {reply.Index}, asked for {index}");
    }

    /// <summary>READ_CONFIG: a part of the configuration space of one moment.</summary>
    /// <returns>The bytes, and the space's generation then.</returns>
    /// <exception cref="ProtocolException">It lies outside the space.</exception>
    public async Task<(byte[] Bytes, uint Generation)> ReadConfigAsync(
        uint offset, int sizeBytes, CancellationToken cancellation = default)
    {
        ConfigPartPayload head = new(offset, (uint)sizeBytes, 0);
        byte[] payload = VhostUserMessage.PayloadOf(head, new byte[sizeBytes]);
        ReadOnlyMemory<byte> reply =
            await RequestAsync(FrontendRequest.ReadConfig, payload, cancellation).ConfigureAwait(false);
        if (reply.Length != payload.Length)
        {
            throw Failure("READ_CONFIG", reply, payload.Length);
        }

        ConfigPartPayload part = MemoryMarshal.Read<ConfigPartPayload>(reply.Span);
        return part with { Generation = 0 } == head
            ? (reply[ConfigPartPayload.Bytes..].ToArray(), part.Generation)
            : throw BrokenReply("READ_CONFIG", "reply", $"{part.SizeBytes} bytes at {part.Offset}");
    }

    /// <summary>The whole configuration space: read again until it did not change meanwhile.</summary>
    /// <param name="sizeBytes">Its size, from <see cref="GetIdentityAsync"/>.</param>
    /// <param name="cancellation">Gives up waiting for replies.</param>
    public async Task<byte[]> ReadWholeConfigAsync(int sizeBytes, CancellationToken cancellation = default)
    {
        const int attempts = 100;
        byte[] whole = new byte[sizeBytes];
        for (int attempt = 0; attempt < attempts; attempt++)
        {
            uint? first = null;
            bool isSame = true;
            for (int at = 0; at < sizeBytes && isSame; at += ConfigPartPayload.MaxPartBytes)
            {
                int length = Math.Min(sizeBytes - at, ConfigPartPayload.MaxPartBytes);
                (byte[] bytes, uint generation) =
                    await ReadConfigAsync((uint)at, length, cancellation).ConfigureAwait(false);
                bytes.CopyTo(whole, at);
                first ??= generation;
                isSame = generation == first;
            }

            if (isSame)
            {
                return whole;
            }
        }

        throw new ProtocolException(
            "READ_CONFIG", "generation", $"the space changed {attempts} times while it was read");
    }

    /// <summary>WRITE_CONFIG: writes as a driver does.</summary>
    /// <exception cref="ProtocolException">Nothing there may be written.</exception>
    public async Task WriteConfigAsync(
        uint offset, ReadOnlyMemory<byte> bytes, CancellationToken cancellation = default)
    {
        ConfigPartPayload head = new(offset, (uint)bytes.Length, 0);
        byte[] payload = VhostUserMessage.PayloadOf(head, bytes.Span);
        await RequestAsync(FrontendRequest.WriteConfig, payload, cancellation).ConfigureAwait(false);
        State.NoteConfig(offset, bytes.Span);
    }

    private async Task<T> RequestLayoutAsync<T>(FrontendRequest request, byte[] payload, CancellationToken cancellation)
        where T : unmanaged
    {
        ReadOnlyMemory<byte> reply = await RequestAsync(request, payload, cancellation).ConfigureAwait(false);
        int size = VhostUserMessage.PayloadOf(default(T)).Length;
        return reply.Length == size
            ? MemoryMarshal.Read<T>(reply.Span)
            : throw Failure(RequestTable.Frontend(request).Name, reply, size);
    }

    /// <summary>An empty reply is a refusal; any other size is a mistake that ends the connection.</summary>
    private ProtocolException Failure(string request, ReadOnlyMemory<byte> reply, int expected) => reply.IsEmpty
        ? new ProtocolException(request, "reply", "the back-end refused the request")
        : BrokenReply(request, "size", $"{reply.Length} bytes of reply, {expected} are due");
}
