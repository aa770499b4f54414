// The call notifier of a ring: late, replaced on a live ring, absent.
using Outboard.Linux.Events;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class RingNotifierTests : BackendTest
{
    [Fact]
    public async Task Call_after_kick_is_used()
    {
        // The order of libblkio: NUM, BASE, ADDR, KICK, CALL, ENABLE.
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.NumAsync(peer);
        await ring.BaseAsync(peer);
        await ring.AddrAsync(peer);
        await ring.KickAsync(peer);
        await ring.CallAsync(peer);
        await ring.EnableAsync(peer);
        ring.Call.Take();
        await ring.RoundTripAsync();
        await ExpectCallAsync(ring.Call);
    }

    [Fact]
    public async Task Without_a_call_descriptor_the_driver_polls()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.NumAsync(peer);
        await ring.AddrAsync(peer);
        await ring.KickAsync(peer);
        await ring.EnableAsync(peer);
        await ring.RoundTripAsync();
        Assert.Equal(0UL, ring.Call.Take());
    }

    [Fact]
    public async Task Replaced_on_a_live_ring_the_new_one_is_signalled_at_once()
    {
        (WirePeer peer, RawRing ring) = await StartedAsync();
        ring.Call = Rig.Event();
        await ring.CallAsync(peer);
        Assert.NotEqual(0UL, ring.Call.Take());
    }

    [Fact]
    public async Task After_the_acknowledgement_the_old_one_is_silent()
    {
        (WirePeer peer, RawRing ring) = await StartedAsync();
        for (byte i = 0; i < 50; i++)
        {
            EventFd old = ring.Call;
            ring.Submit(i);
            ring.Call = Rig.Event();
            await ring.CallAsync(peer);
            old.Take();
            await ring.ExpectEchoAsync(i);
            await ring.RoundTripAsync(i);
            Assert.Equal(0UL, old.Take());
            await ExpectCallAsync(ring.Call);
        }
    }

    [Fact]
    public async Task Withdrawn_on_a_live_ring_nobody_is_called()
    {
        (WirePeer peer, RawRing ring) = await StartedAsync();
        byte[] none = RawRing.NotifierPayload(0, hasDescriptor: false);
        await peer.DoBytesAsync(FrontendRequest.SetVringCall, none);
        ring.Call.Take();
        await ring.RoundTripAsync();
        await peer.DoBytesAsync(FrontendRequest.SetVringCall, none);
        Assert.Equal(0UL, ring.Call.Take());
    }

    [Fact]
    public async Task Call_survives_a_new_kick()
    {
        (WirePeer peer, RawRing ring) = await StartedAsync();
        await ring.KickAsync(peer);
        ring.Call.Take();
        await ring.RoundTripAsync();
        await ExpectCallAsync(ring.Call);
    }

    [Fact]
    public async Task Call_that_was_set_before_anything_else_is_used()
    {
        // The order of DPDK: CALL first of all, before features and memory.
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.DoAsync(FrontendRequest.SetProtocolFeatures, (ulong)WirePeer.AllProtocolFeatures);
        RawRing ring = new(Rig, Rig.Memory(), 0);
        await ring.CallAsync(peer);
        await peer.DoAsync(FrontendRequest.SetFeatures, WirePeer.Features);
        await RawRing.AddMemoryAsync(peer, ring.Memory);
        await ring.NumAsync(peer);
        await ring.BaseAsync(peer);
        await ring.AddrAsync(peer);
        await ring.KickAsync(peer);
        await ring.EnableAsync(peer);
        await ring.RoundTripAsync();
        await ExpectCallAsync(ring.Call);
    }

    [Fact]
    public async Task Suppressed_calls_are_not_made()
    {
        (WirePeer peer, RawRing ring) = await StartedAsync();
        ring.Call.Take();
        ring.Ring.SuppressCalls();
        await ring.RoundTripAsync();
        await ring.RoundTripAsync();
        await ring.StopAsync(peer);
        Assert.Equal(0UL, ring.Call.Take());
    }

    private async Task<(WirePeer Peer, RawRing Ring)> StartedAsync()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        return (peer, ring);
    }

    /// <summary>The call comes after the used index that the test has seen.</summary>
    private static Task ExpectCallAsync(EventFd call) => Eventually.TrueAsync(() => call.Take() != 0, "a call");
}
