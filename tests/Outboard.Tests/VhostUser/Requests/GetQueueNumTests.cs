// GET_QUEUE_NUM: the number of virtqueues.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GetQueueNumTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.GetQueueNum;

    protected override ProtocolFeatures Gate => ProtocolFeatures.MultiQueue;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task Tells_the_number_of_virtqueues_again_and_again()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        Assert.Equal(3UL, await peer.AskValueAsync(Request));
        Assert.Equal(3UL, await peer.AskValueAsync(Request, WirePeer.NeedReply));
    }
}
