// GET_QUEUE_STATE: where a queue stands.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GetQueueStateTests : LifeCycleTest
{
    protected override FrontendRequest Request => FrontendRequest.GetQueueState;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => WirePeer.Bytes(new VringStatePayload(1, 0));

    [Fact]
    public async Task Tells_where_a_queue_stands_while_it_runs_and_after()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        RawRing ring = await AddRingAsync(peer);
        Assert.Equal(new QueueStatePayload(0, QueueStateFlags.None, 0, 0), await StateAsync(peer, 0));
        await ring.StartAsync(peer);
        await peer.DoAsync(FrontendRequest.SetStatus, 15UL);
        await ring.RoundTripAsync();
        await ring.RoundTripAsync();
        const QueueStateFlags runs = QueueStateFlags.Started | QueueStateFlags.Enabled;
        Assert.Equal(new QueueStatePayload(0, runs, 2, RawRing.Size), await StateAsync(peer, 0));
        Assert.Equal(2u, await ring.StopAsync(peer));
        Assert.Equal(QueueStateFlags.Enabled, (await StateAsync(peer, 0)).Flags);
        Assert.Equal(2u, (await StateAsync(peer, 0)).Base);
        await peer.DoAsync(FrontendRequest.SetStatus, (ulong)VirtioStatus.None);
        Assert.Equal((QueueStateFlags.None, 0u), ((await StateAsync(peer, 0)).Flags, (await StateAsync(peer, 0)).Base));
    }

    [Theory]
    [InlineData(3)]
    [InlineData(uint.MaxValue)]
    public Task A_queue_that_is_not_there_is_refused(uint queue) =>
        ExpectRefusedAsync(WirePeer.Bytes(new VringStatePayload(queue, 0)));

    private async Task<QueueStatePayload> StateAsync(WirePeer peer, uint queue)
    {
        byte[] reply =
            await peer.AskAsync(Request, WirePeer.Bytes(new VringStatePayload(queue, 0)), WirePeer.NoReply);
        return System.Runtime.InteropServices.MemoryMarshal.Read<QueueStatePayload>(reply);
    }
}
