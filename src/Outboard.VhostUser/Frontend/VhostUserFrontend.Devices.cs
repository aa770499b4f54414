// Requests that only devices of some kinds serve, notifications as messages, and what back-ends ask in their turn.
using System.Buffers.Binary;
using System.Collections.Concurrent;
using Outboard.Linux.Sockets;
using Outboard.Memory;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;

namespace Outboard.VhostUser.Frontend;

public sealed partial class VhostUserFrontend
{
    private readonly ConcurrentDictionary<int, FrontendQueue> _inbandQueues = new();
    private readonly SharedObjectTable _ownObjects = new();

    /// <summary>Raised, on a pool thread, when the back-end tells by a message that a ring is broken.</summary>
    public event Action<int>? RingBroken;

    private SharedObjectTable SharedObjects => _options.SharedObjects ?? _ownObjects;

    private bool HasInband => Has(ProtocolFeatures.InbandNotifications);

    /// <summary>VRING_KICK: a kick as a message.</summary>
    public Task VringKickAsync(int index, CancellationToken cancellation = default) =>
        RequestVringAsync(FrontendRequest.VringKick, index, 0, cancellation);

    /// <summary>SET_VRING_ENDIAN: the byte order of a legacy ring, before it starts.</summary>
    public async Task SetVringEndianAsync(int index, bool isBigEndian, CancellationToken cancellation = default)
    {
        await RequestVringAsync(FrontendRequest.SetVringEndian, index, isBigEndian ? 1U : 0U, cancellation)
            .ConfigureAwait(false);
        State.NoteRing(index, ring => ring with { IsBigEndian = isBigEndian });
    }

    /// <summary>CREATE_CRYPTO_SESSION.</summary>
    /// <returns>The session's number.</returns>
    /// <exception cref="ProtocolException">The back-end makes no such session.</exception>
    public async Task<ulong> CreateCryptoSessionAsync(
        CryptoSessionParameters parameters, CancellationToken cancellation = default)
    {
        byte[] payload = CryptoSessionPayload.Write(parameters);
        ReadOnlyMemory<byte> reply =
            await RequestAsync(FrontendRequest.CreateCryptoSession, payload, cancellation).ConfigureAwait(false);
        if (reply.Length != CryptoSessionPayload.Bytes)
        {
            throw BrokenReply("CREATE_CRYPTO_SESSION", "size", $"{reply.Length} bytes of reply");
        }

        long session = BinaryPrimitives.ReadInt64LittleEndian(reply.Span[CryptoSessionPayload.SessionOffset..]);
        if (session < 0)
        {
            throw new ProtocolException("CREATE_CRYPTO_SESSION", "session", "the back-end refused it");
        }

        State.NoteSession((ulong)session, parameters);
        return (ulong)session;
    }

    /// <summary>CLOSE_CRYPTO_SESSION.</summary>
    public async Task CloseCryptoSessionAsync(ulong session, CancellationToken cancellation = default)
    {
        byte[] payload = VhostUserMessage.PayloadOf(session);
        await RequestAsync(FrontendRequest.CloseCryptoSession, payload, cancellation).ConfigureAwait(false);
        State.NoteSession(session, null);
    }

    /// <summary>GET_SHARED_OBJECT: memory of an object that the back-end exports.</summary>
    /// <returns>The memory, which the caller disposes; null when there is no such object.</returns>
    public async Task<SharedMemory?> GetSharedObjectAsync(Guid name, CancellationToken cancellation = default)
    {
        SharedMemory? memory = null;
        await RequestAsync(
            FrontendRequest.GetSharedObject,
            name.ToByteArray(bigEndian: true),
            reply => memory = reply.Attachments.Count == 1 ? reply.Attachments[0].ToSharedMemory() : null,
            cancellation).ConfigureAwait(false);
        return memory;
    }

    /// <summary>GPU_SET_SOCKET: gives the device a display.</summary>
    /// <returns>The display's end: the device's requests come there, and are answered.</returns>
    public async Task<DisplayConnection> GpuSetSocketAsync(CancellationToken cancellation = default)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
        SocketDisplayConnection display = new(ours);
        try
        {
            using (theirs)
            {
                await RequestAsync(
                    FrontendRequest.GpuSetSocket,
                    [],
                    cancellation,
                    new DescriptorAttachment(theirs.DuplicateDescriptor())).ConfigureAwait(false);
            }

            return display;
        }
        catch
        {
            await display.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Sets up how a queue is notified: by eventfds, or by messages when those were negotiated.</summary>
    private async Task ConnectNotifiersAsync(FrontendQueue queue, CancellationToken cancellation)
    {
        int index = queue.Ring.Index;
        if (HasInband)
        {
            _inbandQueues[index] = queue;
            queue.KickByMessage = new RepeatedExchange(() => VringKickAsync(index));
            return;
        }

        await SetVringCallAsync(index, queue.Call, cancellation).ConfigureAwait(false);
        await SetVringKickAsync(index, queue.Kick, cancellation).ConfigureAwait(false);
    }

    private bool VringCall(VhostUserMessage message)
    {
        if (!_inbandQueues.TryGetValue((int)message.Read<VringStatePayload>().Index, out FrontendQueue? queue))
        {
            return false;
        }

        queue.Call.Signal();
        return true;
    }

    private bool VringErr(VhostUserMessage message)
    {
        int index = (int)message.Read<VringStatePayload>().Index;
        if (!_inbandQueues.ContainsKey(index))
        {
            return false;
        }

        RingBroken?.Invoke(index);
        return true;
    }

    /// <summary>The owner is this back-end: it is asked for the memory whenever somebody wants it.</summary>
    private bool SharedObjectAdd(VhostUserMessage message)
    {
        Guid name = new(message.Payload.Span, bigEndian: true);
        return SharedObjects.Add(name, this, async () =>
        {
            try
            {
                return await GetSharedObjectAsync(name).ConfigureAwait(false);
            }
            catch (Exception error) when (error is ProtocolException or ObjectDisposedException)
            {
                return null;
            }
        });
    }

    private bool SharedObjectRemove(VhostUserMessage message) =>
        SharedObjects.Remove(new Guid(message.Payload.Span, bigEndian: true), this);

    private async Task<Attachment?> SharedObjectLookupAsync(VhostUserMessage message, VhostUserChannel channel)
    {
        using SharedMemory? memory =
            await SharedObjects.LookUpAsync(new Guid(message.Payload.Span, bigEndian: true)).ConfigureAwait(false);
        return memory is null ? null : channel.Attach(memory);
    }
}
