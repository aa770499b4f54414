// A device's queues without a transport: a worker on one side, the driver's ring on the other, eventfds between them.
using Outboard.Linux.Events;
using Outboard.Tests.VhostUser;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices;

/// <summary>Drives a device in this process.</summary>
internal sealed class QueueRig : IAsyncDisposable
{
    private readonly VirtioDevice _device;
    private readonly QueueWorker _worker;
    private readonly List<DrivenQueue> _queues = [];

    public QueueRig(VirtioDevice device, ulong features = 0, TimeSpan maxPolling = default)
    {
        _device = device;
        _worker = new QueueWorker("test", new QueueWorkerOptions { MaxPolling = maxPolling });
        Features = features | VirtioFeatures.Version1 | VirtioFeatures.EventIndex | VirtioFeatures.IndirectDescriptors;
        device.AcceptFeatures(Features);
    }

    public ulong Features { get; }

    public DriverMemory Memory { get; } = new(16 << 20);

    public Exception? Failure { get; private set; }

    /// <summary>Starts a queue.</summary>
    /// <param name="index">The queue.</param>
    /// <param name="size">Its size.</param>
    /// <param name="indirectEntries">Entries of each chain's indirect table; 0 uses none.</param>
    public async Task<DrivenQueue> StartAsync(int index, int size = 256, int indirectEntries = 0)
    {
        DrivenQueue queue = new(new SplitDriverQueue(index, size, Memory, Features, indirectEntries));
        VringSetup setup = new()
        {
            Index = index,
            Size = size,
            Addresses = queue.Ring.Addresses,
            Base = 0,
            Features = Features,
            Memory = Memory.Memory,
        };
        QueueLinks links = new()
        {
            Kick = new EventFdNotifier(new EventFd(queue.Kick.Descriptor.Duplicate())),
            Call = new EventFdNotifier(new EventFd(queue.Call.Descriptor.Duplicate())),
            IsStarted = true,
            IsEnabled = true,
            Failed = (_, error) => Failure = error,
        };
        queue.Running = await _device.StartQueue(setup, links, _worker);
        _queues.Add(queue);
        return queue;
    }

    /// <summary>
    /// What the worker's thread allocates for something that is done 1000 times, in bytes for each time; to be 0.
    /// (Asking costs some bytes, too, which are far fewer than 1000.)
    /// </summary>
    public async Task<long> AllocatedAsync(Action once)
    {
        await RepeatAsync(2000, once);
        return await RepeatAsync(1000, once) / 1000;
    }

    /// <summary>Stops every queue and ends the worker.</summary>
    public async ValueTask DisposeAsync()
    {
        foreach (DrivenQueue queue in _queues)
        {
            await queue.StopAsync();
        }

        await _worker.DisposeAsync();
        _device.Reset();
        foreach (DrivenQueue queue in _queues)
        {
            queue.Kick.Dispose();
            queue.Call.Dispose();
        }

        Memory.Dispose();
        Assert.Null(Failure);
    }

    private async Task<long> RepeatAsync(int times, Action once)
    {
        long before = 0;
        long after = 0;
        await _worker.InvokeAsync(() => before = GC.GetAllocatedBytesForCurrentThread());
        for (int i = 0; i < times; i++)
        {
            once();
        }

        await _worker.InvokeAsync(() => after = GC.GetAllocatedBytesForCurrentThread());
        return after - before;
    }
}

/// <summary>A queue that runs, seen from its driver.</summary>
internal sealed class DrivenQueue(SplitDriverQueue ring)
{
    private bool _stopped;

    public SplitDriverQueue Ring { get; } = ring;

    public EventFd Kick { get; } = new();

    public EventFd Call { get; } = new();

    public RunningQueue Running { get; set; } = null!;

    /// <summary>Publishes what was added, and kicks if that is wanted.</summary>
    public void Submit()
    {
        Ring.Publish();
        if (Ring.ShouldKick())
        {
            Kick.Signal();
        }
    }

    /// <summary>Waits for the next used chain.</summary>
    public (uint Token, uint Written) Collect()
    {
        long limit = Environment.TickCount64 + (long)Eventually.Limit.TotalMilliseconds;
        uint token;
        uint written;
        while (!Ring.TryCollect(out token, out written))
        {
            if (Environment.TickCount64 > limit)
            {
                Assert.Fail($"queue {Ring.Index}: nothing was used");
            }

            if (!Ring.ArmCalls())
            {
                _ = Call.Wait(100);
            }
        }

        return (token, written);
    }

    /// <summary>Waits for a while and checks that nothing is used meanwhile.</summary>
    public void ExpectNothing(int milliseconds = 50)
    {
        Thread.Sleep(milliseconds);
        Assert.False(Ring.TryCollect(out _, out _), $"queue {Ring.Index}: something was used");
    }

    /// <summary>Stops it.</summary>
    /// <returns>The next available index.</returns>
    public async Task<uint> StopAsync()
    {
        if (_stopped)
        {
            return 0;
        }

        _stopped = true;
        return await Running.StopAsync();
    }
}
