// SUSPEND: nothing is in flight, written or told until RESUME.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SuspendTests : LifeCycleTest
{
    protected override FrontendRequest Request => FrontendRequest.Suspend;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task Nothing_is_in_flight_served_or_told_until_the_resumption()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        RawRing ring = await AddRingAsync(peer);
        await ring.StartAsync(peer);
        await peer.DoAsync(FrontendRequest.SetStatus, 15UL);
        Rig.Device.Holds = true;
        ring.Submit();
        await Eventually.TrueAsync(() => Rig.Device.Held == 1, "a request is held");
        await peer.SendAsync(Request, WirePeer.NeedReply, []);
        await Task.Delay(20, TestContext.Current.CancellationToken);

        // It is answered when the request in flight has come to its end.
        Rig.Device.CompleteHeld();
        Assert.Equal(WirePeer.Bytes(0UL), await peer.ReplyAsync(Request));
        Assert.True(ring.HasUsed());
        int handled = Rig.Device.Handled;
        ring.Submit();
        await peer.ExpectServedAsync();
        Assert.Equal(handled, Rig.Device.Handled);
        Rig.Device.Holds = false;
        await peer.DoBytesAsync(FrontendRequest.Resume, []);
        await Eventually.TrueAsync(() => Rig.Device.Handled == handled + 1, "the request is served");
    }

    [Fact]
    public async Task A_reset_ends_it()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoBytesAsync(Request, []);
        await peer.DoBytesAsync(Request, []);
        await peer.DoAsync(FrontendRequest.SetStatus, (ulong)VirtioStatus.None);
        await peer.RefusedAsync(FrontendRequest.Resume, []);
        await peer.RefusedAsync(Request, []);
        await peer.ExpectServedAsync();
    }
}
