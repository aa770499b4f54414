// Packets through the queues of a network device, with a back-end that gives back what it is sent.
using Outboard.Devices.Net.Backends;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Net;

public sealed class PacketTests
{
    private const ulong Offloads = NetOffload.All;

    [Theory]
    [InlineData(14)]
    [InlineData(60)]
    [InlineData(1514)]
    public async Task A_packet_arrives_behind_a_header(int length)
    {
        await using NetRig rig = await NetRig.StartAsync(new LoopbackBackend());
        DriverBuffer target = rig.Offer(2000)[0];
        byte[] frame = NetRig.Frame(length);
        rig.SendAndCollect(rig.Packet(frame));
        Assert.Equal((0u, (uint)(NetHeader.Bytes + length)), rig.Receive.Collect());
        Assert.Equal(frame, target.Span.Slice(NetHeader.Bytes, length).ToArray());
        Assert.Equal(1, NetRig.HeaderOf(target).BufferCount);
        Assert.Equal((1, length), (rig.Sent.Packets, rig.Sent.Bytes));
        Assert.Equal((1, length), (rig.Received.Packets, rig.Received.Bytes));
    }

    [Fact]
    public async Task A_packet_in_pieces_arrives_whole()
    {
        await using NetRig rig = await NetRig.StartAsync(new LoopbackBackend());
        DriverBuffer target = rig.Offer(2000)[0];
        byte[] frame = NetRig.Frame(900);
        DriverBuffer whole = rig.Packet(frame);
        rig.SendAndCollect(whole.Slice(0, 5), whole.Slice(5, 8), whole.Slice(13, 400), whole.Slice(413, 499));
        Assert.Equal(912u, rig.Receive.Collect().Written);
        Assert.Equal(frame, target.Span[NetHeader.Bytes..912].ToArray());
    }

    [Fact]
    public async Task A_long_packet_is_spread_over_merged_buffers()
    {
        await using NetRig rig = await NetRig.StartAsync(new LoopbackBackend(), NetFeatures.MergeableBuffers);
        List<DriverBuffer> targets = rig.Offer(500, 500, 12, 500, 500);
        byte[] frame = NetRig.Frame(1400);
        rig.SendAndCollect(rig.Packet(frame));
        uint[] written = [.. Enumerable.Range(0, 4).Select(_ => rig.Receive.Collect().Written)];
        Assert.Equal([500u, 500u, 12u, 400u], written);
        Assert.Equal(4, NetRig.HeaderOf(targets[0]).BufferCount);
        byte[] arrived =
        [
            .. targets[0].Span[NetHeader.Bytes..], .. targets[1].Span, .. targets[2].Span, .. targets[3].Span[..400],
        ];
        Assert.Equal(frame, arrived);
        rig.Receive.ExpectNothing();
    }

    [Fact]
    public async Task A_packet_waits_until_there_are_enough_buffers()
    {
        await using NetRig rig = await NetRig.StartAsync(new LoopbackBackend(), NetFeatures.MergeableBuffers);
        rig.Offer(100);
        rig.SendAndCollect(rig.Packet(NetRig.Frame(300)));
        rig.Receive.ExpectNothing();
        rig.Offer(100);
        rig.Receive.ExpectNothing();
        rig.Offer(200);
        Assert.Equal(100u, rig.Receive.Collect().Written);
        Assert.Equal(100u, rig.Receive.Collect().Written);
        Assert.Equal(112u, rig.Receive.Collect().Written);
    }

    [Fact]
    public async Task Buffers_that_are_held_at_a_stop_go_back_into_the_ring()
    {
        await using NetRig rig = await NetRig.StartAsync(new LoopbackBackend(), NetFeatures.MergeableBuffers);
        rig.Offer(100, 2000, 100, 100);
        rig.SendAndCollect(rig.Packet(NetRig.Frame(50)));
        Assert.Equal(62u, rig.Receive.Collect().Written);
        rig.SendAndCollect(rig.Packet(NetRig.Frame(2500)));
        rig.Receive.ExpectNothing();
        Assert.Equal(1u, await rig.Receive.StopAsync());
        Assert.False(rig.Receive.Ring.TryCollect(out _, out _));
    }

    [Fact]
    public async Task A_packet_longer_than_a_buffer_is_dropped_without_merging()
    {
        await using NetRig rig = await NetRig.StartAsync(new LoopbackBackend());
        rig.Offer(200);
        rig.SendAndCollect(rig.Packet(NetRig.Frame(300)));
        rig.Receive.ExpectNothing();
        rig.SendAndCollect(rig.Packet(NetRig.Frame(100)));
        Assert.Equal(112u, rig.Receive.Collect().Written);
        Assert.Equal(1, rig.Received.Oversize);
    }

    [Fact]
    public async Task The_header_says_what_was_negotiated()
    {
        NetHeader header = new()
        {
            Flags = NetHeaderFlags.NeedsChecksum | NetHeaderFlags.DataValid,
            Segmentation = NetSegmentation.TcpV4,
            SegmentSize = 1448,
            ChecksumStart = 34,
            ChecksumOffset = 16,
            BufferCount = 99,
        };
        const ulong features = Offloads | NetFeatures.MergeableBuffers;
        await using NetRig rig = await NetRig.StartAsync(new LoopbackBackend(), features);
        DriverBuffer target = rig.Offer(40000, 40000)[0];
        rig.SendAndCollect(rig.Packet(NetRig.Frame(65000), header));
        Assert.Equal(40000u, rig.Receive.Collect().Written);
        NetHeader arrived = NetRig.HeaderOf(target);
        Assert.Equal(NetHeaderFlags.NeedsChecksum, arrived.Flags);
        Assert.Equal(header.Segmentation, arrived.Segmentation);
        Assert.Equal(header.SegmentSize, arrived.SegmentSize);
        Assert.Equal(2, arrived.BufferCount);
    }

    [Theory]
    [InlineData(0, NetHeaderFlags.NeedsChecksum, NetSegmentation.None, 0)]
    [InlineData(NetFeatures.Checksum, NetHeaderFlags.NeedsChecksum, NetSegmentation.TcpV4, 1448)]
    [InlineData(Offloads, NetHeaderFlags.None, NetSegmentation.TcpV4, 1448)]
    [InlineData(Offloads, NetHeaderFlags.NeedsChecksum, NetSegmentation.TcpV4, 0)]
    [InlineData(Offloads, NetHeaderFlags.NeedsChecksum, (NetSegmentation)7, 100)]
    public async Task A_header_that_asks_for_more_is_dropped(
        ulong features, NetHeaderFlags flags, NetSegmentation segmentation, int segmentSize)
    {
        NetHeader header = new()
        {
            Flags = flags, Segmentation = segmentation, SegmentSize = (ushort)segmentSize, ChecksumStart = 34,
        };
        await using NetRig rig = await NetRig.StartAsync(new LoopbackBackend(), features);
        rig.Offer(2000);
        rig.SendAndCollect(rig.Packet(NetRig.Frame(1000), header));
        rig.Receive.ExpectNothing();
        Assert.Equal((0, 1), (rig.Sent.Packets, rig.Sent.Malformed));
    }

    [Fact]
    public async Task Chains_that_hold_no_packet_are_counted_and_returned()
    {
        await using NetRig rig = await NetRig.StartAsync(new LoopbackBackend());
        rig.SendAndCollect(rig.Memory.Allocate(5));
        rig.SendAndCollect(rig.Memory.Allocate(NetHeader.Bytes));
        rig.SendAndCollect(rig.Memory.Allocate(NetHeader.Bytes + 13));
        rig.SendAndCollect(rig.Memory.Allocate(NetHeader.Bytes + NetOffload.MaxFrameBytes + 1));
        Assert.Equal((0, 3, 1), (rig.Sent.Packets, rig.Sent.Malformed, rig.Sent.Oversize));
    }

    [Fact]
    public async Task A_buffer_without_room_for_a_header_is_returned_empty()
    {
        await using NetRig rig = await NetRig.StartAsync(new LoopbackBackend());
        rig.Offer(11, 200);
        rig.SendAndCollect(rig.Packet(NetRig.Frame(100)));
        Assert.Equal((0u, 0u), rig.Receive.Collect());
        Assert.Equal((1u, 112u), rig.Receive.Collect());
        Assert.Equal(1, rig.Received.Malformed);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Nothing_is_allocated_for_a_packet(bool merges)
    {
        ulong features = merges ? NetFeatures.MergeableBuffers : 0;
        await using NetRig rig = await NetRig.StartAsync(new LoopbackBackend(), features);
        DriverBuffer packet = rig.Packet(NetRig.Frame(1000));
        DriverBuffer first = rig.Memory.Allocate(600);
        DriverBuffer second = rig.Memory.Allocate(600);
        DriverBuffer whole = rig.Memory.Allocate(1100);
        long allocated = await rig.AllocatedAsync(() =>
        {
            rig.Receive.Ring.TryAdd([], [merges ? first : whole], 0);
            if (merges)
            {
                rig.Receive.Ring.TryAdd([], [second], 0);
            }

            rig.Receive.Submit();
            rig.Send.Ring.TryAdd([packet], [], 0);
            rig.Send.Submit();
            _ = rig.Send.Collect();
            _ = rig.Receive.Collect();
            if (merges)
            {
                _ = rig.Receive.Collect();
            }
        });
        Assert.Equal(0, allocated);
    }
}
