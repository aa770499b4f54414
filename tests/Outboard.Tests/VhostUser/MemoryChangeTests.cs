// Memory that comes and goes while rings run and requests are in flight.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class MemoryChangeTests : BackendTest
{
    private const ulong SecondAddress = 0x2_0000_0000;

    [Fact]
    public async Task Region_added_while_a_ring_runs_is_used_at_once()
    {
        (WirePeer peer, RawRing ring) = await StartedAsync();
        DriverMemory second = Rig.Memory(guestAddress: SecondAddress);
        await RawRing.AddMemoryAsync(peer, second);
        await RoundTripThroughAsync(ring, second);
    }

    [Fact]
    public async Task Region_added_with_requests_in_flight_does_not_wait_for_them()
    {
        (WirePeer peer, RawRing ring) = await StartedAsync();
        await HoldOneAsync(ring);
        DriverMemory second = Rig.Memory(guestAddress: SecondAddress);
        await RawRing.AddMemoryAsync(peer, second);
        Rig.Device.Holds = false;
        await RoundTripThroughAsync(ring, second);
        Rig.Device.CompleteHeld();
        await ring.ExpectUsedAsync();
    }

    [Fact]
    public async Task Region_without_a_ring_is_removed_and_the_ring_runs_on()
    {
        (WirePeer peer, RawRing ring) = await StartedAsync();
        DriverMemory second = Rig.Memory(guestAddress: SecondAddress);
        await RawRing.AddMemoryAsync(peer, second);
        await RoundTripThroughAsync(ring, second);
        OpenThings before = OpenThings.Count();
        await RawRing.RemoveMemoryAsync(peer, second);
        Assert.Equal(before.Mappings - 1, OpenThings.Count().Mappings);
        await ring.RoundTripAsync(7);
    }

    [Fact]
    public async Task Removal_waits_for_requests_in_flight()
    {
        (WirePeer peer, RawRing ring) = await StartedAsync();
        DriverMemory second = Rig.Memory(guestAddress: SecondAddress);
        await RawRing.AddMemoryAsync(peer, second);
        await HoldOneAsync(ring);
        OpenThings before = OpenThings.Count();
        await peer.SendAsync(FrontendRequest.RemMemReg, WirePeer.NeedReply, WirePeer.Bytes(RawRing.Describe(second)));
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        Assert.Equal(before.Mappings, OpenThings.Count().Mappings);
        Rig.Device.Holds = false;
        Rig.Device.CompleteHeld();
        Assert.Equal(WirePeer.Bytes(0UL), await peer.ReplyAsync(FrontendRequest.RemMemReg));
        await peer.ReplyAsync(FrontendRequest.GetFeatures);
        Assert.Equal(before.Mappings - 1, OpenThings.Count().Mappings);
        await ring.ExpectUsedAsync();
        ring.Submit();
        await ring.ExpectUsedAsync();
    }

    [Fact]
    public async Task Request_that_comes_while_a_removal_waits_is_served_afterwards()
    {
        (WirePeer peer, RawRing ring) = await StartedAsync();
        DriverMemory second = Rig.Memory(guestAddress: SecondAddress);
        await RawRing.AddMemoryAsync(peer, second);
        await HoldOneAsync(ring);
        await peer.SendAsync(FrontendRequest.RemMemReg, WirePeer.NeedReply, WirePeer.Bytes(RawRing.Describe(second)));
        Rig.Device.Holds = false;
        ring.Put();
        ring.Kick.Signal();
        Rig.Device.CompleteHeld();
        await peer.ReplyAsync(FrontendRequest.RemMemReg);
        await ring.ExpectUsedAsync();
        await ring.ExpectUsedAsync();
    }

    [Fact]
    public async Task Whole_table_is_replaced_under_a_running_ring()
    {
        (WirePeer peer, RawRing ring) = await StartedAsync();
        await HoldOneAsync(ring);
        await peer.SendAsync(
            FrontendRequest.SetMemTable, WirePeer.NeedReply, Table(ring.Memory), ring.Memory.File.Descriptor);
        Rig.Device.Holds = false;
        Rig.Device.CompleteHeld();
        Assert.Equal(WirePeer.Bytes(0UL), await peer.ReplyAsync(FrontendRequest.SetMemTable));
        await ring.ExpectUsedAsync();
        for (int i = 0; i < 20; i++)
        {
            await peer.DoBytesAsync(FrontendRequest.SetMemTable, Table(ring.Memory), ring.Memory.File.Descriptor);
            ring.Submit();
            await ring.ExpectUsedAsync();
        }
    }

    [Fact]
    public async Task Ring_whose_memory_is_removed_is_reported_and_may_start_again()
    {
        (WirePeer peer, RawRing ring) = await StartedAsync();
        await ring.RoundTripAsync();
        await RawRing.RemoveMemoryAsync(peer, ring.Memory);
        await ExpectNeedsResetAsync(peer, ring);
        ring.Kick.Signal();
        await peer.ExpectServedAsync();
        await RawRing.AddMemoryAsync(peer, ring.Memory);
        Assert.Equal(1U, await ring.StopAsync(peer));
        await ring.StartAsync(peer, 1);
        await ring.RoundTripAsync(2);
    }

    [Fact]
    public async Task Ring_that_is_not_in_the_new_table_is_reported()
    {
        (WirePeer peer, RawRing ring) = await StartedAsync();
        DriverMemory second = Rig.Memory(guestAddress: SecondAddress);
        await peer.DoBytesAsync(FrontendRequest.SetMemTable, Table(second), second.File.Descriptor);
        await ExpectNeedsResetAsync(peer, ring);
    }

    [Fact]
    public async Task All_rings_lose_their_memory_at_once()
    {
        (WirePeer peer, RawRing ring) = await StartedAsync();
        RawRing other = new(Rig, ring.Memory, 1);
        await other.StartAsync(peer);
        await RawRing.RemoveMemoryAsync(peer, ring.Memory);
        await ExpectNeedsResetAsync(peer, ring);
        await ExpectNeedsResetAsync(peer, other);
    }

    [Fact]
    public async Task Table_that_moves_user_addresses_moves_the_ring()
    {
        // The ring was given by user addresses: after the change they mean another place in guest memory.
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.NumAsync(peer);
        await ring.AddrAsync(peer);
        MemoryRegionPayload moved = RawRing.Describe(ring.Memory).Region with { UserAddress = 0x1000 };
        byte[] table = [.. WirePeer.Bytes(new MemoryTablePayload(1, 0)), .. WirePeer.Bytes(moved)];
        await peer.DoBytesAsync(FrontendRequest.SetMemTable, table, ring.Memory.File.Descriptor);
        await peer.RefusedAsync(
            FrontendRequest.SetVringKick, RawRing.NotifierPayload(0, hasDescriptor: true), ring.Kick.Descriptor);
    }

    private static byte[] Table(DriverMemory memory) =>
        [.. WirePeer.Bytes(new MemoryTablePayload(1, 0)), .. WirePeer.Bytes(RawRing.Describe(memory).Region)];

    private static async Task ExpectNeedsResetAsync(WirePeer peer, RawRing ring)
    {
        ulong status = await peer.AskValueAsync(FrontendRequest.GetStatus);
        Assert.NotEqual(0UL, status & (ulong)VirtioStatus.DeviceNeedsReset);
        await Eventually.TrueAsync(() => ring.Error.Take() != 0, "the error notifier");
    }

    /// <summary>A request whose buffers lie in another region than the ring.</summary>
    private static async Task RoundTripThroughAsync(RawRing ring, DriverMemory memory)
    {
        DriverBuffer request = memory.Allocate(16);
        DriverBuffer answer = memory.Allocate(16);
        request.Span.Fill(0x77);
        Assert.True(ring.Ring.TryAdd([request], [answer], 0));
        ring.Ring.Publish();
        ring.Kick.Signal();
        await ring.ExpectUsedAsync();
        Assert.Equal(request.Span, answer.Span);
    }

    private async Task HoldOneAsync(RawRing ring)
    {
        Rig.Device.Holds = true;
        ring.Submit();
        await Eventually.TrueAsync(() => Rig.Device.Held == 1, "a held request");
    }

    private async Task<(WirePeer Peer, RawRing Ring)> StartedAsync()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        return (peer, ring);
    }
}
