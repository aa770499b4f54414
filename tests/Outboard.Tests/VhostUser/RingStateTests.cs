// When a ring is served: vhost-user "Ring states". One worker serves all rings here and takes kicks in their order, so
// a round trip on another ring proves that it has seen an earlier kick.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class RingStateTests : BackendTest
{
    private const ulong PlainFeatures = VirtioFeatures.Version1;

    [Fact]
    public async Task Set_vring_kick_alone_starts_nothing()
    {
        (WirePeer peer, RawRing ring, RawRing other) = await TwoRingsAsync();
        ring.Put();
        await ring.SetUpAsync(peer);
        await other.RoundTripAsync();
        Assert.False(ring.HasUsed());
        Assert.Equal(0U, await ring.StopAsync(peer));
    }

    [Fact]
    public async Task Kick_while_disabled_is_not_lost()
    {
        (WirePeer peer, RawRing ring, RawRing other) = await TwoRingsAsync();
        await ring.SetUpAsync(peer);
        ring.Put();
        ring.Kick.Signal();
        await other.RoundTripAsync();
        Assert.False(ring.HasUsed());
        await ring.EnableAsync(peer);
        await ring.ExpectEchoAsync();
    }

    [Fact]
    public async Task Enabling_looks_at_the_ring_without_a_kick()
    {
        (WirePeer peer, RawRing ring, _) = await TwoRingsAsync();
        ring.Put();
        await ring.SetUpAsync(peer);
        await ring.EnableAsync(peer);
        await ring.ExpectEchoAsync();
    }

    [Fact]
    public async Task Enable_before_kick_looks_at_the_ring_too()
    {
        (WirePeer peer, RawRing ring, _) = await TwoRingsAsync();
        ring.Put();
        await ring.EnableAsync(peer);
        await ring.SetUpAsync(peer);
        await ring.ExpectEchoAsync();
    }

    [Fact]
    public async Task Disabled_ring_takes_nothing_and_goes_on_where_it_was()
    {
        (WirePeer peer, RawRing ring, RawRing other) = await TwoRingsAsync();
        await ring.StartAsync(peer);
        await ring.RoundTripAsync(1);
        await ring.EnableAsync(peer, false);
        ring.Put(2);
        ring.Kick.Signal();
        await other.RoundTripAsync();
        Assert.False(ring.HasUsed());
        await ring.EnableAsync(peer);
        await ring.ExpectEchoAsync(2);
        await ring.RoundTripAsync(3);
        Assert.Equal(3U, await ring.StopAsync(peer));
    }

    [Fact]
    public async Task Disabled_while_requests_are_in_flight_they_are_completed()
    {
        (WirePeer peer, RawRing ring, _) = await TwoRingsAsync();
        Rig.Device.Holds = true;
        await ring.StartAsync(peer);
        ring.Submit();
        await Eventually.TrueAsync(() => Rig.Device.Held == 1, "a held request");
        await ring.EnableAsync(peer, false);
        Rig.Device.CompleteHeld();
        await ring.ExpectUsedAsync();
    }

    [Theory]
    [InlineData(PlainFeatures)]
    [InlineData(PlainFeatures | VirtioFeatures.EventIndex)]
    [InlineData(PlainFeatures | VirtioFeatures.RingPacked)]
    [InlineData(PlainFeatures | VirtioFeatures.RingPacked | VirtioFeatures.EventIndex)]
    public async Task Without_protocol_features_all_rings_are_enabled_and_the_first_kick_starts_them(ulong features)
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: features);
        RawRing other = new(Rig, ring.Memory, 1, features);
        await ring.SetUpAsync(peer);
        await other.SetUpAsync(peer);
        await other.RoundTripAsync();
        Assert.True(ring.Submit(), "a ring that is not started must not tell its driver to keep quiet");
        await ring.ExpectEchoAsync();
        await ring.RoundTripAsync(2);
    }

    [Fact]
    public async Task Giving_up_protocol_features_later_enables_rings_that_run()
    {
        (WirePeer peer, RawRing ring, RawRing other) = await TwoRingsAsync();
        await ring.SetUpAsync(peer);
        ring.Put();
        ring.Kick.Signal();
        await other.RoundTripAsync();
        Assert.False(ring.HasUsed());
        await peer.DoAsync(FrontendRequest.SetFeatures, PlainFeatures);
        await ring.ExpectEchoAsync();
    }

    [Fact]
    public async Task Ring_without_a_kick_descriptor_is_polled()
    {
        (WirePeer peer, RawRing ring, _) = await TwoRingsAsync();
        await ring.NumAsync(peer);
        await ring.AddrAsync(peer);
        await ring.PolledAsync(peer);
        await ring.EnableAsync(peer);
        for (byte i = 0; i < 40; i++)
        {
            ring.Put(i);
            await ring.ExpectEchoAsync(i);
        }

        Assert.Equal(40U, await ring.StopAsync(peer));
    }

    [Fact]
    public async Task Polled_ring_that_is_disabled_takes_nothing()
    {
        (WirePeer peer, RawRing ring, RawRing other) = await TwoRingsAsync();
        await ring.NumAsync(peer);
        await ring.AddrAsync(peer);
        ring.Put();
        await ring.PolledAsync(peer);
        await other.RoundTripAsync();
        Assert.False(ring.HasUsed());
        await ring.EnableAsync(peer);
        await ring.ExpectEchoAsync();
    }

    [Fact]
    public async Task Kick_may_come_before_size_and_addresses()
    {
        (WirePeer peer, RawRing ring, _) = await TwoRingsAsync();
        await ring.KickAsync(peer);
        await ring.NumAsync(peer);
        await ring.BaseAsync(peer);
        await ring.AddrAsync(peer);
        await ring.EnableAsync(peer);
        await ring.RoundTripAsync();
    }

    [Fact]
    public async Task Driver_is_asked_for_kicks_whenever_the_worker_sleeps()
    {
        (WirePeer peer, RawRing ring, _) = await TwoRingsAsync();
        await ring.StartAsync(peer);
        for (int i = 0; i < 200; i++)
        {
            // Submit kicks only when the device wants it: a forgotten wish hangs here.
            await ring.RoundTripAsync((byte)i);
        }
    }

    private async Task<(WirePeer Peer, RawRing Ring, RawRing Other)> TwoRingsAsync()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        RawRing other = new(Rig, ring.Memory, 1);
        await other.StartAsync(peer);
        return (peer, ring, other);
    }
}
