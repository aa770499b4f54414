// GET_STATUS: what was set, and whether the device needs a reset.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GetStatusTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.GetStatus;

    protected override ProtocolFeatures Gate => ProtocolFeatures.Status;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task Is_zero_at_first_and_on_every_new_connection()
    {
        using (WirePeer first = await ConnectPreparedAsync())
        {
            Assert.Equal(0UL, await first.AskValueAsync(Request));
            await first.DoAsync(FrontendRequest.SetStatus, 0xFUL);
        }

        using WirePeer second = await ConnectPreparedAsync();
        Assert.Equal(0UL, await second.AskValueAsync(Request));
    }

    [Fact]
    public async Task Tells_that_a_broken_ring_needs_a_reset_until_there_was_one()
    {
        const ulong needsReset = (ulong)VirtioStatus.DeviceNeedsReset;
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await peer.DoAsync(FrontendRequest.SetStatus, 0xFUL);
        await ring.StartAsync(peer);
        await RawRing.RemoveMemoryAsync(peer, ring.Memory);
        Assert.Equal(0xFUL | needsReset, await peer.AskValueAsync(Request));
        await peer.DoAsync(FrontendRequest.SetStatus, 0xFUL);
        Assert.Equal(0xFUL | needsReset, await peer.AskValueAsync(Request));
        await peer.DoBytesAsync(FrontendRequest.ResetDevice, []);
        Assert.Equal(0UL, await peer.AskValueAsync(Request));
    }

    [Fact]
    public async Task Status_zero_ends_the_need_for_a_reset()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await RawRing.RemoveMemoryAsync(peer, ring.Memory);
        await peer.DoAsync(FrontendRequest.SetStatus, 0UL);
        Assert.Equal(0UL, await peer.AskValueAsync(Request));
    }
}
