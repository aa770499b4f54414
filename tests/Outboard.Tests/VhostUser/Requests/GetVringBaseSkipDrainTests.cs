// GET_VRING_BASE_SKIP_DRAIN: stops a ring now; what is in flight stays in the in-flight region.
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GetVringBaseSkipDrainTests : RequestTest
{
    private const ulong QueueBytes = 1088;

    protected override FrontendRequest Request => FrontendRequest.GetVringBaseSkipDrain;

    protected override ProtocolFeatures Gate => ProtocolFeatures.GetVringBaseSkipDrain;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => State(0);

    [Theory]
    [InlineData(3)]
    [InlineData(256)]
    [InlineData(uint.MaxValue)]
    public Task Index_out_of_range_is_refused(uint index) => ExpectRefusedAsync(State(index));

    [Fact]
    public async Task Ring_that_never_ran_is_answered_again_and_again()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        Assert.Equal(State(2), await peer.AskAsync(Request, State(2), WirePeer.NoReply));
        Assert.Equal(State(2), await peer.AskAsync(Request, State(2), WirePeer.NeedReply));
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Requests_in_flight_are_not_waited_for_and_are_submitted_again_in_their_order(bool packed)
    {
        (WirePeer peer, RawRing ring, FileDescriptor region) = await HeldAsync(packed, requests: 3);
        uint index = await SkipDrainAsync(peer);
        Assert.False(ring.HasUsed());

        // What the device still holds of before is nobody's: completing it touches nothing.
        Rig.Device.CompleteHeld();
        Assert.False(ring.HasUsed());
        Rig.Device.Holds = false;
        await peer.DoBytesAsync(FrontendRequest.SetInflightFd, Region(packed), region);
        await ring.StartAsync(peer, index);
        for (byte i = 1; i <= 3; i++)
        {
            await ring.ExpectEchoAsync(i);
        }

        Assert.False(ring.HasUsed());
        await ring.RoundTripAsync();
        Assert.Equal(7, Rig.Device.Handled);
    }

    [Fact]
    public async Task Next_connection_goes_on_with_what_was_suspended()
    {
        (WirePeer peer, RawRing ring, FileDescriptor region) = await HeldAsync(packed: false, requests: 2);
        uint index = await SkipDrainAsync(peer);
        peer.Dispose();
        Rig.Device.Holds = false;
        using WirePeer next = await ConnectPreparedAsync();
        await next.DoBytesAsync(FrontendRequest.SetInflightFd, Region(packed: false), region);
        await RawRing.AddMemoryAsync(next, ring.Memory);
        await ring.StartAsync(next, index);
        await ring.ExpectEchoAsync(1);
        await ring.ExpectEchoAsync(2);
    }

    [Fact]
    public async Task Front_end_that_leaves_does_not_wait_for_requests_either()
    {
        (WirePeer peer, _, _) = await HeldAsync(packed: false, requests: 2);
        peer.Dispose();
        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task Without_a_region_requests_are_waited_for()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        Rig.Device.Holds = true;
        await ring.StartAsync(peer);
        ring.Submit();
        await Eventually.TrueAsync(() => Rig.Device.Held == 1, "a request is held");
        await peer.SendAsync(Request, WirePeer.NoReply, State(0));
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        Rig.Device.CompleteHeld();
        Assert.Equal(State(0, 1), await peer.ReplyAsync(Request));
        Assert.True(ring.HasUsed());
    }

    [Fact]
    public async Task Plain_message_still_waits_where_both_were_negotiated()
    {
        (WirePeer peer, RawRing ring, _) = await HeldAsync(packed: false, requests: 1);
        await ring.BeginStopAsync(peer);
        Rig.Device.CompleteHeld();
        Assert.Equal(1U, await ring.StoppedAsync(peer));
        Assert.True(ring.HasUsed());
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Plain_message_suspends_where_only_the_first_feature_was_negotiated(bool packed)
    {
        // As QEMU 11.1 does with inflight-migration=on.
        const ProtocolFeatures first = WirePeer.AllProtocolFeatures & ~ProtocolFeatures.GetVringBaseSkipDrain;
        (WirePeer peer, RawRing ring, FileDescriptor region) = await HeldAsync(packed, requests: 2, first);
        uint index = await ring.StopAsync(peer);
        Assert.False(ring.HasUsed());
        Rig.Device.Holds = false;
        await peer.DoBytesAsync(FrontendRequest.SetInflightFd, Region(packed), region);
        await ring.StartAsync(peer, index);
        await ring.ExpectEchoAsync(1);
        await ring.ExpectEchoAsync(2);
    }

    /// <summary>Ring 0 with requests that the device holds, recorded in a region.</summary>
    private async Task<(WirePeer Peer, RawRing Ring, FileDescriptor Region)> HeldAsync(
        bool packed, int requests, ProtocolFeatures protocol = WirePeer.AllProtocolFeatures)
    {
        ulong features = WirePeer.Features | (packed ? VirtioFeatures.RingPacked : 0);
        WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync(protocol, features);
        RawRing ring = new(Rig, Rig.Memory(), 0, features);
        await RawRing.AddMemoryAsync(peer, ring.Memory);
        FileDescriptor region = Rig.MemoryFile(4 * 4096);
        await peer.DoBytesAsync(FrontendRequest.SetInflightFd, Region(packed), region);
        Rig.Device.Holds = true;
        await ring.StartAsync(peer);
        for (byte i = 1; i <= requests; i++)
        {
            ring.Submit(i);
        }

        await Eventually.TrueAsync(() => Rig.Device.Held == requests, "the requests are held");
        return (peer, ring, region);
    }

    private async Task<uint> SkipDrainAsync(WirePeer peer)
    {
        byte[] reply = await peer.AskAsync(Request, State(0), WirePeer.NoReply);
        Assert.Equal(State(0), [.. reply[..4], 0, 0, 0, 0]);
        return BitConverter.ToUInt32(reply, 4);
    }

    private static byte[] Region(bool packed) =>
        WirePeer.Bytes(new InflightPayload(packed ? 4096 : QueueBytes, 0, 1, RawRing.Size, 0));

    private static byte[] State(uint index, uint num = 0) => WirePeer.Bytes(new VringStatePayload(index, num));
}
