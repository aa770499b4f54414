// What a driver may break on its ring: the ring is parked, its error notifier signalled, the connection lives.
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class RingFaultTests : BackendTest
{
    [Fact]
    public Task Buffer_outside_memory() => BreaksAsync(ring =>
    {
        DriverMemory stranger = Rig.Memory(guestAddress: 0x9_0000_0000);
        Assert.True(ring.Ring.TryAdd([stranger.Allocate(16)], [], 0));
        ring.Ring.Publish();
    });

    [Fact]
    public async Task Fault_is_reported_also_when_the_error_notifier_comes_late_or_never()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.NumAsync(peer);
        await ring.AddrAsync(peer);
        await ring.KickAsync(peer);
        await ring.EnableAsync(peer);
        Break(ring);
        await ExpectNeedsResetAsync(peer);
    }

    [Fact]
    public async Task Other_rings_are_served_on()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        RawRing other = new(Rig, ring.Memory, 1);
        await ring.StartAsync(peer);
        await other.StartAsync(peer);
        Break(ring);
        await ExpectNeedsResetAsync(peer);
        await other.RoundTripAsync();
        ring.Kick.Signal();
        await other.RoundTripAsync();
        Assert.False(ring.HasUsed());
    }

    [Fact]
    public async Task Error_notifier_outlives_a_stop()
    {
        // QEMU sends it once for each connection, not at each start.
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        uint index = await ring.StopAsync(peer);
        await ring.NumAsync(peer);
        await ring.BaseAsync(peer, index);
        await ring.AddrAsync(peer);
        await ring.CallAsync(peer);
        await ring.KickAsync(peer);
        await ring.EnableAsync(peer);
        Break(ring);
        await Eventually.TrueAsync(() => ring.Error.Take() != 0, "the error notifier");
    }

    [Fact]
    public async Task Error_notifier_that_was_replaced_is_silent()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        Outboard.Linux.Events.EventFd second = Rig.Event();
        await peer.DoBytesAsync(FrontendRequest.SetVringErr, RawRing.NotifierPayload(0, true), second.Descriptor);
        Break(ring);
        await Eventually.TrueAsync(() => second.Take() != 0, "the error notifier");
        Assert.Equal(0UL, ring.Error.Take());
    }

    [Fact]
    public async Task Faulted_ring_with_requests_in_flight_completes_them_and_stops()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        Rig.Device.Holds = true;
        await ring.StartAsync(peer);
        ring.Submit();
        await Eventually.TrueAsync(() => Rig.Device.Held == 1, "a held request");
        Break(ring);
        await ExpectNeedsResetAsync(peer);
        await ring.BeginStopAsync(peer);
        Rig.Device.CompleteHeld();
        Assert.Equal(1U, await ring.StoppedAsync(peer));
        Assert.True(ring.HasUsed());
    }

    private static async Task ExpectNeedsResetAsync(WirePeer peer)
    {
        const ulong needsReset = (ulong)VirtioStatus.DeviceNeedsReset;
        for (int i = 0; i < 10_000; i++)
        {
            if ((await peer.AskValueAsync(FrontendRequest.GetStatus) & needsReset) != 0)
            {
                return;
            }
        }

        Assert.Fail("the device does not tell that it needs a reset");
    }

    private void Break(RawRing ring)
    {
        DriverMemory stranger = Rig.Memory(guestAddress: 0x9_0000_0000);
        Assert.True(ring.Ring.TryAdd([stranger.Allocate(16)], [], 0));
        ring.Ring.Publish();
        ring.Kick.Signal();
    }

    private async Task BreaksAsync(Action<RawRing> breaks)
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
        breaks(ring);
        ring.Kick.Signal();
        await Eventually.TrueAsync(() => ring.Error.Take() != 0, "the error notifier");
        await ExpectNeedsResetAsync(peer);
        await peer.DoBytesAsync(FrontendRequest.ResetDevice, []);
        Assert.Equal(0UL, await peer.AskValueAsync(FrontendRequest.GetStatus));
        RawRing fresh = new(Rig, ring.Memory, 0);
        await fresh.StartAsync(peer);
        await fresh.RoundTripAsync();
    }
}
