// Queues on a worker's thread: the three levels of a device, and everything that a transport does to a running queue.
using Outboard.Linux.Files;
using Outboard.Memory;
using Outboard.Tests.Linux;
using Outboard.Tests.Virtio.Rig;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class QueueWorkerTests : IAsyncDisposable
{
    private const ulong Split = RawRing.FeatureVersion1;
    private const ulong Packed = RawRing.FeatureVersion1 | RawRing.FeaturePacked;
    private const ulong EventIndex = RawRing.FeatureEventIndex;

    private readonly QueueWorker _worker = new("test");

    public ValueTask DisposeAsync() => _worker.DisposeAsync();

    [Theory]
    [InlineData(Split)]
    [InlineData(Split | EventIndex)]
    [InlineData(Packed)]
    [InlineData(Packed | EventIndex)]
    public async Task Level_a_answers_at_once(ulong features)
    {
        await using ServedRing ring = await ServedRing.StartAsync(new SumDevice(), _worker, features: features);
        ring.Buffer.Span[..8].Fill(5);
        for (uint i = 0; i < 100; i++)
        {
            ring.Submit(i);
            Assert.Equal(i, ring.Collect(out uint written));
            Assert.Equal(4u, written);
            Assert.Equal(40u, BitConverter.ToUInt32(ring.Buffer.Span[8..]));
        }
    }

    [Theory]
    [InlineData(Split)]
    [InlineData(Split | EventIndex)]
    [InlineData(Packed)]
    public async Task A_worker_that_polls_without_end_needs_no_kick(ulong features)
    {
        QueueWorkerOptions options = new() { MaxPolling = Timeout.InfiniteTimeSpan };
        await using QueueWorker worker = new("busy", options);
        for (int life = 0; life < 3; life++)
        {
            // Between two lives the worker has no queue, and sleeps.
            await using ServedRing ring = await ServedRing.StartAsync(
                new SumDevice(), worker, features: features, isStarted: true);
            for (uint i = 0; i < 100; i++)
            {
                Assert.True(ring.Driver.TryAdd([ring.Buffer.Slice(0, 8)], [ring.Buffer.Slice(8, 4)], i));
                ring.Driver.Publish();
                Assert.Equal(i, ring.Collect());
            }
        }
    }

    [Fact]
    public async Task Level_b_completes_from_another_thread_in_any_order()
    {
        HoldDevice device = new();
        await using ServedRing ring = await ServedRing.StartAsync(device, _worker);
        for (uint i = 0; i < 5; i++)
        {
            ring.Submit(i);
        }

        PendingRequest[] held = [.. Enumerable.Range(0, 5).Select(_ => device.Take())];
        foreach (int i in new[] { 3, 0, 4, 1, 2 })
        {
            held[i].Complete((uint)(100 + i));
            Assert.Equal((uint)i, ring.Collect(out uint written));
            Assert.Equal((uint)(100 + i), written);
        }
    }

    [Fact]
    public async Task Level_b_completes_requests_of_another_queue_of_the_thread()
    {
        RelayDevice device = new();
        await using ServedRing waiting = await ServedRing.StartAsync(device, _worker, index: 0);
        await using ServedRing poking = await ServedRing.StartAsync(device, _worker, index: 1);
        for (uint i = 0; i < 200; i++)
        {
            waiting.Submit(i);

            // A worker that is awake without a queue to look at sees a kick later than what was posted after it.
            await VhostUser.Eventually.TrueAsync(() => device.Held == 1, "the request is held");
            poking.Submit(i);
            Assert.Equal(i, waiting.Collect(out uint written));
            Assert.Equal(7u, written);
            Assert.Equal(i, poking.Collect());
        }
    }

    [Fact]
    public async Task Level_c_owns_its_loop()
    {
        // A worker that never polls takes all that is there in one go.
        await using QueueWorker worker = new("loop", new QueueWorkerOptions { MaxPolling = TimeSpan.Zero });
        LoopDevice device = new(context => new ReverseHandler(context));
        await using ServedRing ring = await ServedRing.StartAsync(device, worker, isEnabled: false, isStarted: true);
        for (uint i = 0; i < 4; i++)
        {
            ring.Submit(i);
        }

        await ring.Queue.EnableAsync(true);
        Assert.Equal([3u, 2u, 1u, 0u], Enumerable.Range(0, 4).Select(_ => ring.Collect()).ToArray());
    }

    [Theory]
    [InlineData(FileIoEngineKind.Automatic)]
    [InlineData(FileIoEngineKind.Threads)]
    public async Task Level_c_has_asynchronous_files(FileIoEngineKind kind)
    {
        using TemporaryFile path = TemporaryFile.OnDisk(4096);
        await File.WriteAllBytesAsync(path.Path, [1, 2, 3, 4, 5, 6], TestContext.Current.CancellationToken);
        using BlockFile file = BlockFile.Open(path.Path);
        await using QueueWorker worker = new("files", new QueueWorkerOptions { FileEngine = kind });
        LoopDevice device = new(context => new FileHandler(context, file));
        await using ServedRing ring = await ServedRing.StartAsync(device, worker);
        for (uint i = 0; i < 50; i++)
        {
            ring.Submit(i);
            Assert.Equal(i, ring.Collect(out uint written));
            Assert.Equal(4u, written);
            Assert.Equal([1, 2, 3, 4], ring.Buffer.Span.Slice(8, 4).ToArray());
        }
    }

    [Fact]
    public async Task One_worker_serves_many_queues()
    {
        const int count = 40;
        SumDevice device = new(count);
        List<ServedRing> rings = [];
        for (int i = 0; i < count; i++)
        {
            rings.Add(await ServedRing.StartAsync(device, _worker, index: i));
        }

        for (uint round = 0; round < 20; round++)
        {
            rings.ForEach(ring => ring.Submit(round));
            Assert.All(rings, ring => Assert.Equal(round, ring.Collect()));
        }

        foreach (ServedRing ring in rings)
        {
            await ring.DisposeAsync();
        }
    }

    [Fact]
    public async Task A_stop_waits_for_what_is_in_flight_and_tells_where_it_stands()
    {
        HoldDevice device = new();
        await using ServedRing ring = await ServedRing.StartAsync(device, _worker);
        ring.Submit(1);
        ring.Submit(2);
        PendingRequest first = device.Take();
        PendingRequest second = device.Take();
        Task<uint> stop = ring.StopAsync();
        ring.Submit(3);
        second.Complete(0);
        await Settle();
        Assert.False(stop.IsCompleted);
        first.Complete(0);
        Assert.Equal(2u, await stop);
        Assert.Equal(2u, ring.Collect());
        Assert.Equal(1u, ring.Collect());
        Assert.Equal(0, device.HeldCount);
    }

    [Fact]
    public async Task A_queue_is_stopped_once()
    {
        await using ServedRing ring = await ServedRing.StartAsync(new SumDevice(), _worker);
        await ring.StopAsync();
        await Assert.ThrowsAsync<InvariantException>(() => ring.Queue.StopAsync());
        await Assert.ThrowsAsync<InvariantException>(() => ring.Queue.AdoptAsync(ring.Memory.Memory, false));
        await ring.Queue.EnableAsync(true);
        await ring.Queue.StartAsync();
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Other_memory_is_adopted_when_nothing_of_the_old_one_is_in_use(bool keepsOldRegions)
    {
        HoldDevice device = new();
        await using ServedRing ring = await ServedRing.StartAsync(device, _worker);
        ring.Submit(1);
        PendingRequest held = device.Take();
        Task<bool> adopt = ring.Queue.AdoptAsync(GuestMemory.Create(ring.Memory.Memory.Regions), keepsOldRegions);
        await Settle();
        if (!keepsOldRegions)
        {
            Assert.False(adopt.IsCompleted);
            ring.Submit(2);
            await Settle();
            Assert.Equal(0, device.HeldCount);
            await Assert.ThrowsAsync<InvariantException>(() => ring.Queue.AdoptAsync(ring.Memory.Memory, true));
        }

        held.Complete(0);
        Assert.True(await adopt);
        Assert.Equal(1u, ring.Collect());
        if (!keepsOldRegions)
        {
            device.Take().Complete(0);
            Assert.Equal(2u, ring.Collect());
        }
    }

    [Theory]
    [InlineData(true, Split)]
    [InlineData(false, Split)]
    [InlineData(false, Packed)]
    public async Task A_ring_that_is_not_in_the_new_memory_is_parked_and_not_touched(
        bool keepsOldRegions, ulong features)
    {
        using DriverMemory memory = new(1 << 20);
        await using ServedRing ring = await ServedRing.StartAsync(
            new SumDevice(), _worker, isStarted: true, memory: memory, features: features);
        Assert.False(await ring.Queue.AdoptAsync(GuestMemory.Empty, keepsOldRegions));
        Assert.Equal([VirtqueueFault.RingOutsideMemory], ring.Faults);
        memory.Dispose();
        for (int i = 0; i < 10; i++)
        {
            ring.Kick();
            await Settle();
        }

        await ring.Queue.EnableAsync(true);
        await ring.StopAsync();
        Assert.Empty(ring.Failures);
    }

    [Fact]
    public async Task A_disabled_ring_keeps_its_requests()
    {
        SumDevice device = new();
        int handled = 0;
        device.OnRequest = _ => Interlocked.Increment(ref handled);
        await using ServedRing ring = await ServedRing.StartAsync(device, _worker, isEnabled: false);
        ring.Submit(1);
        ring.Kick();
        await Settle();
        Assert.Equal(0, Volatile.Read(ref handled));
        await ring.Queue.EnableAsync(true);
        Assert.Equal(1u, ring.Collect());
        await ring.Queue.EnableAsync(false);
        ring.Submit(2);
        ring.Kick();
        await Settle();
        Assert.Equal(1, Volatile.Read(ref handled));
        await ring.Queue.EnableAsync(true);
        Assert.Equal(2u, ring.Collect());
    }

    [Theory]
    [InlineData(Split)]
    [InlineData(Split | EventIndex)]
    [InlineData(Packed)]
    public async Task A_ring_starts_at_its_first_kick(ulong features)
    {
        SumDevice device = new();
        await using ServedRing ring = await ServedRing.StartAsync(device, _worker, features: features);
        Assert.True(ring.Driver.TryAdd([], [ring.Buffer], 1));
        ring.Driver.Publish();
        await Settle();
        Assert.False(ring.Queue.IsStarted);
        Assert.True(ring.Driver.ShouldKick(), "the driver is asked for the kick that starts the ring");
        ring.Kick();
        Assert.Equal(1u, ring.Collect());
        Assert.True(ring.Queue.IsStarted);
    }

    [Fact]
    public async Task A_driver_that_a_dead_device_told_not_to_kick_is_asked_again()
    {
        // used.flags is where a process that was killed left it.
        await using ServedRing ring = await ServedRing.StartAsync(
            new SumDevice(),
            _worker,
            prepare: ring =>
            {
                Assert.True(ring.Memory.Memory.TryGetWindow(ring.Driver.Addresses.Used, 2, out MemoryWindow flags));
                flags.Write(0, SplitRing.NoNotify);
            });
        await Settle();
        ring.Submit(1);
        Assert.Equal(1u, ring.Collect());
    }

    [Theory]
    [InlineData(Split)]
    [InlineData(Split | EventIndex)]
    [InlineData(Packed | EventIndex)]
    public async Task A_stopped_ring_asks_for_the_kick_that_its_next_device_waits_for(ulong features)
    {
        await using ServedRing ring = await ServedRing.StartAsync(new SumDevice(), _worker, features: features);
        for (uint i = 0; i < 50; i++)
        {
            ring.Submit(i);
            ring.Collect();
        }

        await ring.StopAsync();
        Assert.True(ring.Driver.TryAdd([], [ring.Buffer], 1));
        ring.Driver.Publish();
        Assert.True(ring.Driver.ShouldKick());
    }

    [Fact]
    public async Task A_ring_without_kicks_is_polled()
    {
        await using ServedRing ring = await ServedRing.StartAsync(new SumDevice(), _worker, isPolled: true);
        await using ServedRing other = await ServedRing.StartAsync(new SumDevice(), _worker);
        for (uint i = 0; i < 100; i++)
        {
            Assert.True(ring.Driver.TryAdd([], [ring.Buffer], i));
            ring.Driver.Publish();
            Assert.Equal(i, ring.Collect());
            other.Submit(i);
            Assert.Equal(i, other.Collect());
        }
    }

    [Fact]
    public async Task A_call_notifier_is_replaced_and_taken_away()
    {
        await using ServedRing ring = await ServedRing.StartAsync(new SumDevice(), _worker);
        using Outboard.Linux.Events.EventFd call = new();
        await ring.Queue.ReplaceCallAsync(new EventFdNotifier(new(call.Descriptor.Duplicate())));
        Assert.Equal(1UL, call.Take());
        ring.TakeCalls();
        ring.Submit(1);
        Assert.True(call.Wait(ServedRing.PatienceMs) > 0);
        Assert.Equal(0UL, ring.TakeCalls());
        using Notifier? taken = await ring.Queue.TakeCallAsync();
        Assert.NotNull(taken);
        await ring.StopAsync();
        taken.Signal();
        Assert.True(call.Take() > 0);
    }

    [Fact]
    public async Task A_fault_parks_one_queue_and_no_other()
    {
        SumDevice device = new(2);
        await using ServedRing broken = await ServedRing.StartAsync(device, _worker, index: 0);
        await using ServedRing good = await ServedRing.StartAsync(device, _worker, index: 1);
        Assert.True(broken.Driver.TryAdd([new DriverBuffer(0, broken.Buffer.Memory)], [], 1));
        broken.Driver.Publish();
        broken.Kick();
        good.Submit(1);
        Assert.Equal(1u, good.Collect());
        await Settle();
        Assert.Equal([VirtqueueFault.BufferOutsideMemory], broken.Faults);
        broken.Kick();
        await Settle();
        Assert.Single(broken.Faults);
        Assert.Equal(0u, await broken.StopAsync());
        Assert.Empty(broken.Failures);
    }

    /// <summary>Lets the worker's thread come around: what was posted before is done, several times over.</summary>
    private async Task Settle()
    {
        for (int i = 0; i < 3; i++)
        {
            await _worker.InvokeAsync(() => { });
        }
    }
}
