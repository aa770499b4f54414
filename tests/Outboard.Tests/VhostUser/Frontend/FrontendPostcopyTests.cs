// A post-copy without a virtual machine: a back-end serves rings whose memory has not come; our front-end is the
// destination, and serves the pages from a copy.
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Frontend;

public sealed class FrontendPostcopyTests : BackendTest
{
    private const int Requests = 40;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(true, false)]
    [InlineData(false, false)]
    [InlineData(true, true)]
    public async Task Requests_in_memory_that_has_not_come_are_served(bool hasSlots, bool isPacked)
    {
        VhostUserFrontendOptions options = new() { UsePacked = isPacked };
        options = options with
        {
            ProtocolFeatures = options.ProtocolFeatures & ~(hasSlots ? 0 : ProtocolFeatures.ConfigureMemSlots),
        };
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync(options);
        DriverMemory memory = Rig.Memory(1 << 20);
        DriverQueue ring = DriverQueue.Create(0, 64, memory, frontend.Features);
        DriverBuffer[] requests = [.. Enumerable.Range(0, Requests).Select(_ => memory.Allocate(64, 4096))];
        DriverBuffer[] answers = [.. Enumerable.Range(0, Requests).Select(_ => memory.Allocate(64, 4096))];
        for (int i = 0; i < 20; i++)
        {
            requests[i].Span.Fill((byte)(i + 1));
            Assert.True(ring.TryAdd([requests[i]], [answers[i]], (uint)i));
        }

        ring.Publish();
        byte[] copy = memory.Memory.Regions[0].Segment.Span.ToArray();
        ReadOnlyMemory<byte> Source(DriverMemory _, ulong offset) =>
            copy.AsMemory((int)offset, PostcopyPages.PageBytes);

        PostcopyPages.Empty(memory);
        using PostcopyPages pages = await frontend.PostcopyAdviseAsync(Token);
        await frontend.PostcopyListenAsync(Token);
        await frontend.ShareMemoryAsync(memory, Token);
        using CancellationTokenSource end = new();
        Task serving = pages.ServeAsync(Source, end.Token);
        using FrontendQueue queue = await StartAsync(frontend, ring, memory);
        Assert.True(queue.Call.Wait(20_000) > 0, "the ring is served");
        Assert.True(pages.FaultCount > 0);
        Assert.True(pages.PlaceRest(Source) > 0);
        Assert.Equal(0, pages.PlaceRest(Source));
        await frontend.PostcopyEndAsync(Token);
        await end.CancelAsync();
        await serving;

        for (int i = 0; i < 20; i++)
        {
            await Eventually.TrueAsync(() => ring.TryCollect(out _, out _), "a request is answered");
        }

        Assert.All(Enumerable.Range(0, 20), i => Assert.Equal((byte)(i + 1), answers[i].Span[63]));
        await frontend.StopQueueAsync(queue, Token);
    }

    [Fact]
    public async Task Back_end_that_may_not_is_told_apart()
    {
        await using ScriptedBackend backend = new();
        await backend.NegotiateAsync();
        Task<PostcopyPages> asking = backend.Frontend.PostcopyAdviseAsync(Token);
        await backend.ExpectAsync(FrontendRequest.PostcopyAdvise);
        await backend.ReplyAsync(FrontendRequest.PostcopyAdvise, []);
        ProtocolException refusal = await Assert.ThrowsAsync<ProtocolException>(() => asking);
        Assert.False(refusal.IsFatal);
    }

    private static async Task<FrontendQueue> StartAsync(
        VhostUserFrontend frontend, DriverQueue ring, DriverMemory memory)
    {
        FrontendQueue queue = new(ring, memory);
        await frontend.ResumeQueueAsync(queue, ring.InitialBase, Token);
        return queue;
    }
}
