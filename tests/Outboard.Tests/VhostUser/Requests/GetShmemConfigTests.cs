// GET_SHMEM_CONFIG: the sizes of the device's shared memory regions, by number.
using System.Buffers.Binary;
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GetShmemConfigTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.GetShmemConfig;

    protected override ProtocolFeatures Gate => ProtocolFeatures.Shmem;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task Regions_stand_at_their_numbers()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        byte[] reply = await peer.AskAsync(Request, [], WirePeer.NoReply);
        Assert.Equal(2056, reply.Length);
        Assert.Equal((uint)FakeDevice.Regions.Length, BinaryPrimitives.ReadUInt32LittleEndian(reply));
        for (int id = 0; id < 256; id++)
        {
            ulong expected = FakeDevice.Regions.FirstOrDefault(region => region.Id == id).SizeBytes;
            Assert.Equal(expected, BinaryPrimitives.ReadUInt64LittleEndian(reply.AsSpan(8 + (id * 8))));
        }
    }

    [Fact]
    public async Task Mapping_and_unmapping_are_asked_for_on_the_back_ends_channel()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        (FileDescriptor passed, WirePeer asking) = Rig.SocketPair();
        await peer.DoBytesAsync(FrontendRequest.SetBackendReqFd, [], passed);
        using FileSharedMemory memory = new(MemFd.Create("outboard-part", 0x4000));
        SharedRegionPart part = new(1, 0x2000, 0x1000);
        Task mapping = Rig.Device.MapAsync(part, memory, 0x3000, writable: false);
        WireMessage message = await asking.ReceiveAsync();
        Assert.Equal((uint)BackendRequest.ShmemMap, message.Request);
        Assert.Equal(WirePeer.NeedReply, message.Flags);
        Assert.Equal(WirePeer.Bytes(new ShmemMapPayload(1, 0x3000, 0x2000, 0x1000, 0)), message.Payload);
        Assert.Single(message.Descriptors).Dispose();

        // The control loop goes on while the answer is awaited: a front-end may send requests of its own first.
        await peer.ExpectServedAsync();
        await asking.SendAsync(WirePeer.Frame(message.Request, WirePeer.ReplyFlags, WirePeer.Bytes(0UL)));
        await mapping.WaitAsync(Eventually.Limit, TestContext.Current.CancellationToken);
        Task unmapping = Rig.Device.UnmapAsync(part);
        message = await asking.ReceiveAsync();
        Assert.Equal((uint)BackendRequest.ShmemUnmap, message.Request);
        Assert.Empty(message.Descriptors);
        await asking.SendAsync(WirePeer.Frame(message.Request, WirePeer.ReplyFlags, WirePeer.Bytes(1UL)));
        await Assert.ThrowsAsync<IOException>(() => unmapping);
    }

    [Fact]
    public async Task Device_cannot_map_what_cannot_be()
    {
        using FileSharedMemory memory = new(MemFd.Create("outboard-part", 0x4000));
        SharedRegionPart[] impossible =
        [
            new(0, 0, 0x1000), new(1, 0, 0), new(1, 1, 0x1000), new(1, 0, 0x1001), new(1, 0x10000, 0x1000),
            new(1, 0xF000, 0x2000), new(1, ulong.MaxValue - 0xFFF, 0x2000), new(200, 0x4000, 0x1000),
        ];
        foreach (SharedRegionPart part in impossible)
        {
            await Assert.ThrowsAsync<ArgumentException>(() => Rig.Device.MapAsync(part, memory));
        }

        await Assert.ThrowsAsync<ArgumentException>(() => Rig.Device.UnmapAsync(new(1, 0, 0x1000)));

        // Nobody is connected.
        await Assert.ThrowsAsync<IOException>(() => Rig.Device.MapAsync(new(1, 0, 0x1000), memory));
    }

    [Theory]
    [InlineData(ProtocolFeatures.BackendSendFd)]
    [InlineData(ProtocolFeatures.BackendReq)]
    [InlineData(ProtocolFeatures.Shmem)]
    public async Task Without_a_way_to_the_front_end_mapping_fails(ProtocolFeatures missing)
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync(WirePeer.AllProtocolFeatures & ~missing);
        using FileSharedMemory memory = new(MemFd.Create("outboard-part", 0x4000));
        await Assert.ThrowsAsync<IOException>(() => Rig.Device.MapAsync(new(1, 0, 0x1000), memory));
    }
}
