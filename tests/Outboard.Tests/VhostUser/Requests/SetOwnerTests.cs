// SET_OWNER: first, late, twice, or never.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetOwnerTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetOwner;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task May_come_first_late_and_twice()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.SendAsync(Request, WirePeer.NoReply, []);
        await peer.NegotiateAsync();
        await peer.DoBytesAsync(Request, []);
        await peer.DoBytesAsync(Request, []);
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task Need_reply_before_reply_ack_is_not_answered()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.SendAsync(Request, WirePeer.NeedReply, []);
        await peer.ExpectServedAsync();
    }
}
