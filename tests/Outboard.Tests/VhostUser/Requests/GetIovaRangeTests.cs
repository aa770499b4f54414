// GET_IOVA_RANGE: which bus addresses are possible.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GetIovaRangeTests : LifeCycleTest
{
    protected override FrontendRequest Request => FrontendRequest.GetIovaRange;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task Any_address_is_possible()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        byte[] reply = await peer.AskAsync(Request, [], WirePeer.NoReply);
        Assert.Equal(WirePeer.Bytes(new IovaRangePayload(0, ulong.MaxValue)), reply);
        Assert.NotEqual(VirtioStatus.None, (VirtioStatus)await peer.AskValueAsync(FrontendRequest.GetStatus));
    }
}
