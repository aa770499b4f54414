// RESET_DEVICE: initial device state; memory, owner and features of the protocol stay.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class ResetDeviceTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.ResetDevice;

    protected override ProtocolFeatures Gate => ProtocolFeatures.ResetDevice;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task Repeated_resets_are_carried_out()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        int before = Rig.Device.Resets;
        for (int i = 0; i < 3; i++)
        {
            await peer.DoBytesAsync(Request, []);
        }

        Assert.Equal(before + 3, Rig.Device.Resets);
    }

    [Fact]
    public async Task Stops_rings_and_keeps_memory_and_protocol_features()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
        await peer.DoAsync(FrontendRequest.SetStatus, 0xFUL);
        await peer.DoBytesAsync(Request, []);
        Assert.Equal(0UL, await peer.AskValueAsync(FrontendRequest.GetStatus));
        Assert.Equal(0UL, Rig.Device.NegotiatedFeatures);
        Assert.Equal(0U, await ring.StopAsync(peer));

        // The memory is still there: the same region again would overlap, and a new ring in it starts.
        await peer.RefusedAsync(
            FrontendRequest.AddMemReg, WirePeer.Bytes(RawRing.Describe(ring.Memory)), ring.Memory.File.Descriptor);
        await peer.DoAsync(FrontendRequest.SetFeatures, WirePeer.Features);
        RawRing second = new(Rig, ring.Memory, 0);
        await second.StartAsync(peer);
        await second.RoundTripAsync(3);
    }

    [Fact]
    public async Task Rings_are_disabled_and_not_started_afterwards()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await peer.DoBytesAsync(Request, []);
        RawRing second = new(Rig, ring.Memory, 0);
        RawRing other = new(Rig, ring.Memory, 1);
        await second.SetUpAsync(peer);
        await other.StartAsync(peer);
        second.Put();
        second.Kick.Signal();
        await other.RoundTripAsync();
        Assert.False(second.HasUsed());
        await second.EnableAsync(peer);
        await second.ExpectEchoAsync();
    }

    [Fact]
    public async Task Forgets_requests_in_flight_instead_of_waiting_for_them()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        Rig.Device.Holds = true;
        await ring.StartAsync(peer);
        ring.Submit();
        await Eventually.TrueAsync(() => Rig.Device.Held == 1, "a held request");
        int before = Rig.Device.Resets;
        await peer.DoBytesAsync(Request, []);
        Assert.Equal(before + 1, Rig.Device.Resets);
        Rig.Device.Holds = false;
        Rig.Device.CompleteHeld();
        Assert.False(ring.HasUsed());
    }
}
