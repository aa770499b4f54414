// SET_VRING_KICK: an eventfd, or none for a ring that is polled. When a ring starts is in RingStateTests.
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetVringKickTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetVringKick;

    protected override byte[] GoodPayload => RawRing.NotifierPayload(0, hasDescriptor: true);

    protected override int MaxDescriptors => 1;

    private protected override FileDescriptor[] GoodDescriptors() => [Rig.Event().Descriptor];

    [Fact]
    public Task Missing_descriptor_is_refused() => ExpectRefusedAsync(GoodPayload);

    [Fact]
    public Task Descriptor_where_none_is_announced_is_refused() =>
        ExpectRefusedAsync(RawRing.NotifierPayload(0, hasDescriptor: false), Rig.Event().Descriptor);

    [Theory]
    [InlineData(3)]
    [InlineData(255)]
    public async Task Index_out_of_range_is_refused(int index)
    {
        await ExpectRefusedAsync(RawRing.NotifierPayload(index, hasDescriptor: true), Rig.Event().Descriptor);
        await ExpectRefusedAsync(RawRing.NotifierPayload(index, hasDescriptor: false));
    }

    [Fact]
    public Task Shared_memory_is_no_notifier() => ExpectRefusedAsync(GoodPayload, Rig.MemoryFile());

    [Fact]
    public Task Socket_is_no_notifier() => ExpectRefusedAsync(GoodPayload, Rig.SocketPair().Passed);

    [Fact]
    public async Task Repeated_and_withdrawn_it_leaves_nothing_behind()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        OpenThings before = OpenThings.Count();
        FileDescriptor descriptor = Rig.Event().Descriptor;
        for (int i = 0; i < 10; i++)
        {
            await peer.DoBytesAsync(Request, GoodPayload, descriptor);
        }

        await peer.DoBytesAsync(Request, RawRing.NotifierPayload(0, hasDescriptor: false));
        await (before with { Events = before.Events + 1 }).AssertNothingLeftAsync();
    }

    [Fact]
    public async Task Ring_that_leaves_its_region_is_refused_and_may_be_set_up_anew()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.NumAsync(peer);
        ulong end = ring.Memory.UserAddress + ring.Memory.SizeBytes;
        await peer.DoAsync(FrontendRequest.SetVringAddr, ring.Addresses with { Descriptor = end - 16 });
        await peer.RefusedAsync(Request, GoodPayload, ring.Kick.Descriptor);
        await peer.DoAsync(FrontendRequest.SetVringAddr, ring.Addresses with { Used = end - 4 });
        await peer.RefusedAsync(Request, GoodPayload, ring.Kick.Descriptor);
        await peer.DoAsync(FrontendRequest.SetVringAddr, ring.Addresses with { Available = end - 2 });
        await peer.RefusedAsync(Request, GoodPayload, ring.Kick.Descriptor);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
    }

    [Fact]
    public async Task Ring_whose_memory_is_gone_is_refused()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.NumAsync(peer);
        await ring.AddrAsync(peer);
        await RawRing.RemoveMemoryAsync(peer, ring.Memory);
        await peer.RefusedAsync(Request, GoodPayload, ring.Kick.Descriptor);
        await RawRing.AddMemoryAsync(peer, ring.Memory);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
    }

    [Fact]
    public async Task Other_bits_of_the_number_are_ignored()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoAsync(Request, 0xFFFF_FFFF_FFFF_FE00UL | 1, Rig.Event().Descriptor);
    }
}
