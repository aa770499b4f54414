// The stream and the datagram back-end, with the peer's side of each spoken here, as QEMU speaks it.
using System.Buffers.Binary;
using System.Net.Sockets;
using Outboard.Devices.Net.Backends;
using Outboard.Linux;
using Outboard.Tests.Cli;
using Outboard.Tests.VhostUser;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Net;

public sealed class PeerTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task A_stream_carries_packets_behind_their_lengths_however_it_is_cut()
    {
        (StreamBackend backend, Socket peer) = await ConnectStreamAsync();
        using (peer)
        {
            await using NetRig rig = await NetRig.StartAsync(backend, NetFeatures.MergeableBuffers);
            byte[] frame = NetRig.Frame(700);
            rig.SendAndCollect(rig.Packet(frame));
            Assert.Equal(Framed(frame), await ReadAsync(peer, 704));

            List<DriverBuffer> targets = rig.Offer(1000, 1000, 1000);
            byte[] two = [.. Framed(frame), .. Framed(NetRig.Frame(60, seed: 9)), .. Framed(NetRig.Frame(14))];
            foreach (byte[] piece in two.Chunk(101))
            {
                await peer.SendAsync(piece, Token);
            }

            Assert.Equal(712u, rig.Receive.Collect().Written);
            Assert.Equal(72u, rig.Receive.Collect().Written);
            Assert.Equal(26u, rig.Receive.Collect().Written);
            Assert.Equal(frame, targets[0].Span[NetHeader.Bytes..712].ToArray());
            Assert.Equal(NetRig.Frame(60, seed: 9), targets[1].Span[NetHeader.Bytes..72].ToArray());
        }
    }

    [Fact]
    public async Task A_full_stream_holds_packets_back_and_loses_none()
    {
        (StreamBackend backend, Socket peer) = await ConnectStreamAsync();
        using (peer)
        {
            await using NetRig rig = await NetRig.StartAsync(backend);
            byte[] frame = NetRig.Frame(60000);
            DriverBuffer packet = rig.Packet(frame);
            const int count = 30;
            for (uint i = 0; i < count; i++)
            {
                Assert.True(rig.Send.Ring.TryAdd([packet], [], i));
            }

            rig.Send.Submit();
            await Eventually.TrueAsync(() => rig.Sent.Packets > 0, "some packets fit");
            Assert.InRange(rig.Sent.Packets, 1, count - 1);
            byte[] framed = Framed(frame);
            for (uint i = 0; i < count; i++)
            {
                Assert.Equal(framed, await ReadAsync(peer, framed.Length));
                Assert.Equal(i, rig.Send.Collect().Token);
            }

            Assert.Equal((count, 0), (rig.Sent.Packets, rig.Sent.Refused));
        }
    }

    [Fact]
    public async Task A_packet_that_waits_for_room_at_a_stop_goes_back_into_the_ring()
    {
        (StreamBackend backend, Socket peer) = await ConnectStreamAsync();
        using (peer)
        {
            await using NetRig rig = await NetRig.StartAsync(backend);
            DriverBuffer packet = rig.Packet(NetRig.Frame(60000));
            for (uint i = 0; i < 30; i++)
            {
                Assert.True(rig.Send.Ring.TryAdd([packet], [], i));
            }

            rig.Send.Submit();
            await Eventually.TrueAsync(() => rig.Sent.Packets > 0, "some packets fit");
            uint next = await rig.Send.StopAsync();
            Assert.InRange(next, 1u, 29u);
            Assert.Equal(next, (uint)rig.Sent.Packets);
        }
    }

    [Fact]
    public async Task A_stream_that_lost_its_place_or_its_peer_is_over_and_packets_are_dropped()
    {
        (StreamBackend backend, Socket peer) = await ConnectStreamAsync();
        await using NetRig rig = await NetRig.StartAsync(backend);
        rig.Offer(2000);
        await peer.SendAsync((byte[])[0x7F, 0, 0, 0, .. NetRig.Frame(16)], Token);
        rig.Receive.ExpectNothing();
        peer.Dispose();
        rig.SendAndCollect(rig.Packet(NetRig.Frame(100)));
        Assert.Equal(1, rig.Sent.Refused);
    }

    [Fact]
    public async Task A_stream_is_connected_again_when_its_peer_comes_back()
    {
        (StreamBackend backend, Socket peer) = await ConnectStreamAsync();
        await using NetRig rig = await NetRig.StartAsync(backend);
        Assert.True(IsLinkUp(rig));
        for (int life = 0; life < 3; life++)
        {
            byte[] frame = NetRig.Frame(100 + life);
            await ExchangeAsync(rig, peer, frame);

            // Half a packet is on its way when the peer goes: nobody ever gets it.
            await peer.SendAsync(Framed(frame).AsMemory(0, 50), Token);
            peer.Dispose();
            await Eventually.TrueAsync(() => !backend.IsConnected && !IsLinkUp(rig), "the link is down");
            int refused = (int)rig.Sent.Refused;
            rig.SendAndCollect(rig.Packet(frame));
            Assert.Equal(refused + 1, rig.Sent.Refused);
            File.Delete(_folder["stream"]);
            peer = await AcceptAsync();
            await Eventually.TrueAsync(() => backend.IsConnected && IsLinkUp(rig), "the link is up");
        }

        await ExchangeAsync(rig, peer, NetRig.Frame(333));
        peer.Dispose();
    }

    [Fact]
    public async Task A_stream_that_listens_serves_one_peer_after_another()
    {
        using StreamBackend backend = StreamBackend.Listen(_folder["stream"]);
        await using NetRig rig = await NetRig.StartAsync(backend);
        Assert.False(IsLinkUp(rig));
        rig.SendAndCollect(rig.Packet(NetRig.Frame(60)));
        Assert.Equal(1, rig.Sent.Refused);
        using Socket first = Dial();
        await Eventually.TrueAsync(() => IsLinkUp(rig), "the link is up");
        await ExchangeAsync(rig, first, NetRig.Frame(500));

        // The second one waits until the first has gone.
        using Socket second = Dial();
        await second.SendAsync(Framed(NetRig.Frame(70, seed: 3)), Token);
        await ExchangeAsync(rig, first, NetRig.Frame(501));
        DriverBuffer target = rig.Offer(200)[0];
        rig.Receive.ExpectNothing();
        first.Dispose();
        Assert.Equal(82u, rig.Receive.Collect().Written);
        Assert.Equal(NetRig.Frame(70, seed: 3), target.Span[NetHeader.Bytes..82].ToArray());
        await ExchangeAsync(rig, second, NetRig.Frame(502));
    }

    [Fact]
    public async Task A_peer_that_lost_its_place_is_cut_off_and_may_come_again()
    {
        using StreamBackend backend = StreamBackend.Listen(_folder["stream"]);
        await using NetRig rig = await NetRig.StartAsync(backend);
        for (int i = 0; i < 3; i++)
        {
            using Socket peer = Dial();
            rig.Offer(200);
            await peer.SendAsync((byte[])[.. Framed(NetRig.Frame(20)), 0x7F, 0, 0, 0, .. NetRig.Frame(16)], Token);
            Assert.Equal(32u, rig.Receive.Collect().Written);
            rig.Offer(200);
            Assert.Equal(0, await peer.ReceiveAsync(new byte[1], Token));
        }
    }

    [Fact]
    public async Task A_full_send_queue_goes_on_with_the_next_peer()
    {
        using StreamBackend backend = StreamBackend.Listen(_folder["stream"]);
        await using NetRig rig = await NetRig.StartAsync(backend);
        Socket deaf = Dial();
        await Eventually.TrueAsync(() => backend.IsConnected, "the peer is there");
        DriverBuffer packet = rig.Packet(NetRig.Frame(60000));
        for (uint i = 0; i < 30; i++)
        {
            Assert.True(rig.Send.Ring.TryAdd([packet], [], i));
        }

        rig.Send.Submit();
        Assert.Equal(0u, rig.Send.Collect().Token);
        deaf.Dispose();
        for (uint i = 1; i < 30; i++)
        {
            Assert.Equal(i, rig.Send.Collect().Token);
        }

        await Eventually.TrueAsync(() => !backend.IsConnected, "the peer is gone");
        using Socket next = Dial();
        await Eventually.TrueAsync(() => backend.IsConnected, "the peer is there");
        await ExchangeAsync(rig, next, NetRig.Frame(90));
    }

    [Fact]
    public async Task A_peer_may_come_and_go_while_no_queue_runs()
    {
        using (StreamBackend backend = StreamBackend.Listen(_folder["stream"]))
        {
            for (int i = 0; i < 5; i++)
            {
                using Socket peer = Dial();
                await Eventually.TrueAsync(() => backend.IsConnected, "the peer is there");
                peer.Dispose();
                await Eventually.TrueAsync(() => !backend.IsConnected, "the peer is gone");
            }

            using Socket last = Dial();
            await Eventually.TrueAsync(() => backend.IsConnected, "the peer is there");
            await using NetRig rig = await NetRig.StartAsync(backend);
            Assert.True(IsLinkUp(rig));
            await ExchangeAsync(rig, last, NetRig.Frame(200));
        }

        Assert.False(File.Exists(_folder["stream"]));
    }

    [Fact]
    public async Task Datagrams_find_a_peer_that_comes_later_and_one_that_comes_back()
    {
        using DatagramBackend backend = DatagramBackend.Open(_folder["ours"], _folder["theirs"]);
        await using NetRig rig = await NetRig.StartAsync(backend);
        DriverBuffer packet = rig.Packet(NetRig.Frame(80));
        rig.SendAndCollect(packet);
        Assert.Equal(1, rig.Sent.Refused);
        for (int life = 1; life <= 2; life++)
        {
            using Socket peer = new(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified);
            peer.Bind(new UnixDomainSocketEndPoint(_folder["theirs"]));
            rig.SendAndCollect(packet);
            Assert.Equal(NetRig.Frame(80), await ReadAsync(peer, 80));
            rig.Offer(200);
            await peer.SendToAsync(NetRig.Frame(64), new UnixDomainSocketEndPoint(_folder["ours"]), Token);
            Assert.Equal(76u, rig.Receive.Collect().Written);
            File.Delete(_folder["theirs"]);
        }
    }

    [Fact]
    public async Task Nobody_behind_a_path_is_told_with_the_path()
    {
        LinuxException error = await Assert.ThrowsAsync<LinuxException>(
            () => StreamBackend.ConnectAsync(_folder["nobody"], Token));
        Assert.Contains(_folder["nobody"], error.Message, StringComparison.Ordinal);
    }

    private static byte[] Framed(byte[] frame)
    {
        byte[] framed = new byte[4 + frame.Length];
        BinaryPrimitives.WriteInt32BigEndian(framed, frame.Length);
        frame.CopyTo(framed, 4);
        return framed;
    }

    private static async Task<byte[]> ReadAsync(Socket socket, int count)
    {
        byte[] bytes = new byte[count];
        for (int read = 0; read < count;)
        {
            ValueTask<int> receiving = socket.ReceiveAsync(bytes.AsMemory(read), Token);
            int more = await receiving.AsTask().WaitAsync(Eventually.Limit, Token);
            Assert.NotEqual(0, more);
            read += more;
        }

        return bytes;
    }

    private static bool IsLinkUp(NetRig rig) => (rig.Device.Config.Get(NetConfig.Status) & NetConfig.LinkUp) != 0;

    /// <summary>One packet each way, unharmed. The halves go over to a new peer each on its own queue's thread: until
    /// the sending one has, packets are refused.</summary>
    private static async Task ExchangeAsync(NetRig rig, Socket peer, byte[] frame)
    {
        DriverBuffer packet = rig.Packet(frame);
        await Eventually.TrueAsync(
            () =>
            {
                int refused = (int)rig.Sent.Refused;
                rig.SendAndCollect(packet);
                return rig.Sent.Refused == refused;
            },
            "the packet is sent");
        Assert.Equal(Framed(frame), await ReadAsync(peer, 4 + frame.Length));
        DriverBuffer target = rig.Offer(2000)[0];
        await peer.SendAsync(Framed(frame), Token);
        Assert.Equal((uint)(NetHeader.Bytes + frame.Length), rig.Receive.Collect().Written);
        Assert.Equal(frame, target.Span.Slice(NetHeader.Bytes, frame.Length).ToArray());
    }

    private Socket Dial()
    {
        Socket peer = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        peer.Connect(new UnixDomainSocketEndPoint(_folder["stream"]));
        return peer;
    }

    private async Task<Socket> AcceptAsync()
    {
        using Socket listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(_folder["stream"]));
        listener.Listen();
        return await listener.AcceptAsync(Token).AsTask().WaitAsync(Eventually.Limit, Token);
    }

    private async Task<(StreamBackend Backend, Socket Peer)> ConnectStreamAsync()
    {
        using Socket listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(_folder["stream"]));
        listener.Listen();
        Task<Socket> accepted = listener.AcceptAsync(Token).AsTask();
        StreamBackend backend = await StreamBackend.ConnectAsync(_folder["stream"], Token);
        return (backend, await accepted);
    }
}
