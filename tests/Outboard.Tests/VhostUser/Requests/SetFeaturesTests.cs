// SET_FEATURES: what the driver accepts; several times, also while rings run.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetFeaturesTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetFeatures;

    protected override byte[] GoodPayload => WirePeer.Bytes(WirePeer.Features);

    [Theory]
    [InlineData(VirtioFeatures.NotificationData)]
    [InlineData(1UL << 1)]
    [InlineData(1UL << 63)]
    [InlineData(ulong.MaxValue)]
    public Task Bits_that_were_not_offered_are_refused(ulong features) => ExpectRefusedAsync(WirePeer.Bytes(features));

    [Fact]
    public async Task Refused_features_change_nothing_and_clear_features_ok()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoAsync(FrontendRequest.SetStatus, (ulong)VirtioStatus.FeaturesOk);
        await peer.RefusedAsync(Request, WirePeer.Bytes(ulong.MaxValue));
        Assert.Equal(WirePeer.Features & ~VirtioFeatures.ProtocolFeatures, Rig.Device.NegotiatedFeatures);
        Assert.Equal(0UL, await peer.AskValueAsync(FrontendRequest.GetStatus));
    }

    [Fact]
    public async Task Features_ok_does_not_stick_after_refused_features()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.RefusedAsync(Request, WirePeer.Bytes(ulong.MaxValue));
        await peer.DoAsync(FrontendRequest.SetStatus, (ulong)VirtioStatus.FeaturesOk);
        Assert.Equal(0UL, await peer.AskValueAsync(FrontendRequest.GetStatus));
        await peer.DoAsync(Request, WirePeer.Features);
        await peer.DoAsync(FrontendRequest.SetStatus, (ulong)VirtioStatus.FeaturesOk);
        Assert.Equal((ulong)VirtioStatus.FeaturesOk, await peer.AskValueAsync(FrontendRequest.GetStatus));
    }

    [Fact]
    public async Task Device_learns_the_last_set_without_the_protocol_bit()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoAsync(Request, WirePeer.Features | 1);
        Assert.Equal(VirtioFeatures.Version1 | 1, Rig.Device.NegotiatedFeatures);
        await peer.DoAsync(Request, WirePeer.Features | VirtioFeatures.EventIndex);
        Assert.Equal(VirtioFeatures.Version1 | VirtioFeatures.EventIndex, Rig.Device.NegotiatedFeatures);
    }

    [Fact]
    public async Task Ring_reset_is_tolerated_and_not_negotiated()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoAsync(Request, WirePeer.Features | VirtioFeatures.RingReset);
        Assert.Equal(VirtioFeatures.Version1, Rig.Device.NegotiatedFeatures);
    }
}
