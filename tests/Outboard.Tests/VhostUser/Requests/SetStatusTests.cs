// SET_STATUS: the device status field, 8 bits.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetStatusTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetStatus;

    protected override ProtocolFeatures Gate => ProtocolFeatures.Status;

    protected override byte[] GoodPayload => WirePeer.Bytes(0xFUL);

    [Theory]
    [InlineData(0x100UL)]
    [InlineData(0xFFUL << 8)]
    [InlineData(1UL << 63)]
    public Task More_than_8_bits_are_refused(ulong status) => ExpectRefusedAsync(WirePeer.Bytes(status));

    [Fact]
    public async Task Zero_resets_rings_that_run_without_waiting_for_their_requests()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        Rig.Device.Holds = true;
        await ring.StartAsync(peer);
        ring.Submit();
        await Eventually.TrueAsync(() => Rig.Device.Held == 1, "a request is held");
        int resets = Rig.Device.Resets;
        await peer.DoAsync(Request, 0UL);
        Assert.Equal(resets + 1, Rig.Device.Resets);
        Assert.Equal(0UL, await peer.AskValueAsync(FrontendRequest.GetStatus));
        Rig.Device.Holds = false;
        Rig.Device.CompleteHeld();
        Assert.False(ring.HasUsed());

        // The driver begins anew, with a ring of its own.
        RawRing fresh = new(Rig, ring.Memory, 0);
        Assert.Equal(0U, await fresh.StopAsync(peer));
        await fresh.StartAsync(peer);
        await fresh.RoundTripAsync();
    }

    [Fact]
    public async Task Zero_after_the_rings_were_stopped_changes_nothing()
    {
        // QEMU sends it when its guest is only paused, and goes on where it was.
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
        uint index = await ring.StopAsync(peer);
        int resets = Rig.Device.Resets;
        await peer.DoAsync(Request, 0UL);
        Assert.Equal(resets, Rig.Device.Resets);
        Assert.Equal(index, await ring.StopAsync(peer));
        await ring.StartAsync(peer, index);
        await ring.RoundTripAsync();
    }

    [Theory]
    [InlineData(0x08UL)]
    [InlineData(0x0BUL)]
    [InlineData(0x0FUL)]
    [InlineData(0x80UL)]
    [InlineData(0x00UL)]
    public async Task Any_order_of_steps_is_taken(ulong status)
    {
        // QEMU sets FEATURES_OK alone; DPDK begins with 0xB.
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoAsync(Request, status);
        Assert.Equal(status, await peer.AskValueAsync(FrontendRequest.GetStatus));
    }
}
