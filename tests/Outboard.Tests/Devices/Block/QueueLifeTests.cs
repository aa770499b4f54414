// Starting, stopping and breaking a queue, with requests that end late.
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Linux;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block;

public sealed class QueueLifeTests
{
    private const int Bytes = 1 << 20;

    [Fact]
    public async Task A_late_completion_wakes_whoever_stops()
    {
        HeldDisk disk = new(Bytes);
        await using BlockRig rig = await BlockRig.StartAsync(disk);
        rig.Prepare(BlockRequestType.In, 0);
        rig.Submit([rig.Header], [rig.Allocate(512), rig.Status]);
        await HeldAsync(rig, disk);
        Task<uint> stop = rig.StopQueueAsync();
        await rig.OnWorkerAsync(() => { });
        Assert.False(stop.IsCompleted);
        Assert.Equal(BlockRig.NoStatus, rig.Status.Span[0]);
        Assert.True(disk.Release());
        Assert.Equal(1u, await stop);
        Assert.Equal((byte)BlockStatus.Ok, rig.Status.Span[0]);
        Assert.True(rig.Queue.TryCollect(out _, out uint written));
        Assert.Equal(513u, written);
    }

    [Fact]
    public async Task A_late_completion_lets_new_memory_in()
    {
        HeldDisk disk = new(Bytes);
        await using BlockRig rig = await BlockRig.StartAsync(disk);
        rig.Prepare(BlockRequestType.In, 0);
        rig.Submit([rig.Header], [rig.Allocate(512), rig.Status]);
        await HeldAsync(rig, disk);
        Task<bool> adopted = rig.Running.AdoptAsync(rig.GuestMemory, keepsOldRegions: false);
        await rig.OnWorkerAsync(() => { });
        Assert.False(adopted.IsCompleted);
        Assert.True(disk.Release(-Errno.InputOutput));
        Assert.True(await BlockRig.Soon(adopted));
        rig.Collect();
        Assert.Equal((byte)BlockStatus.IoError, rig.Status.Span[0]);
    }

    [Fact]
    public async Task A_disabled_ring_keeps_its_requests()
    {
        await using BlockRig rig = await BlockRig.StartAsync(new MemoryDisk(Bytes));
        await BlockRig.Soon(rig.Running.EnableAsync(false));
        rig.Prepare(BlockRequestType.In, 0);
        rig.Submit([rig.Header], [rig.Allocate(512), rig.Status]);
        await rig.OnWorkerAsync(() => { });
        Assert.Equal(BlockRig.NoStatus, rig.Status.Span[0]);
        await BlockRig.Soon(rig.Running.EnableAsync(true));
        rig.Collect();
        Assert.Equal((byte)BlockStatus.Ok, rig.Status.Span[0]);
    }

    [Theory]
    [InlineData(VirtioFeatures.Version1)]
    [InlineData(VirtioFeatures.Version1 | VirtioFeatures.EventIndex)]
    public async Task A_ring_that_waits_for_its_first_kick_gets_it(ulong features)
    {
        BlockRigOptions options = new() { IsStarted = false, RingFeatures = features };
        await using BlockRig rig = await BlockRig.StartAsync(new MemoryDisk(Bytes), options);
        for (int i = 0; i < 100; i++)
        {
            await rig.OnWorkerAsync(() => { });
            Assert.Equal(BlockStatus.Ok, rig.Read(0, rig.Allocate(512)));
            uint next = await rig.StopQueueAsync();
            await rig.StartQueueAtAsync(next);
        }
    }

    [Fact]
    public async Task A_disk_that_breaks_parks_its_queue_and_can_be_stopped()
    {
        BrokenDisk disk = new(new InvalidOperationException("broken on start"));
        await using BlockRig rig = await BlockRig.StartAsync(disk);
        rig.Prepare(BlockRequestType.In, 0);
        rig.Submit([rig.Header], [rig.Allocate(512), rig.Status]);
        await rig.FailureSeen;
        await rig.StopQueueAsync();
        Assert.Equal("broken on start", rig.TakeFailure()!.Message);
    }

    /// <summary>What a handler posts is its own: if it breaks, its queue is parked, and the worker lives.</summary>
    [Fact]
    public async Task A_posted_action_that_breaks_parks_its_queue_and_no_other()
    {
        await using BlockRig rig = await BlockRig.StartAsync(new BrokenDisk(null));
        rig.Prepare(BlockRequestType.In, 0);
        rig.Submit([rig.Header], [rig.Allocate(512), rig.Status]);
        await rig.FailureSeen;
        await rig.OnWorkerAsync(() => { });
        await rig.StopQueueAsync();
        Assert.Equal("broken later", rig.TakeFailure()!.Message);
    }

    /// <summary>A request of a queue that failed and was stopped ends late: its buffers are gone.</summary>
    [Fact]
    public async Task A_late_completion_on_a_queue_that_failed_touches_nothing()
    {
        HeldDisk disk = new(Bytes) { FailsAfter = 1 };
        await using BlockRig rig = await BlockRig.StartAsync(disk);
        rig.Prepare(BlockRequestType.In, 0);
        rig.Submit([rig.Header], [rig.Allocate(512), rig.Status]);
        await HeldAsync(rig, disk);
        rig.Submit([rig.Header], [rig.Allocate(512), rig.Allocate(1)]);
        await rig.FailureSeen;
        await rig.StopQueueAsync();
        Assert.NotNull(rig.TakeFailure());
        Assert.True(disk.Release());
        await rig.OnWorkerAsync(() => { });
        Assert.Equal(BlockRig.NoStatus, rig.Status.Span[0]);
        Assert.False(rig.Queue.TryCollect(out _, out _));
    }

    [Fact]
    public async Task A_worker_that_cannot_begin_says_so_to_whoever_uses_it()
    {
        QueueWorkerOptions options = new()
        {
            OnThreadStart = () => throw new InvalidOperationException("no such processor"),
        };
        QueueWorker worker = new("broken", options);
        using DriverMemory memory = new(1 << 20);
        using MemoryDisk disk = new(Bytes);
        BlockDevice device = new(disk);
        SplitDriverQueue queue = new(0, 16, memory, 0);
        Task<RunningQueue> start = device.StartQueue(
            new()
            {
                Index = 0,
                Size = 16,
                Addresses = queue.Addresses,
                Base = 0,
                Features = 0,
                Memory = memory.Memory,
            },
            new QueueLinks(),
            worker);
        Exception? error = await Record.ExceptionAsync(() => BlockRig.Soon(start));
        Assert.IsNotType<TimeoutException>(error);
        Assert.Contains("no such processor", error!.ToString(), StringComparison.Ordinal);
        Assert.NotNull(await Record.ExceptionAsync(() => worker.DisposeAsync().AsTask()));
    }

    /// <summary>Waits until the disk has the request.</summary>
    private static async Task HeldAsync(BlockRig rig, HeldDisk disk)
    {
        while (disk.Held == 0)
        {
            await rig.OnWorkerAsync(() => { });
        }
    }

    /// <summary>Throws when an operation starts, or, without an exception of its own, in what it posts.</summary>
    private sealed class BrokenDisk(Exception? onStart) : Disk
    {
        public override long SizeBytes => Bytes;

        public override string Description => "broken";

        public override DiskQueue OpenQueue(IoContext context, IDiskQueueOwner owner, int depth) =>
            new Queue(onStart, context);

        public override void Dispose()
        {
        }

        private sealed class Queue(Exception? onStart, IoContext context) : DiskQueue
        {
            public override int Start(uint request, in DiskOperation operation, ReadOnlySpan<IoSegment> segments)
            {
                context.Post(() => throw new InvalidOperationException("broken later"));
                return onStart is null ? Pending : throw onStart;
            }
        }
    }
}
