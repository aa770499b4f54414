// VsockTests.cs - our front-end and vhost-device-vsock, of the rust-vmm family: what it offers, its configuration, and
// a connection through its queues to a socket of the host.
using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text.Json;
using Outboard.InteropTests.Lab;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.InteropTests.Frontend;

public sealed class VsockTests
{
    private const int PacketBytes = 44;
    private const ulong GuestCid = 77;
    private const ulong HostCid = 2;
    private const ushort Request = 1;
    private const ushort Response = 2;
    private const uint HostPort = 4321;
    private const uint GuestPort = 1024;

    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);

    [Fact]
    public async Task It_is_inspected()
    {
        using TempFolder folder = new();
        await using PeerProcess daemon = await StartAsync(folder);
        JsonElement offer = await Inspection.RunAsync(folder.Combine("vsock.sock"), "vsock");
        Assert.Contains("VERSION_1", Inspection.Words(offer, "features", "ring"), StringComparison.Ordinal);
        Assert.Contains("CONFIG", Inspection.Words(offer, "protocol_features", "names"), StringComparison.Ordinal);
        Assert.Equal(3, offer.GetProperty("queues").GetInt32());
        Assert.Equal(GuestCid, offer.GetProperty("config").GetProperty("guest_cid").GetUInt64());
        Assert.Empty(offer.GetProperty("problems").EnumerateArray());
    }

    [Fact]
    public async Task A_connection_is_made_through_its_queues()
    {
        using TempFolder folder = new();
        await using PeerProcess daemon = await StartAsync(folder);
        using Socket host = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        host.Bind(new UnixDomainSocketEndPoint(folder.Combine($"vm.vsock_{HostPort}")));
        host.Listen();
        await using VhostUserFrontend frontend = await VhostUserFrontend.ConnectAsync(folder.Combine("vsock.sock"));
        using DriverMemory memory = new(1 << 18);
        await frontend.ShareMemoryAsync(memory);
        using FrontendQueue receive = await frontend.StartQueueAsync(0, 16, memory);
        using FrontendQueue send = await frontend.StartQueueAsync(1, 16, memory);
        DriverBuffer answer = memory.Allocate(PacketBytes);
        DriverBuffer data = memory.Allocate(4096);
        Assert.True(receive.Ring.TryAdd([], [answer, data], 0));
        receive.Submit();

        DriverBuffer request = memory.Allocate(PacketBytes);
        request.Span.Clear();
        BinaryPrimitives.WriteUInt64LittleEndian(request.Span, GuestCid);
        BinaryPrimitives.WriteUInt64LittleEndian(request.Span[8..], HostCid);
        BinaryPrimitives.WriteUInt32LittleEndian(request.Span[16..], GuestPort);
        BinaryPrimitives.WriteUInt32LittleEndian(request.Span[20..], HostPort);
        BinaryPrimitives.WriteUInt16LittleEndian(request.Span[28..], 1);
        BinaryPrimitives.WriteUInt16LittleEndian(request.Span[30..], Request);
        BinaryPrimitives.WriteUInt32LittleEndian(request.Span[36..], 4096);
        Assert.True(send.Ring.TryAdd([request], [], 0));
        send.Submit();
        while (!receive.Ring.TryCollect(out _, out _))
        {
            Assert.True(receive.WaitForUsed((int)s_startLimit.TotalMilliseconds), "no answer");
        }

        Assert.Equal(HostCid, BinaryPrimitives.ReadUInt64LittleEndian(answer.Span));
        Assert.Equal(GuestCid, BinaryPrimitives.ReadUInt64LittleEndian(answer.Span[8..]));
        Assert.Equal(GuestPort, BinaryPrimitives.ReadUInt32LittleEndian(answer.Span[20..]));
        Assert.Equal(Response, BinaryPrimitives.ReadUInt16LittleEndian(answer.Span[30..]));
        using Socket accepted = await host.AcceptAsync();
    }

    private static async Task<PeerProcess> StartAsync(TempFolder folder)
    {
        await Peers.RequireAsync("vsock");
        string socket = folder.Combine("vsock.sock");
        PeerProcess daemon = await PeerProcess.StartPeerAsync(
            "vhost-device-vsock", "--guest-cid", $"{GuestCid}", "--socket", socket,
            "--uds-path", folder.Combine("vm.vsock"));
        await daemon.WaitForSocketAsync(socket, s_startLimit);
        return daemon;
    }
}
