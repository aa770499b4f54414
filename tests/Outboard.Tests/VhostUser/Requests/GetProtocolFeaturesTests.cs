// GET_PROTOCOL_FEATURES: what is built, and nothing else.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GetProtocolFeaturesTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.GetProtocolFeatures;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task Offers_exactly_what_is_built_before_any_other_message()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        Assert.Equal((ulong)WirePeer.OfferedProtocolFeatures, await peer.AskValueAsync(Request));
    }

    [Fact]
    public async Task In_band_notifications_and_xen_are_never_offered_by_default()
    {
        // A known front-end accepts these bits although it has neither.
        using WirePeer peer = await Rig.ConnectAsync();
        ulong offered = await peer.AskValueAsync(Request);
        Assert.Equal(0UL, offered & (ulong)(ProtocolFeatures.InbandNotifications | ProtocolFeatures.XenMmap));
    }
}
