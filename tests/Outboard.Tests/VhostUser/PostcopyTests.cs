// Post-copy over the wire: memory is answered, acknowledged, and only then used; pages come when they are wanted.
using Outboard.Linux.Memory;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class PostcopyTests : BackendTest
{
    private static readonly byte[] s_known = WirePeer.Bytes(0UL);

    [Fact]
    public async Task Ring_waits_for_its_pages_and_the_connection_does_not()
    {
        using WirePeer peer = await ConnectAsync();
        using UserFaults faults = await PostcopyRig.ListenAsync(peer);
        DriverMemory memory = Rig.Memory();
        RawRing ring = new(Rig, memory, 0);
        ring.Put();
        byte[] content = memory.Memory.Regions[0].Segment.Span.ToArray();
        MemFd.PunchHole(memory.File.Descriptor, 0, memory.SizeBytes);
        ulong address = await PostcopyRig.OfferAsync(peer, memory);
        await peer.SendAsync(FrontendRequest.AddMemReg, WirePeer.NoReply, s_known);

        using CancellationTokenSource end = new();
        HashSet<ulong> placed = [];
        Task serving = Task.Run(() => Serve(faults, memory, content, address, placed, end.Token), end.Token);
        await ring.StartAsync(peer);
        Assert.True(ring.Call.Wait(20_000) > 0, "the ring is served");
        await peer.ExpectServedAsync();
        await end.CancelAsync();
        await serving;

        Assert.NotEmpty(placed);
        for (ulong offset = 0; offset < memory.SizeBytes; offset += 4096)
        {
            if (placed.Add(offset))
            {
                MemFd.Write(memory.File.Descriptor, offset, content.AsSpan((int)offset, 4096));
            }
        }

        Assert.Equal(0UL, await peer.AskValueAsync(FrontendRequest.PostcopyEnd));
        await ring.ExpectEchoAsync();
        await ring.RoundTripAsync(2);
    }

    [Fact]
    public async Task Table_of_several_regions_is_answered_with_all_addresses()
    {
        using WirePeer peer = await ConnectAsync();
        using UserFaults faults = await PostcopyRig.ListenAsync(peer);
        DriverMemory[] memories = [Rig.Memory(guestAddress: 0), Rig.Memory(guestAddress: 1 << 20)];
        byte[] table =
        [
            .. WirePeer.Bytes(new MemoryTablePayload(2, 0)),
            .. memories.SelectMany(memory => WirePeer.Bytes(RawRing.Describe(memory).Region)),
        ];
        byte[] reply = await peer.AskAsync(
            FrontendRequest.SetMemTable, table, WirePeer.NoReply,
            [.. memories.Select(memory => memory.File.Descriptor)]);
        Assert.Equal(table.Length, reply.Length);
        ulong[] addresses = [BitConverter.ToUInt64(reply, 8 + 16), BitConverter.ToUInt64(reply, 8 + 32 + 16)];
        Assert.All(addresses, address => Assert.Equal(0UL, address % 4096));
        Assert.Distinct(addresses);
        await peer.DoBytesAsync(FrontendRequest.SetMemTable, s_known);
    }

    [Fact]
    public async Task Another_message_than_the_acknowledgement_ends_the_connection()
    {
        using WirePeer peer = await ConnectAsync();
        using UserFaults faults = await PostcopyRig.ListenAsync(peer);
        await PostcopyRig.OfferAsync(peer, Rig.Memory());
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        await peer.ExpectClosedAsync();
        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task Acknowledgement_of_the_other_kind_ends_the_connection()
    {
        using WirePeer peer = await ConnectAsync();
        using UserFaults faults = await PostcopyRig.ListenAsync(peer);
        await PostcopyRig.OfferAsync(peer, Rig.Memory());
        await peer.SendAsync(FrontendRequest.SetMemTable, WirePeer.NeedReply, s_known);
        await peer.ExpectClosedAsync();
    }

    [Fact]
    public async Task Front_end_that_failed_says_so_and_the_memory_is_not_used()
    {
        using WirePeer peer = await ConnectAsync();
        using UserFaults faults = await PostcopyRig.ListenAsync(peer);
        DriverMemory memory = Rig.Memory();
        await PostcopyRig.OfferAsync(peer, memory);
        await peer.RefusedAsync(FrontendRequest.AddMemReg, WirePeer.Bytes(1UL));
        await peer.RefusedAsync(FrontendRequest.RemMemReg, WirePeer.Bytes(RawRing.Describe(memory)));
        await PostcopyRig.OfferAsync(peer, memory);
        await peer.DoBytesAsync(FrontendRequest.AddMemReg, s_known);
        await peer.DoAsync(FrontendRequest.RemMemReg, RawRing.Describe(memory));
    }

    [Fact]
    public async Task Acknowledgement_of_nothing_is_refused()
    {
        using WirePeer peer = await ConnectAsync();
        await peer.RefusedAsync(FrontendRequest.AddMemReg, s_known);
        await peer.RefusedAsync(FrontendRequest.SetMemTable, s_known);
        using UserFaults faults = await PostcopyRig.ListenAsync(peer);
        await peer.RefusedAsync(FrontendRequest.AddMemReg, s_known);
        await peer.RefusedAsync(FrontendRequest.SetMemTable, s_known);
    }

    [Fact]
    public async Task Memory_that_is_refused_needs_no_acknowledgement()
    {
        using WirePeer peer = await ConnectAsync();
        using UserFaults faults = await PostcopyRig.ListenAsync(peer);
        DriverMemory memory = Rig.Memory();
        byte[] wrong = WirePeer.Bytes(RawRing.Describe(memory) with { Region = new(0, 1 << 30, 0, 0) });
        await peer.RefusedAsync(FrontendRequest.AddMemReg, wrong, memory.File.Descriptor);
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task Front_end_that_leaves_while_a_ring_waits_leaves_nothing_behind()
    {
        using (WirePeer peer = await ConnectAsync())
        {
            using UserFaults faults = await PostcopyRig.ListenAsync(peer);
            DriverMemory memory = Rig.Memory();
            RawRing ring = new(Rig, memory, 0);
            MemFd.PunchHole(memory.File.Descriptor, 0, memory.SizeBytes);
            await PostcopyRig.OfferAsync(peer, memory);
            await peer.DoBytesAsync(FrontendRequest.AddMemReg, s_known);
            await ring.NumAsync(peer);
            await ring.AddrAsync(peer);
            byte[] kick = RawRing.NotifierPayload(0, hasDescriptor: true);
            await peer.SendAsync(FrontendRequest.SetVringKick, WirePeer.NoReply, kick, ring.Kick.Descriptor);
            ulong[] addresses = new ulong[1];
            await Eventually.TrueAsync(() => faults.Read(addresses, 10) > 0, "the ring waits for a page");
        }

        await Rig.ExpectServesNextAsync();
    }

    private async Task<WirePeer> ConnectAsync()
    {
        WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync();
        return peer;
    }

    private static void Serve(
        UserFaults faults, DriverMemory memory, byte[] content, ulong address, HashSet<ulong> placed,
        CancellationToken cancellation)
    {
        ulong[] addresses = new ulong[8];
        while (!cancellation.IsCancellationRequested)
        {
            int count = faults.Read(addresses, 10);
            for (int i = 0; i < count; i++)
            {
                ulong offset = (addresses[i] - address) & ~4095UL;
                if (placed.Add(offset))
                {
                    MemFd.Write(memory.File.Descriptor, offset, content.AsSpan((int)offset, 4096));
                }

                Assert.True(faults.Wake(address + offset, 4096));
            }
        }
    }
}
