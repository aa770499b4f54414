// Guest memory in several regions: rings and indirect tables that cross from one to the next, and rings that move.
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class ScatteredMemoryTests : BackendTest
{
    private const uint Half = 1 << 15;
    private const ulong Split = WirePeer.Features;
    private const ulong Packed = WirePeer.Features | VirtioFeatures.RingPacked;

    [Theory]
    [InlineData(Split)]
    [InlineData(Packed)]
    public async Task Ring_that_crosses_two_regions_is_served(ulong features)
    {
        // The descriptors begin 128 bytes before the end of the first region.
        (WirePeer peer, DriverMemory memory) = await ConnectAsync(features, Half - 128);
        RawRing ring = new(Rig, memory, 0, features);
        await ring.StartAsync(peer);
        for (byte i = 1; i < 40; i++)
        {
            await ring.RoundTripAsync(i);
        }

        await ring.StopAsync(peer);
    }

    [Fact]
    public async Task Ring_that_crosses_two_regions_within_a_page_is_refused_with_a_reason()
    {
        (WirePeer peer, DriverMemory memory) = await ConnectAsync(Split, Half - 128, cut: Half - 64);
        RawRing ring = new(Rig, memory, 0, Split);
        await ring.NumAsync(peer);
        await ring.AddrAsync(peer);
        await peer.RefusedAsync(
            FrontendRequest.SetVringKick, RawRing.NotifierPayload(0, hasDescriptor: true), ring.Kick.Descriptor);
        Assert.Contains(Rig.Log.Warnings, line => line.Contains("scattered", StringComparison.Ordinal));
    }

    [Theory]
    [InlineData(Split)]
    [InlineData(Packed)]
    public async Task Indirect_table_that_crosses_two_regions_is_followed(ulong features)
    {
        features |= VirtioFeatures.IndirectDescriptors;
        (WirePeer peer, DriverMemory memory) = await ConnectAsync(features, 0);
        const int Entries = 8;

        // The table of the first chain is allocated first: half of it lies in each region, cut within a descriptor.
        memory.Allocate(Half - (Entries * 16 / 2) - 8, 1);
        DriverQueue queue = DriverQueue.Create(0, RawRing.Size, memory, features, Entries);
        RawRing ring = new(Rig, memory, queue, 0);
        await ring.StartAsync(peer);
        for (byte i = 1; i < 40; i++)
        {
            await ring.RoundTripAsync(i);
        }
    }

    [Fact]
    public async Task Running_ring_follows_its_user_addresses_when_the_table_moves()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync(1);

        // The same memory is now at another guest address: what stands in the ring must follow, which a driver would
        // not do. The ring itself is found by its user addresses: an empty request has no address in it.
        MemoryRegionPayload moved = RawRing.Describe(ring.Memory).Region with { GuestAddress = 0x9_0000_0000 };
        byte[] table = [.. WirePeer.Bytes(new MemoryTablePayload(1, 0)), .. WirePeer.Bytes(moved)];
        await peer.DoBytesAsync(FrontendRequest.SetMemTable, table, ring.Memory.File.Descriptor);
        Assert.True(ring.Ring.TryAdd([], [new DriverBuffer(0x9_0000_0000, ring.Memory.Allocate(16).Memory)], 5));
        ring.Ring.Publish();
        ring.Kick.Signal();
        await ring.ExpectUsedAsync();
        Assert.Equal(2U, await ring.StopAsync(peer));
    }

    [Fact]
    public async Task Running_ring_whose_user_addresses_lead_nowhere_is_reported()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        MemoryRegionPayload moved = RawRing.Describe(ring.Memory).Region with { UserAddress = 0x1000 };
        byte[] table = [.. WirePeer.Bytes(new MemoryTablePayload(1, 0)), .. WirePeer.Bytes(moved)];
        await peer.DoBytesAsync(FrontendRequest.SetMemTable, table, ring.Memory.File.Descriptor);
        await Eventually.TrueAsync(() => ring.Error.Take() != 0, "the error notifier");
    }

    [Fact]
    public async Task Guest_memory_at_address_zero_holds_rings()
    {
        WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync(WirePeer.OfferedProtocolFeatures);
        DriverMemory memory = Rig.Memory(guestAddress: 0);
        SingleMemoryRegionPayload region = new(0, new MemoryRegionPayload(0, memory.SizeBytes, 0, 0));
        await peer.DoAsync(FrontendRequest.AddMemReg, region, memory.File.Descriptor);
        RawRing ring = new(Rig, memory, 0) { AddressShift = 0 };
        await ring.StartAsync(peer);
        await ring.RoundTripAsync(1);
    }

    [Fact]
    public async Task Buffers_in_memory_that_was_removed_fault_the_queue()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        DriverMemory second = Rig.Memory(guestAddress: 0x2_0000_0000);
        await RawRing.AddMemoryAsync(peer, second);
        DriverBuffer buffer = second.Allocate(64);
        await RawRing.RemoveMemoryAsync(peer, second);
        Assert.True(ring.Ring.TryAdd([buffer], [], 5));
        ring.Ring.Publish();
        ring.Kick.Signal();
        await Eventually.TrueAsync(() => ring.Error.Take() != 0, "the error notifier");
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task All_slots_come_and_go_under_load()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        using CancellationTokenSource end = new();
        Task load = LoadAsync(ring, end.Token);
        FileDescriptor file = Rig.MemoryFile(4096);
        for (int round = 0; round < 2; round++)
        {
            for (ulong slot = 1; slot < 509; slot++)
            {
                await peer.DoAsync(FrontendRequest.AddMemReg, Slot(slot), file);
            }

            for (ulong slot = 508; slot > 0; slot--)
            {
                await peer.DoAsync(FrontendRequest.RemMemReg, Slot(slot));
            }
        }

        await end.CancelAsync();
        await load;
    }

    private static SingleMemoryRegionPayload Slot(ulong slot) =>
        new(0, new MemoryRegionPayload(slot << 40, 4096, slot << 40, 0));

    private static async Task LoadAsync(RawRing ring, CancellationToken end)
    {
        for (byte i = 1; !end.IsCancellationRequested; i = (byte)((i % 100) + 1))
        {
            await ring.RoundTripAsync(i);
        }
    }

    /// <summary>Memory of two regions, neighbours in guest addresses and far apart otherwise.</summary>
    private async Task<(WirePeer Peer, DriverMemory Memory)> ConnectAsync(
        ulong features, uint fill, ulong cut = Half)
    {
        WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync(features: features);
        DriverMemory memory = Rig.Memory();
        MemoryRegionPayload whole = RawRing.Describe(memory).Region;
        MemoryRegionPayload first = whole with { SizeBytes = cut };
        MemoryRegionPayload second = new(
            whole.GuestAddress + cut, whole.SizeBytes - cut, whole.UserAddress + cut, cut);
        await peer.DoAsync(
            FrontendRequest.AddMemReg, new SingleMemoryRegionPayload(0, first), memory.File.Descriptor);
        await peer.DoAsync(
            FrontendRequest.AddMemReg, new SingleMemoryRegionPayload(0, second), memory.File.Descriptor);
        if (fill > 0)
        {
            memory.Allocate(fill, 1);
        }

        return (peer, memory);
    }
}
