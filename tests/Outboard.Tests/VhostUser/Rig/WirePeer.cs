// The other end of a vhost-user socket, byte by byte: it sends whatever a test wants, well-formed or not, and shows
// replies as they are on the wire.
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Linux.Sockets;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser;

/// <summary>A message as it came.</summary>
internal sealed record WireMessage(uint Request, uint Flags, byte[] Payload, FileDescriptor[] Descriptors)
{
    public ulong Value => BinaryPrimitives.ReadUInt64LittleEndian(Payload);
}

/// <summary>A raw peer.</summary>
internal sealed class WirePeer(UnixSocket socket) : IDisposable
{
    public const uint NeedReply = 9;
    public const uint NoReply = 1;
    public const uint ReplyFlags = 5;
    public const ulong Features = VirtioFeatures.Version1 | VirtioFeatures.ProtocolFeatures;

    public const ProtocolFeatures AllProtocolFeatures =
        ProtocolFeatures.MultiQueue | ProtocolFeatures.ReplyAck | ProtocolFeatures.BackendReq | ProtocolFeatures.Config
        | ProtocolFeatures.ResetDevice | ProtocolFeatures.ConfigureMemSlots | ProtocolFeatures.Status
        | ProtocolFeatures.InflightShmFd | ProtocolFeatures.LogShmFd | ProtocolFeatures.Rarp
        | ProtocolFeatures.NetMtu | ProtocolFeatures.DeviceState | ProtocolFeatures.BackendSendFd
        | ProtocolFeatures.HostNotifier | ProtocolFeatures.Shmem | ProtocolFeatures.PageFault
        | ProtocolFeatures.GetVringBaseInflight | ProtocolFeatures.GetVringBaseSkipDrain;

    /// <summary>All, and what changes the meaning of addresses, so that only its own tests negotiate it.</summary>
    public const ProtocolFeatures OfferedProtocolFeatures = AllProtocolFeatures | ProtocolFeatures.GpaAddresses;

    public static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();

    public static byte[] Frame(uint request, uint flags, ReadOnlySpan<byte> payload, uint? size = null) =>
    [
        .. Bytes(request), .. Bytes(flags), .. Bytes(size ?? (uint)payload.Length), .. payload,
    ];

    public async Task SendAsync(byte[] bytes, params FileDescriptor[] descriptors)
    {
        using CancellationTokenSource limit = Limit();
        await socket.SendAsync(bytes, descriptors, limit.Token);
    }

    public Task SendAsync(FrontendRequest request, uint flags, byte[] payload, params FileDescriptor[] descriptors) =>
        SendAsync(Frame((uint)request, flags, payload), descriptors);

    /// <summary>Sends a request and expects exactly one reply of the same number, with flags 5.</summary>
    public async Task<byte[]> AskAsync(
        FrontendRequest request, byte[] payload, uint flags = NeedReply, params FileDescriptor[] descriptors)
    {
        await SendAsync(request, flags, payload, descriptors);
        return await ReplyAsync(request);
    }

    public async Task<ulong> AskValueAsync(FrontendRequest request, uint flags = NoReply) =>
        BinaryPrimitives.ReadUInt64LittleEndian(await AskAsync(request, [], flags));

    /// <summary>Reads a reply without descriptors, and checks its header.</summary>
    public async Task<byte[]> ReplyAsync(FrontendRequest request) => (await ReplyWithAsync(request, 0)).Payload;

    /// <summary>Reads a reply with descriptors, and checks its header.</summary>
    public async Task<WireMessage> ReplyWithAsync(FrontendRequest request, int descriptors)
    {
        WireMessage reply = await ReceiveAsync();
        Assert.Equal((uint)request, reply.Request);
        Assert.Equal(ReplyFlags, reply.Flags);
        Assert.Equal(descriptors, reply.Descriptors.Length);
        return reply;
    }

    /// <summary>Sends a request with NEED_REPLY and expects a zero.</summary>
    public Task DoAsync<T>(FrontendRequest request, T payload, params FileDescriptor[] descriptors)
        where T : unmanaged => DoBytesAsync(request, Bytes(payload), descriptors);

    public async Task DoBytesAsync(FrontendRequest request, byte[] payload, params FileDescriptor[] descriptors) =>
        Assert.Equal(Bytes(0UL), await AskAsync(request, payload, NeedReply, descriptors));

    /// <summary>Sends a request with NEED_REPLY and expects a number that is not zero.</summary>
    public async Task RefusedAsync(FrontendRequest request, byte[] payload, params FileDescriptor[] descriptors)
    {
        byte[] reply = await AskAsync(request, payload, NeedReply, descriptors);
        Assert.Equal(sizeof(ulong), reply.Length);
        Assert.NotEqual(Bytes(0UL), reply);
    }

    /// <summary>The next message, whatever it is.</summary>
    public async Task<WireMessage> ReceiveAsync()
    {
        List<FileDescriptor> descriptors = [];
        byte[] header = await ReadAsync(MessageHeader.Bytes, descriptors);
        int size = BinaryPrimitives.ReadInt32LittleEndian(header.AsSpan(8));
        byte[] payload = await ReadAsync(size, descriptors);
        return new WireMessage(
            BinaryPrimitives.ReadUInt32LittleEndian(header),
            BinaryPrimitives.ReadUInt32LittleEndian(header.AsSpan(4)),
            payload,
            [.. descriptors]);
    }

    public async Task<byte[]> ReadAsync(int count, List<FileDescriptor>? descriptors = null)
    {
        using CancellationTokenSource limit = Limit();
        byte[] bytes = new byte[count];
        int filled = 0;
        while (filled < count)
        {
            int part = await socket.ReceiveAsync(bytes.AsMemory(filled), descriptors ?? [], limit.Token);
            Assert.True(part > 0, "the connection was closed where bytes were expected");
            filled += part;
        }

        return bytes;
    }

    /// <summary>Expects that the other side closes without another byte.</summary>
    public async Task ExpectClosedAsync()
    {
        using CancellationTokenSource limit = Limit();
        try
        {
            Assert.Equal(0, await socket.ReceiveAsync(new byte[1], [], limit.Token));
        }
        catch (LinuxException error) when (error.Errno == Errno.ConnectionReset)
        {
            // Closed with bytes of ours unread.
        }
    }

    /// <summary>Expects that the connection is alive and in step: the next message is the answer to this one.</summary>
    public async Task ExpectServedAsync()
    {
        ulong features = await AskValueAsync(FrontendRequest.GetFeatures);
        Assert.NotEqual(0UL, features & VirtioFeatures.Version1);
    }

    /// <summary>Negotiates protocol features and features.</summary>
    public async Task NegotiateAsync(ProtocolFeatures protocol = AllProtocolFeatures, ulong features = Features)
    {
        await SendAsync(FrontendRequest.SetProtocolFeatures, NoReply, Bytes((ulong)protocol));
        await SendAsync(FrontendRequest.SetFeatures, NoReply, Bytes(features));
        await ExpectServedAsync();
    }

    /// <summary>Ends both directions of the connection.</summary>
    public void Shutdown() => socket.Shutdown();

    public void Dispose() => socket.Dispose();

    private static CancellationTokenSource Limit()
    {
        CancellationToken test = TestContext.Current.CancellationToken;
        CancellationTokenSource limit = CancellationTokenSource.CreateLinkedTokenSource(test);
        limit.CancelAfter(Eventually.Limit);
        return limit;
    }
}
