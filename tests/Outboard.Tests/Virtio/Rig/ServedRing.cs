// A ring that is served by a worker, with the driver's ends of kick and call in the test's hands.
using System.Collections.Concurrent;
using Outboard.Linux.Events;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Virtio.Rig;

internal sealed class ServedRing : IAsyncDisposable
{
    /// <summary>A test that waits longer for a notification has lost it.</summary>
    internal const int PatienceMs = 30_000;

    private readonly bool _ownsMemory;
    private readonly EventFd _kick = new();
    private readonly EventFd _call = new();
    private readonly SemaphoreSlim _failed = new(0);
    private bool _isStopped;

    private ServedRing(DriverMemory? memory, int index, int size, ulong features)
    {
        _ownsMemory = memory is null;
        Memory = memory ?? new DriverMemory(1 << 20);
        Driver = DriverQueue.Create(index, size, Memory, features);
        Features = features;
        Buffer = Memory.Allocate(4096);
    }

    internal DriverMemory Memory { get; }

    internal DriverQueue Driver { get; }

    internal ulong Features { get; }

    internal DriverBuffer Buffer { get; }

    internal RunningQueue Queue { get; private set; } = null!;

    internal ConcurrentQueue<VirtqueueFault> Faults { get; } = [];

    internal ConcurrentQueue<Exception> Failures { get; } = [];

    internal static async Task<ServedRing> StartAsync(
        VirtioDevice device,
        QueueWorker worker,
        int index = 0,
        int size = 16,
        ulong features = VirtioFeatures.Version1,
        bool isPolled = false,
        bool isStarted = false,
        bool isEnabled = true,
        DriverMemory? memory = null,
        Action<ServedRing>? prepare = null)
    {
        ServedRing ring = new(memory, index, size, features);
        prepare?.Invoke(ring);
        QueueLinks links = new()
        {
            Kick = isPolled ? null : new EventFdNotifier(new EventFd(ring._kick.Descriptor.Duplicate())),
            Call = new EventFdNotifier(new EventFd(ring._call.Descriptor.Duplicate())),
            IsStarted = isStarted,
            IsEnabled = isEnabled,
            Faulted = (_, fault) => ring.Faults.Enqueue(fault),
            Failed = (_, error) => ring.Fail(error),
        };
        ring.Queue = await device.StartQueue(
            VirtqueuePropertyTests.Setup(ring.Driver, ring.Memory, features), links, worker);
        return ring;
    }

    /// <summary>Adds a request, and kicks if the device wants that.</summary>
    internal void Submit(uint token = 0)
    {
        Assert.True(Driver.TryAdd([Buffer.Slice(0, 8)], [Buffer.Slice(8, 4)], token));
        Driver.Publish();
        if (Driver.ShouldKick())
        {
            Kick();
        }
    }

    /// <summary>Waits for the next failure that the worker told.</summary>
    internal Exception TakeFailure()
    {
        Assert.True(_failed.Wait(PatienceMs, TestContext.Current.CancellationToken), "no failure was told");
        Assert.True(Failures.TryDequeue(out Exception? error));
        return error;
    }

    internal void Kick() => _kick.Signal();

    /// <summary>Waits for the next used chain, as a driver that sleeps does.</summary>
    internal uint Collect(out uint written)
    {
        uint token;
        while (!Driver.TryCollect(out token, out written))
        {
            if (!Driver.ArmCalls())
            {
                Assert.True(_call.Wait(PatienceMs) > 0, "no call came");
            }
        }

        return token;
    }

    internal uint Collect() => Collect(out _);

    /// <summary>Takes calls that came and were not waited for.</summary>
    internal ulong TakeCalls() => _call.Take();

    internal Task<uint> StopAsync()
    {
        _isStopped = true;
        return Queue.StopAsync();
    }

    public async ValueTask DisposeAsync()
    {
        if (!_isStopped)
        {
            await StopAsync().WaitAsync(TimeSpan.FromMilliseconds(PatienceMs));
        }

        _kick.Dispose();
        _call.Dispose();
        _failed.Dispose();
        if (_ownsMemory)
        {
            Memory.Dispose();
        }
    }

    private void Fail(Exception error)
    {
        Failures.Enqueue(error);
        _failed.Release();
    }
}
