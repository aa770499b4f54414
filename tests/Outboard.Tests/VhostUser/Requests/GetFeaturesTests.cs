// GET_FEATURES: what the device and the rings offer.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GetFeaturesTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.GetFeatures;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task Offers_device_ring_and_protocol_bits_before_and_after_negotiation()
    {
        const ulong expected = FakeDevice.OwnFeatures | VirtioFeatures.OfferedByRings | VirtioFeatures.ProtocolFeatures
            | VirtioFeatures.LogAll | VirtioFeatures.AccessPlatform;
        using WirePeer peer = await Rig.ConnectAsync();
        Assert.Equal(expected, await peer.AskValueAsync(Request));
        await peer.NegotiateAsync();
        Assert.Equal(expected, await peer.AskValueAsync(Request));
    }

    [Fact]
    public async Task Never_offers_what_is_not_built()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        ulong offered = await peer.AskValueAsync(Request);
        Assert.Equal(0UL, offered & VirtioFeatures.NotificationData);
    }

    [Fact]
    public async Task In_order_is_offered_on_request_and_nothing_else_is()
    {
        using WirePeer plain = await Rig.ConnectAsync();
        ulong usual = await plain.AskValueAsync(Request);
        Assert.Equal(0UL, usual & VirtioFeatures.InOrder);
        await using BackendRig rig = new(options => options with { AdditionalFeatures = ulong.MaxValue });
        using WirePeer peer = await rig.ConnectAsync();
        Assert.Equal(usual | VirtioFeatures.InOrder, await peer.AskValueAsync(Request));
    }

    [Fact]
    public async Task Hundred_requests_in_one_write_have_hundred_replies()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        byte[] one = WirePeer.Frame((uint)Request, WirePeer.NoReply, []);
        await peer.SendAsync([.. Enumerable.Repeat(one, 100).SelectMany(bytes => bytes)]);
        for (int i = 0; i < 100; i++)
        {
            Assert.Equal(8, (await peer.ReplyAsync(Request)).Length);
        }

        await peer.ExpectServedAsync();
    }
}
