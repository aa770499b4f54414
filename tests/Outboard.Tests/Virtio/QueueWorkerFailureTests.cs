// Our own bugs in a device: they park a queue, are told, and never keep a transport waiting.
using Outboard.Linux.Files;
using Outboard.Tests.Linux;
using Outboard.Tests.Virtio.Rig;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class QueueWorkerFailureTests : IAsyncDisposable
{
    private readonly QueueWorker _worker = new("test");

    public ValueTask DisposeAsync() => _worker.DisposeAsync();

    [Fact]
    public async Task An_exception_in_a_request_parks_its_queue()
    {
        SumDevice device = new(2);
        device.OnRequest = queue => _ = queue == 0 ? throw new InvalidOperationException("broken") : 0;
        await using ServedRing broken = await ServedRing.StartAsync(device, _worker, index: 0);
        await using ServedRing good = await ServedRing.StartAsync(device, _worker, index: 1);
        broken.Submit(1);
        Assert.IsType<InvalidOperationException>(broken.TakeFailure());
        broken.Kick();
        good.Submit(1);
        Assert.Equal(1u, good.Collect());
        await Soon(broken.StopAsync());
        Assert.Empty(broken.Failures);
        good.Submit(2);
        Assert.Equal(2u, good.Collect());
    }

    [Theory]
    [InlineData("Drain")]
    [InlineData("HasBacklog")]
    [InlineData("Quiesce")]
    [InlineData("Dispose")]
    public async Task A_handler_that_breaks_anywhere_can_be_stopped(string place)
    {
        string PlaceIn(QueueContext context) => context.Queue.Index == 0 ? place : "nowhere";
        LoopDevice device = new(context => new BreakingHandler(context, PlaceIn(context)), 2);
        await using ServedRing other = await ServedRing.StartAsync(device, _worker, index: 1);
        await using ServedRing broken = await ServedRing.StartAsync(device, _worker, index: 0);
        broken.Submit(1);
        broken.Kick();
        bool breaksWhileServed = place is "Drain" or "HasBacklog";
        Exception? error = breaksWhileServed ? broken.TakeFailure() : null;
        await Soon(broken.StopAsync());
        error ??= broken.TakeFailure();
        Assert.Contains(place, error.Message, StringComparison.Ordinal);
        await Soon(other.StopAsync());
        await using ServedRing next = await ServedRing.StartAsync(new SumDevice(), _worker);
        next.Submit(3);
        Assert.Equal(3u, next.Collect());
    }

    [Fact]
    public async Task A_handler_that_cannot_be_made_leaves_nothing()
    {
        LoopDevice device = new(_ => throw new InvalidOperationException("no handler"));
        await Assert.ThrowsAsync<InvalidOperationException>(() => ServedRing.StartAsync(device, _worker));
        await using ServedRing next = await ServedRing.StartAsync(new SumDevice(), _worker);
        next.Submit(3);
        Assert.Equal(3u, next.Collect());
    }

    [Fact]
    public async Task Completing_twice_from_another_thread_is_told()
    {
        HoldDevice device = new();
        await using ServedRing ring = await ServedRing.StartAsync(device, _worker);
        ring.Submit(1);
        PendingRequest request = device.Take();
        request.Complete(0);
        Assert.Equal(1u, ring.Collect());
        request.Complete(0);
        Assert.IsType<InvariantException>(ring.TakeFailure());
        await Soon(ring.StopAsync());
    }

    [Fact]
    public async Task A_request_of_a_queue_that_failed_may_be_completed_late()
    {
        HoldDevice device = new();
        PendingRequest request;
        await using (ServedRing ring = await ServedRing.StartAsync(device, _worker))
        {
            ring.Submit(1);
            request = device.Take();
            ring.Submit(2);
            PendingRequest second = device.Take();
            second.Complete(0);
            second.Complete(0);
            ring.TakeFailure();
            await Soon(ring.StopAsync());
        }

        request.Complete(0);
        await _worker.InvokeAsync(() => { });
        await _worker.DisposeAsync();
        request.Complete(0);
    }

    [Fact]
    public async Task A_failed_queue_is_stopped_although_its_neighbours_are_busy_with_files()
    {
        using TemporaryFile path = TemporaryFile.OnDisk(4096);
        using BlockFile file = BlockFile.Open(path.Path);
        using SemaphoreSlim completions = new(0);
        LoopDevice busy = new(context => new BusyFileHandler(context, file, () => completions.Release()));
        await using ServedRing neighbour = await ServedRing.StartAsync(busy, _worker);
        neighbour.Submit(1);
        await completions.WaitAsync(TestContext.Current.CancellationToken);
        HoldDevice device = new();
        await using ServedRing broken = await ServedRing.StartAsync(device, _worker);
        broken.Submit(1);
        broken.Submit(2);
        device.Take();
        PendingRequest second = device.Take();
        second.Complete(0);
        second.Complete(0);
        Assert.IsType<InvariantException>(broken.TakeFailure());
        await Soon(broken.StopAsync());
        Assert.Equal(1u, await Soon(neighbour.StopAsync()));
    }

    [Fact]
    public async Task A_worker_that_has_ended_keeps_nobody_waiting()
    {
        SumDevice device = new();
        await _worker.DisposeAsync();
        await Soon(Assert.ThrowsAnyAsync<Exception>(() => ServedRing.StartAsync(device, _worker)));
    }

    [Fact]
    public async Task A_worker_whose_thread_cannot_start_tells_whoever_uses_it()
    {
        QueueWorker worker = new(
            "test", new QueueWorkerOptions { OnThreadStart = () => throw new InvalidOperationException("no CPU") });
        await Soon(Assert.ThrowsAsync<InvalidOperationException>(() => ServedRing.StartAsync(new SumDevice(), worker)));
        await Soon(Assert.ThrowsAsync<InvalidOperationException>(() => worker.DisposeAsync().AsTask()));
    }

    [Fact]
    public async Task A_ring_that_is_set_up_wrong_is_refused_and_the_worker_goes_on()
    {
        using DriverMemory memory = new(1 << 16);
        SumDevice device = new();
        VringSetup setup = new()
        {
            Index = 0,
            Size = 16,
            Addresses = new VringAddresses(1, 2, 3),
            Base = 0,
            Features = VirtioFeatures.Version1,
            Memory = memory.Memory,
        };
        await Assert.ThrowsAsync<VringSetupException>(() => device.StartQueue(setup, new QueueLinks(), _worker));
        await using ServedRing ring = await ServedRing.StartAsync(device, _worker);
        ring.Submit(1);
        Assert.Equal(1u, ring.Collect());
    }

    private static async Task<T> Soon<T>(Task<T> task) =>
        await task.WaitAsync(TimeSpan.FromMilliseconds(ServedRing.PatienceMs));
}
