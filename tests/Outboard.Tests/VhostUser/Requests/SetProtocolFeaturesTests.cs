// SET_PROTOCOL_FEATURES: known bits only; also without having asked what there is.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetProtocolFeaturesTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetProtocolFeatures;

    protected override byte[] GoodPayload => WirePeer.Bytes((ulong)WirePeer.AllProtocolFeatures);

    [Theory]
    [InlineData((ulong)ProtocolFeatures.InbandNotifications)]
    [InlineData((ulong)ProtocolFeatures.XenMmap)]
    [InlineData(1UL << 24)]
    [InlineData(1UL << 63)]
    [InlineData(ulong.MaxValue)]
    public Task Bits_that_were_not_offered_are_refused(ulong features) => ExpectRefusedAsync(WirePeer.Bytes(features));

    [Fact]
    public async Task Refused_features_leave_the_old_ones_in_force()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.RefusedAsync(Request, WirePeer.Bytes(ulong.MaxValue));
        Assert.Equal(3UL, await peer.AskValueAsync(FrontendRequest.GetQueueNum));
    }

    [Fact]
    public async Task Acknowledges_the_very_message_that_negotiates_acknowledgements()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.DoAsync(Request, (ulong)ProtocolFeatures.ReplyAck);
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task Giving_up_acknowledgements_is_not_acknowledged()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.SendAsync(Request, WirePeer.NeedReply, WirePeer.Bytes(0UL));
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task No_features_at_all_are_fine()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync(ProtocolFeatures.None);
        await peer.ExpectServedAsync();
    }
}
