// When memory that a front-end takes away goes: not before the driver has done what it was told, and nothing else.
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Device;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

public sealed class RetiredMemoryTests : DeviceTest
{
    /// <summary>The reply was due before the region was taken away, so it says nothing of that.</summary>
    [Fact]
    public async Task Memory_stays_until_something_that_was_asked_later_is_answered()
    {
        using DriverMemory memory = new(1 << 16);
        using WirePeer peer = await NegotiateAsync();
        await AddAsync(peer, memory);
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
        await peer.SendAsync(
            FrontendRequest.RemMemReg, WirePeer.NoReply, WirePeer.Bytes(RawRing.Describe(memory)));
        await Driver.ReceiveAsync(FrontendRequest.RemMemReg);
        Driver.Reply(FrontendRequest.GetFeatures, 1UL);
        await peer.ReplyAsync(FrontendRequest.GetFeatures);
        Assert.Equal(1, Rig.Device.Windows.Count);

        await peer.SendAsync(FrontendRequest.GetQueueNum, WirePeer.NoReply, []);
        await Driver.ReceiveAsync(FrontendRequest.GetQueueNum);
        Driver.Reply(FrontendRequest.GetQueueNum, 1UL);
        await peer.ReplyAsync(FrontendRequest.GetQueueNum);
        Assert.Equal(0, Rig.Device.Windows.Count);
    }

    /// <summary>A region is refused while a table is laid out, and one of the table takes its place: that the region is
    /// not in the table does not concern the one that is.</summary>
    [Fact]
    public async Task What_took_the_place_of_something_refused_stays()
    {
        using DriverMemory refused = new(1 << 16);
        using DriverMemory larger = new(1 << 17, 0x2_0000_0000);
        using DriverMemory same = new(1 << 16, 0x3_0000_0000);
        using WirePeer peer = await NegotiateAsync();
        await PassAsync(
            peer, FrontendRequest.AddMemReg, WirePeer.Bytes(RawRing.Describe(refused)), refused.File.Descriptor);
        SlowRegions slow = SlowDown(mappings: 1);
        await peer.SendAsync(
            FrontendRequest.SetMemTable, WirePeer.NeedReply, RawRing.Table(larger, same),
            larger.File.Descriptor, same.File.Descriptor);
        await slow.BegunAsync();
        Driver.Reply(FrontendRequest.AddMemReg, 1UL);

        // Until it stands in line for its turn.
        await Task.Delay(20, TestContext.Current.CancellationToken);
        slow.GoOn();
        Assert.Equal(WirePeer.Bytes(1UL), await peer.ReplyAsync(FrontendRequest.AddMemReg));
        await Driver.ReceiveAsync(FrontendRequest.SetMemTable);
        await AcknowledgeAsync(peer, FrontendRequest.SetMemTable);
        Assert.Equal(2, Rig.Device.Windows.Count);
    }

    /// <summary>The record before it is the one that requests are in.</summary>
    [Fact]
    public async Task A_record_that_the_driver_refuses_goes_and_the_one_before_it_stays()
    {
        using DriverMemory first = new(1 << 16);
        using DriverMemory second = new(1 << 16);
        using WirePeer peer = await NegotiateAsync();
        InflightPayload record = new(first.SizeBytes, 0, 1, 16, 0);
        await PassAsync(peer, FrontendRequest.SetInflightFd, WirePeer.Bytes(record), first.File.Descriptor);
        await AcknowledgeAsync(peer, FrontendRequest.SetInflightFd);
        for (int attempt = 0; attempt < 3; attempt++)
        {
            await PassAsync(peer, FrontendRequest.SetInflightFd, WirePeer.Bytes(record), second.File.Descriptor);
            await AcknowledgeAsync(peer, FrontendRequest.SetInflightFd, 1);
            Assert.Equal(1, Rig.Device.Windows.Count);
        }

        await PassAsync(peer, FrontendRequest.SetInflightFd, WirePeer.Bytes(record), second.File.Descriptor);
        await AcknowledgeAsync(peer, FrontendRequest.SetInflightFd);
        Assert.Equal(1, Rig.Device.Windows.Count);
    }

    [Fact]
    public async Task Nothing_is_mapped_where_nobody_looks_any_more()
    {
        RegionAddresses regions = new(Rig.Device);
        regions.Dispose();
        using DriverMemory memory = new(1 << 16);
        Outboard.Virtio.SharedRegionPart part = new(1, 0, memory.SizeBytes);
        Assert.False(await regions.MapAsync(part, memory.File, 0, writable: true));
        Assert.False(await regions.UnmapAsync(part));
    }

    private async Task AddAsync(WirePeer peer, DriverMemory memory)
    {
        await PassAsync(
            peer, FrontendRequest.AddMemReg, WirePeer.Bytes(RawRing.Describe(memory)), memory.File.Descriptor);
        await AcknowledgeAsync(peer, FrontendRequest.AddMemReg);
    }
}
