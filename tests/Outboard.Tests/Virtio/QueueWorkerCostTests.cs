// What serving costs: nothing while idle, no allocation for a request, nothing left behind by a stop. These tests look
// at the whole process or at time, so they run alone.
using System.Globalization;
using Outboard.Tests.Virtio.Rig;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;
using Xunit;
using Eventually = Outboard.Tests.VhostUser.Eventually;

namespace Outboard.Tests.Virtio;

[CollectionDefinition(nameof(QueueWorkerCostTests), DisableParallelization = true)]
[Collection(nameof(QueueWorkerCostTests))]
public sealed class QueueWorkerCostTests
{
    private const ulong Split = RawRing.FeatureVersion1;
    private const ulong Packed = RawRing.FeatureVersion1 | RawRing.FeaturePacked;
    private const ulong EventIndex = RawRing.FeatureEventIndex;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(Split)]
    [InlineData(Split | EventIndex)]
    [InlineData(Packed | EventIndex)]
    public async Task A_request_allocates_nothing_on_the_worker(ulong features)
    {
        AllocationDevice device = new(isDetaching: false);
        await using QueueWorker worker = new("allocations");
        await using ServedRing ring = await ServedRing.StartAsync(device, worker, features: features);
        Pump(ring, 30_000);
        Assert.Equal(0, device.AllocatedBytes);
    }

    [Theory]
    [InlineData(Split)]
    [InlineData(Packed | EventIndex)]
    public async Task A_detached_request_allocates_nothing_on_the_worker(ulong features)
    {
        AllocationDevice device = new(isDetaching: true);
        await using QueueWorker worker = new("allocations");
        await using ServedRing ring = await ServedRing.StartAsync(device, worker, features: features);
        Pump(ring, 30_000);
        Assert.Equal(0, device.AllocatedBytes);
    }

    [Fact]
    public async Task An_idle_worker_uses_no_CPU()
    {
        string statPath = string.Empty;
        await using QueueWorker worker = new(
            "idle", new QueueWorkerOptions { OnThreadStart = () => statPath = StatOfThisThread() });
        SumDevice device = new(4);
        List<ServedRing> rings = [];
        for (int i = 0; i < 4; i++)
        {
            rings.Add(await ServedRing.StartAsync(device, worker, index: i));
            rings[i].Submit(1);
            rings[i].Collect();
        }

        long before = CpuTicks(statPath);
        await Task.Delay(1000, Cancellation);
        long ticks = CpuTicks(statPath) - before;
        Assert.InRange(ticks, 0, 20);
        foreach (ServedRing ring in rings)
        {
            await ring.DisposeAsync();
        }
    }

    [Fact]
    public async Task Starting_and_stopping_leaves_nothing_behind()
    {
        SumDevice device = new();
        await using QueueWorker worker = new("cycles");
        await Cycle(device, worker, 50);
        int descriptors = CountDescriptors();
        await Cycle(device, worker, 2000);
        Assert.InRange(CountDescriptors(), 0, descriptors + 10);
        Assert.Equal(1, CountThreads("cycles"));
    }

    [Fact]
    public async Task Workers_come_and_go_and_leave_nothing_behind()
    {
        SumDevice device = new();
        int descriptors = 0;
        for (int i = 0; i < 300; i++)
        {
            await using QueueWorkerSet workers = new(2, "come-and-go");
            await Cycle(device, workers.For(0), 1);
            await Cycle(device, workers.For(3), 1);
            if (i == 20)
            {
                descriptors = CountDescriptors();
            }
        }

        Assert.InRange(CountDescriptors(), 0, descriptors + 10);
        await Eventually.TrueAsync(() => CountThreads("come-and-go") == 0, "the last threads have ended");
    }

    [Theory]
    [InlineData(Split, 0)]
    [InlineData(Split | EventIndex, 0)]
    [InlineData(Packed, 0)]
    [InlineData(Packed | EventIndex, 0)]
    [InlineData(Split, 50)]
    [InlineData(Split | EventIndex, 50)]
    [InlineData(Packed | EventIndex, 50)]
    public async Task No_kick_and_no_call_is_lost_between_two_threads(ulong features, int pollingUs)
    {
        QueueWorkerOptions options = new() { MaxPolling = TimeSpan.FromMicroseconds(pollingUs) };
        await using QueueWorker worker = new("ping-pong", options);
        await using ServedRing ring = await ServedRing.StartAsync(new SumDevice(), worker, features: features);
        for (uint i = 0; i < 5000; i++)
        {
            ring.Submit(i);
            if (i % 3 == 0)
            {
                ring.Submit(i + 1_000_000);
                Assert.Equal(i, ring.Collect());
                Assert.Equal(i + 1_000_000, ring.Collect());
            }
            else
            {
                Assert.Equal(i, ring.Collect());
            }
        }
    }

    /// <summary>Keeps eight requests in flight.</summary>
    private static void Pump(ServedRing ring, int requests)
    {
        for (uint i = 0; i < requests + 8; i++)
        {
            if (i < requests)
            {
                ring.Submit(i);
            }

            if (i >= 7 && ring.Driver.InFlight > 0)
            {
                ring.Collect();
            }
        }
    }

    private static async Task Cycle(VirtioDevice device, QueueWorker worker, int count)
    {
        for (int i = 0; i < count; i++)
        {
            await using ServedRing ring = await ServedRing.StartAsync(device, worker);
            ring.Submit(1);
            ring.Collect();
        }
    }

    private static int CountDescriptors() => Directory.GetFiles("/proc/self/fd").Length;

    /// <summary>Threads whose names begin so; the runtime has others, more of them on a busy machine.</summary>
    private static int CountThreads(string name) =>
        Directory.GetDirectories("/proc/self/task")
            .Count(task => NameOf(task).StartsWith(name, StringComparison.Ordinal));

    private static string NameOf(string task)
    {
        try
        {
            return File.ReadAllText($"{task}/comm");
        }
        catch (IOException)
        {
            // It has ended meanwhile.
            return string.Empty;
        }
    }

    /// <summary>The path by which others see this thread's statistics.</summary>
    private static string StatOfThisThread()
    {
        string id = File.ReadAllText("/proc/thread-self/stat").Split(' ')[0];
        return $"/proc/self/task/{id}/stat";
    }

    /// <summary>User and system time of a thread, in hundredths of a second.</summary>
    private static long CpuTicks(string statPath)
    {
        string stat = File.ReadAllText(statPath);
        string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        return fields[11..13].Sum(field => long.Parse(field, CultureInfo.InvariantCulture));
    }

    private sealed class AllocationDevice(bool isDetaching) : VirtioDevice(VirtioDeviceId.Entropy, [256])
    {
        private const int First = 10_000;
        private const int Last = First + 10_000;
        private PendingRequest _waiting;
        private bool _isWaiting;
        private int _count;
        private long _before;

        internal long AllocatedBytes { get; private set; } = -1;

        protected internal override uint HandleRequest(int queue, scoped in DescriptorChain chain)
        {
            _count++;
            if (_count == First)
            {
                _before = GC.GetAllocatedBytesForCurrentThread();
            }
            else if (_count == Last)
            {
                AllocatedBytes = GC.GetAllocatedBytesForCurrentThread() - _before;
            }

            return isDetaching ? KeepOne(in chain) : (uint)chain.Writable.Length;
        }

        /// <summary>Each request completes the one before it.</summary>
        private uint KeepOne(scoped in DescriptorChain chain)
        {
            PendingRequest request = chain.Detach();
            if (_isWaiting)
            {
                _waiting.Complete((uint)_waiting.Writable.Length);
            }

            _waiting = request;
            _isWaiting = true;
            if (_count % 8 == 0)
            {
                _waiting.Complete(0);
                _isWaiting = false;
            }

            return 0;
        }
    }
}
