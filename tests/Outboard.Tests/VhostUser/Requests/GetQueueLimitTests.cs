// GET_QUEUE_LIMIT: the largest size of a queue.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GetQueueLimitTests : LifeCycleTest
{
    protected override FrontendRequest Request => FrontendRequest.GetQueueLimit;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => WirePeer.Bytes(new VringStatePayload(1, 0));

    [Fact]
    public async Task Tells_each_queues_largest_size()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        for (uint queue = 0; queue < 3; queue++)
        {
            byte[] reply = await peer.AskAsync(
                Request, WirePeer.Bytes(new VringStatePayload(queue, 0)), WirePeer.NoReply);
            uint expected = queue < 2 ? 64u : FakeDevice.SmallestQueueSize;
            Assert.Equal(WirePeer.Bytes(new VringStatePayload(queue, expected)), reply);
        }
    }

    [Theory]
    [InlineData(3)]
    [InlineData(uint.MaxValue)]
    public Task A_queue_that_is_not_there_is_refused(uint queue) =>
        ExpectRefusedAsync(WirePeer.Bytes(new VringStatePayload(queue, 0)));
}
