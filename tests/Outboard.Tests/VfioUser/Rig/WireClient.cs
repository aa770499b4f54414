// The other end of a vfio-user socket, byte by byte: it sends whatever a test wants, well-formed or not, and shows
// replies as they are on the wire.
using System.Runtime.InteropServices;
using System.Text;
using Outboard.Linux;
using Outboard.Linux.Sockets;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser;

/// <summary>A message as it came.</summary>
internal sealed record WireMessage(MessageHeader Header, byte[] Payload, FileDescriptor[] Descriptors)
{
    public T Read<T>(int offset = 0)
        where T : unmanaged => MemoryMarshal.Read<T>(Payload.AsSpan(offset));
}

/// <summary>A raw client.</summary>
internal sealed class WireClient(UnixSocket socket) : IDisposable
{
    public const int Inval = Errno.InvalidArgument;

    public const string AllCapabilities =
        """
        {"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576,"max_dma_maps":65535,"pgsizes":4096,
        "write_multiple":true,"migration":{"pgsize":4096}}}
        """;

    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(20);
    private ushort _lastId;

    public static byte[] Bytes<T>(T value)
        where T : unmanaged => MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)).ToArray();

    public static byte[] Version(string? json, ushort major = 0, ushort minor = 0) =>
    [
        .. Bytes(new VersionPayload(major, minor)), .. json is null ? [] : Encoding.UTF8.GetBytes(json + "\0"),
    ];

    public async Task<ushort> SendAsync(
        VfioUserCommand command, byte[] payload, MessageFlags flags = 0, params FileDescriptor[] descriptors)
    {
        ushort id = ++_lastId;
        MessageHeader header = new(id, command, (uint)(MessageHeader.Bytes + payload.Length), flags, 0);
        await SendRawAsync([.. Bytes(header), .. payload], descriptors);
        return id;
    }

    public async Task SendRawAsync(byte[] bytes, params FileDescriptor[] descriptors)
    {
        using CancellationTokenSource limit = Limit();
        await socket.SendAsync(bytes, descriptors, limit.Token);
    }

    /// <summary>The next message, whatever it is.</summary>
    public async Task<WireMessage> ReceiveAsync()
    {
        List<FileDescriptor> descriptors = [];
        MessageHeader header = MemoryMarshal.Read<MessageHeader>(await ReadAsync(MessageHeader.Bytes, descriptors));
        byte[] payload = await ReadAsync((int)header.SizeBytes - MessageHeader.Bytes, descriptors);
        return new WireMessage(header, payload, [.. descriptors]);
    }

    /// <summary>The socket once more, for its bytes only.</summary>
    public FileDescriptor DuplicateDescriptor() => socket.DuplicateDescriptor();

    /// <summary>The header of the next message; to be followed by <see cref="ReceiveRestAsync"/>.</summary>
    public async Task<MessageHeader> ReceiveHeaderAsync() =>
        MemoryMarshal.Read<MessageHeader>(await ReadAsync(MessageHeader.Bytes, []));

    /// <summary>What follows a header.</summary>
    public async Task<WireMessage> ReceiveRestAsync(MessageHeader header)
    {
        List<FileDescriptor> descriptors = [];
        byte[] payload = await ReadAsync((int)header.SizeBytes - MessageHeader.Bytes, descriptors);
        return new WireMessage(header, payload, [.. descriptors]);
    }

    /// <summary>Sends a command and expects its success.</summary>
    public async Task<WireMessage> CallAsync(
        VfioUserCommand command, byte[] payload, params FileDescriptor[] descriptors)
    {
        ushort id = await SendAsync(command, payload, 0, descriptors);
        return await ReplyAsync(command, id);
    }

    /// <summary>Expects the success of a command.</summary>
    public async Task<WireMessage> ReplyAsync(VfioUserCommand command, ushort id)
    {
        WireMessage reply = await ReceiveAsync();
        Assert.Equal(new MessageHeader(id, command, reply.Header.SizeBytes, MessageFlags.Reply, 0), reply.Header);
        return reply;
    }

    /// <summary>Sends a command and expects its failure, by a header only.</summary>
    public async Task RefusedAsync(
        int errno, VfioUserCommand command, byte[] payload, params FileDescriptor[] descriptors)
    {
        ushort id = await SendAsync(command, payload, 0, descriptors);
        await FailureAsync(errno, command, id);
    }

    /// <summary>Expects the failure of a command.</summary>
    public async Task FailureAsync(int errno, VfioUserCommand command, ushort id)
    {
        const MessageFlags flags = MessageFlags.Reply | MessageFlags.Error;
        WireMessage reply = await ReceiveAsync();
        Assert.Equal(new MessageHeader(id, command, MessageHeader.Bytes, flags, (uint)errno), reply.Header);
        Assert.Empty(reply.Descriptors);
    }

    public Task<WireMessage> NegotiateAsync(string? json = AllCapabilities) =>
        CallAsync(VfioUserCommand.Version, Version(json));

    /// <summary>Expects that the connection is alive and in step.</summary>
    public async Task ExpectServedAsync()
    {
        WireMessage reply = await CallAsync(VfioUserCommand.DeviceGetInfo, Bytes(new DeviceInfoPayload(16, 0, 0, 0)));
        Assert.Equal(new DeviceInfoPayload(16, 3, 9, 5), reply.Read<DeviceInfoPayload>());
    }

    /// <summary>
    /// Expects that the other side closes without another byte, and in order: a reset, which bytes of ours unread would
    /// make, ends QEMU.
    /// </summary>
    public async Task ExpectClosedAsync()
    {
        using CancellationTokenSource limit = Limit();
        Assert.Equal(0, await socket.ReceiveAsync(new byte[1], [], limit.Token));
    }

    public async Task<byte[]> ReadRegionAsync(uint region, ulong offset, uint count)
    {
        RegionAccessPayload access = new(offset, region, count);
        WireMessage reply = await CallAsync(VfioUserCommand.RegionRead, Bytes(access));
        Assert.Equal(access, reply.Read<RegionAccessPayload>());
        Assert.Equal((int)count, reply.Payload.Length - RegionAccessPayload.Bytes);
        return reply.Payload[RegionAccessPayload.Bytes..];
    }

    public async Task<T> ReadRegionAsync<T>(uint region, ulong offset)
        where T : unmanaged
    {
        byte[] bytes = await ReadRegionAsync(region, offset, (uint)Marshalled<T>());
        return MemoryMarshal.Read<T>(bytes);
    }

    public static byte[] Write(uint region, ulong offset, byte[] data) =>
        [.. Bytes(new RegionAccessPayload(offset, region, (uint)data.Length)), .. data];

    public async Task WriteRegionAsync(uint region, ulong offset, byte[] data)
    {
        WireMessage reply = await CallAsync(VfioUserCommand.RegionWrite, Write(region, offset, data));
        Assert.Equal(new RegionAccessPayload(offset, region, (uint)data.Length), reply.Read<RegionAccessPayload>());
        Assert.Equal(RegionAccessPayload.Bytes, reply.Payload.Length);
    }

    public Task WriteRegionAsync<T>(uint region, ulong offset, T value)
        where T : unmanaged => WriteRegionAsync(region, offset, Bytes(value));

    public async Task MapAsync(ulong address, ulong size, FileDescriptor? memory, uint flags = 3, ulong offset = 0)
    {
        DmaMapPayload map = new(DmaMapPayload.Bytes, (DmaMapFlags)flags, offset, address, size);
        WireMessage reply = await CallAsync(VfioUserCommand.DmaMap, Bytes(map), memory is null ? [] : [memory]);
        Assert.Empty(reply.Payload);
    }

    public static byte[] SetIrqs(uint flags, uint index, uint start, uint count, params byte[] data) =>
        [.. Bytes(new SetIrqsPayload((uint)(20 + data.Length), (SetIrqsFlags)flags, index, start, count)), .. data];

    public void Dispose() => socket.Dispose();

    private static int Marshalled<T>()
        where T : unmanaged => Bytes(default(T)).Length;

    private async Task<byte[]> ReadAsync(int count, List<FileDescriptor> descriptors)
    {
        using CancellationTokenSource limit = Limit();
        byte[] bytes = new byte[count];
        int filled = 0;
        while (filled < count)
        {
            int part = await socket.ReceiveAsync(bytes.AsMemory(filled), descriptors, limit.Token);
            Assert.True(part > 0, "the connection was closed where bytes were expected");
            filled += part;
        }

        return bytes;
    }

    private static CancellationTokenSource Limit()
    {
        CancellationTokenSource limit =
            CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        limit.CancelAfter(s_limit);
        return limit;
    }
}
