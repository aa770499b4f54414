// Stopping rings, with requests in flight, and going on afterwards: at this connection or at the next.
using Outboard.Linux.Events;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class RingStopTests : BackendTest
{
    [Fact]
    public async Task Get_vring_base_waits_for_requests_in_flight()
    {
        (WirePeer peer, RawRing ring) = await HeldAsync(2);
        await ring.BeginStopAsync(peer);
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        Rig.Device.TakeHeld().Complete(0);
        await ring.ExpectUsedAsync();
        Assert.Equal(1, Rig.Device.Held);
        Assert.False(ring.HasUsed());
        Rig.Device.CompleteHeld();
        Assert.Equal(2U, await ring.StoppedAsync(peer));
        await peer.ReplyAsync(FrontendRequest.GetFeatures);
        Assert.True(ring.HasUsed());
    }

    [Fact]
    public async Task What_becomes_available_while_it_stops_is_left_alone()
    {
        (WirePeer peer, RawRing ring) = await HeldAsync(1);
        await ring.BeginStopAsync(peer);
        ring.Put();
        ring.Kick.Signal();
        Rig.Device.Holds = false;
        Rig.Device.CompleteHeld();
        uint index = await ring.StoppedAsync(peer);
        Assert.InRange(index, 1U, 2U);
        await ring.ExpectUsedAsync();
        await ring.StartAsync(peer, index);
        if (index == 1)
        {
            await ring.ExpectUsedAsync();
        }
    }

    [Fact]
    public async Task Last_completion_before_the_reply_is_called()
    {
        (WirePeer peer, RawRing ring) = await HeldAsync(1);
        ring.Call.Take();
        await ring.BeginStopAsync(peer);
        Rig.Device.CompleteHeld();
        await ring.StoppedAsync(peer);
        Assert.NotEqual(0UL, ring.Call.Take());
    }

    [Fact]
    public async Task Stopped_ring_asks_its_driver_for_kicks()
    {
        // Whoever serves it next may wait for one.
        (WirePeer peer, RawRing ring) = await HeldAsync(1);
        await ring.BeginStopAsync(peer);
        Rig.Device.CompleteHeld();
        await ring.StoppedAsync(peer);
        ring.Put();
        Assert.True(ring.Ring.ShouldKick());
    }

    [Fact]
    public async Task Restart_goes_on_at_the_index_that_was_told()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        uint index = 0;
        for (byte round = 1; round < 10; round++)
        {
            await ring.StartAsync(peer, index);
            for (byte i = 0; i < 5; i++)
            {
                await ring.RoundTripAsync(i);
            }

            index = await ring.StopAsync(peer);
            Assert.Equal(round * 5U, index);
        }
    }

    [Fact]
    public async Task Restart_without_set_vring_base_goes_on_too()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync(1);
        await ring.StopAsync(peer);
        await ring.CallAsync(peer);
        await ring.KickAsync(peer);
        await ring.RoundTripAsync(2);
        Assert.Equal(2U, await ring.StopAsync(peer));
    }

    [Fact]
    public async Task Index_wraps_around_at_16_bits()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        for (int i = 0; i < 65536 + 3; i++)
        {
            ring.Submit((byte)(i % 100));
            if (!SpinWait.SpinUntil(ring.HasUsed, Eventually.Limit))
            {
                Assert.Fail($"no answer to request {i}");
            }
        }

        Assert.Equal(3U, await ring.StopAsync(peer));
    }

    [Fact]
    public async Task Next_connection_goes_on_where_the_last_one_stopped()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync(1);
        uint index = await ring.StopAsync(peer);
        peer.Dispose();
        using WirePeer next = await Rig.ConnectAsync();
        await next.NegotiateAsync();
        await RawRing.AddMemoryAsync(next, ring.Memory);
        await ring.StartAsync(next, index);
        await ring.RoundTripAsync(2);
    }

    [Fact]
    public async Task Disconnect_waits_for_requests_in_flight_and_then_serves_the_next()
    {
        (WirePeer peer, RawRing ring) = await HeldAsync(3);
        int resets = Rig.Device.Resets;
        peer.Dispose();
        using WirePeer next = await Rig.ConnectAsync();
        await next.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        Assert.Equal(resets, Rig.Device.Resets);
        Rig.Device.CompleteHeld();
        await next.ReplyAsync(FrontendRequest.GetFeatures);
        Assert.Equal(resets + 1, Rig.Device.Resets);
        for (int i = 0; i < 3; i++)
        {
            Assert.True(ring.HasUsed());
        }
    }

    [Fact]
    public async Task Protocol_error_with_requests_in_flight_closes_at_once()
    {
        (WirePeer peer, _) = await HeldAsync(1);
        await peer.SendAsync(FrontendRequest.SetVringNum, WirePeer.NoReply, new byte[3]);
        await peer.ExpectClosedAsync();
        Rig.Device.CompleteHeld();
        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task Kick_replaced_on_a_live_ring_keeps_it_running()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync(1);
        await ring.KickAsync(peer);
        await ring.RoundTripAsync(2);
        await ring.KickAsync(peer);
        ring.Put(3);
        ring.Kick.Signal();
        await ring.ExpectEchoAsync(3);
        Assert.NotEqual(0UL, ring.Call.Take());
        Assert.Equal(3U, await ring.StopAsync(peer));
    }

    [Fact]
    public async Task Kick_replaced_on_a_ring_that_a_kick_started_looks_for_what_the_old_one_told()
    {
        const ulong features = VirtioFeatures.Version1;
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: features);
        await ring.SetUpAsync(peer);
        await ring.RoundTripAsync(1);

        // A request whose kick goes to a descriptor that nobody watches any more.
        EventFd other = Rig.Event();
        await peer.DoBytesAsync(FrontendRequest.SetVringKick, RawRing.NotifierPayload(0, true), other.Descriptor);
        ring.Put(2);
        ring.Kick.Signal();
        await peer.DoBytesAsync(FrontendRequest.SetVringKick, RawRing.NotifierPayload(0, true), Rig.Event().Descriptor);
        await ring.ExpectEchoAsync(2);
    }

    [Fact]
    public async Task Device_that_throws_when_a_queue_starts_ends_its_session_only()
    {
        ExpectsFailure = true;
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        Rig.Device.ThrowsOnStart = true;
        await ring.NumAsync(peer);
        await ring.AddrAsync(peer);
        await peer.SendAsync(
            FrontendRequest.SetVringKick,
            WirePeer.NeedReply,
            RawRing.NotifierPayload(0, hasDescriptor: true),
            ring.Kick.Descriptor);
        await peer.ExpectClosedAsync();
        Rig.Device.ThrowsOnStart = false;
        Assert.NotEmpty(Rig.Log.Critical);
        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task Device_that_throws_ends_its_session_with_requests_in_flight()
    {
        ExpectsFailure = true;
        (WirePeer peer, RawRing ring) = await HeldAsync(1);
        ring.Submit(FakeDevice.Poison);
        await peer.ExpectClosedAsync();
        await Rig.ExpectServesNextAsync();
        Assert.NotEmpty(Rig.Log.Critical);

        // Completed long after its session: nobody waits for it, and nobody is disturbed.
        PendingRequest late = Rig.Device.TakeHeld();
        EventFd[] bystanders = [.. Enumerable.Range(0, 32).Select(_ => Rig.Event())];
        late.Complete(0);
        Assert.All(bystanders, bystander => Assert.Equal(0UL, bystander.Take()));
        await Rig.ExpectServesNextAsync();
    }

    private async Task<(WirePeer Peer, RawRing Ring)> HeldAsync(int requests)
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        Rig.Device.Holds = true;
        await ring.StartAsync(peer);
        for (int i = 0; i < requests; i++)
        {
            ring.Submit();
        }

        await Eventually.TrueAsync(() => Rig.Device.Held == requests, "held requests");
        return (peer, ring);
    }
}
