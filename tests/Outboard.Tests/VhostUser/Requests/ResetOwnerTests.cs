// RESET_OWNER, deprecated: disables rings, keeps everything else.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class ResetOwnerTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.ResetOwner;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task Rings_are_disabled_and_nothing_is_lost()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
        await peer.DoBytesAsync(Request, []);
        ring.Submit(2);
        await ring.EnableAsync(peer);
        await ring.ExpectEchoAsync(2);
        Assert.Equal(2U, await ring.StopAsync(peer));
    }

    [Fact]
    public async Task Without_rings_it_does_nothing()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoBytesAsync(Request, []);
        await peer.DoBytesAsync(Request, []);
        await peer.ExpectServedAsync();
    }
}
