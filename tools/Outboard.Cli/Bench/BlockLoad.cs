// Runs a load: connects, starts a thread for each queue, measures, and adds up.
using System.Diagnostics;
using Outboard.Linux.Threads;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Bench;

/// <summary>A load on a block back-end.</summary>
internal sealed class BlockLoad(LoadSettings settings, Action<TimeSpan, long>? progress = null)
{
    private static readonly TimeSpan s_progressInterval = TimeSpan.FromMilliseconds(250);

    /// <summary>Runs the load to its end.</summary>
    /// <exception cref="IOException">The back-end cannot be reached, does not fit the load, or stopped.</exception>
    public async Task<LoadResult> RunAsync()
    {
        double? distance = settings.DistanceTo < 0 || settings.Cpus.Count == 0
            ? null : ProcessorDistance.Measure(settings.Cpus[0], settings.DistanceTo);
        LoadTarget target = await LoadTarget.ConnectAsync(settings).ConfigureAwait(false);
        await using (target.ConfigureAwait(false))
        {
            using LoadGate gate = new(settings.QueueCount);
            using CancellationTokenSource ended = new();
            Task following = settings.ReconnectLimit == TimeSpan.Zero
                ? Task.CompletedTask : FollowAsync(target, gate, ended.Token);
            LoadResult result = settings.Verify ? Verify(target, gate) : Measure(target, gate);
            await ended.CancelAsync().ConfigureAwait(false);
            await following.ConfigureAwait(false);
            await target.StopAsync().ConfigureAwait(false);
            return result with { CpuDistanceNs = distance, Reconnections = target.Reconnections };
        }
    }

    /// <summary>Goes from one back-end to the next until the load ends.</summary>
    private static async Task FollowAsync(LoadTarget target, LoadGate gate, CancellationToken ended)
    {
        try
        {
            while (true)
            {
                await target.Lost.WaitAsync(ended).ConfigureAwait(false);
                if (!target.TracksInflight)
                {
                    await gate.CloseAsync().WaitAsync(ended).ConfigureAwait(false);
                }

                await target.ReconnectAsync(ended).ConfigureAwait(false);
                gate.Open();
            }
        }
        catch (OperationCanceledException) when (ended.IsCancellationRequested)
        {
            // The load is done.
        }
        catch (IOException error)
        {
            gate.Fail(error);
        }
    }

    /// <summary>The blocks of one queue's thread.</summary>
    private (ulong First, ulong Count) RangeOf(LoadTarget target, int queue)
    {
        ulong blocks = (ulong)(target.RangeBytes / settings.BlockSize);
        ulong share = blocks / (ulong)settings.QueueCount;
        if (share < (ulong)settings.QueueDepth)
        {
            throw new IOException(
                $"{target.RangeBytes} bytes are too few for {settings.QueueCount} queues, depth {settings.QueueDepth}");
        }

        return ((ulong)queue * share, share);
    }

    private LoadResult Measure(LoadTarget target, LoadGate gate)
    {
        LoadPhase phase = new();
        TimedLoad[] loads = new TimedLoad[settings.QueueCount];
        CompletionWait[] waits = Waits(target, gate);
        for (int i = 0; i < loads.Length; i++)
        {
            loads[i] = new TimedLoad(settings, phase, target.Drivers[i], waits[i], RangeOf(target, i));
        }

        using LoadThreads threads = new(settings.Cpus, [.. loads.Select(load => Leaving(load.Run, gate))]);
        long total() => loads.Sum(load => load.Operations);
        threads.Sleep(settings.WarmUp);
        (ProcessUsage? Backend, TimeSpan Frontend) before = Usage();
        phase.Begin();
        Watch(threads, settings.Duration, total);
        phase.End();
        (ProcessUsage? Backend, TimeSpan Frontend) after = Usage();
        threads.Join();
        Array.ForEach(waits, wait => wait.Dispose());
        return Sum(target, phase, loads) with
        {
            FrontendCpu = after.Frontend - before.Frontend,
            Backend = Difference(before.Backend, after.Backend),
        };
    }

    private LoadResult Sum(LoadTarget target, LoadPhase phase, TimedLoad[] loads)
    {
        LatencyHistogram latency = new();
        Array.ForEach(loads, load => latency.Add(load.Latency));
        return Result(target, phase.Elapsed, [.. loads.SelectMany(load => load.Errors)]) with
        {
            FailureCount = loads.Sum(load => load.ErrorCount),
            Latency = latency,
            MedianWindowRate = RateWindows.MedianRate([.. loads.Select(load => load.Windows)], phase.Elapsed),
            Batches = loads.Sum(load => load.Batches),
            Sleeps = loads.Sum(load => load.Sleeps),
            AllocatedBytes = loads.Sum(load => load.AllocatedBytes),
        };
    }

    private LoadResult Verify(LoadTarget target, LoadGate gate)
    {
        CompletionWait[] waits = Waits(target, gate);
        VerifyingLoad[] loads = new VerifyingLoad[settings.QueueCount];
        uint seed = (uint)Stopwatch.GetTimestamp();
        for (int i = 0; i < loads.Length; i++)
        {
            loads[i] = new VerifyingLoad(settings, target, i, waits[i], RangeOf(target, i), seed);
        }

        (ProcessUsage? Backend, TimeSpan Frontend) before = Usage();
        long start = Stopwatch.GetTimestamp();
        long mix = (long)(settings.Duration.TotalSeconds * Stopwatch.Frequency);
        void run(VerifyingLoad load) =>
            _ = load.WriteAll() && load.MixUntil(Stopwatch.GetTimestamp() + mix) && load.ReadAll();
        using LoadThreads threads = new(settings.Cpus, [.. loads.Select(load => Leaving(() => run(load), gate))]);
        Watch(threads, Timeout.InfiniteTimeSpan, () => loads.Sum(load => load.Operations));
        threads.Join();
        TimeSpan elapsed = Stopwatch.GetElapsedTime(start);
        (ProcessUsage? Backend, TimeSpan Frontend) after = Usage();
        Array.ForEach(waits, wait => wait.Dispose());
        string[] failures = [.. loads.SelectMany(load => load.Failures)];
        return Result(target, elapsed, failures) with
        {
            FailureCount = failures.Length,
            Sleeps = waits.Sum(wait => wait.Sleeps),
            Verification = (
                loads.Sum(load => load.VerifiedBlocks),
                loads.Sum(load => load.WrittenBlocks),
                loads.Sum(load => load.Flushes)),
            FrontendCpu = after.Frontend - before.Frontend,
            Backend = Difference(before.Backend, after.Backend),
        };
    }

    /// <summary>A thread that ends is not waited for.</summary>
    private static Action Leaving(Action body, LoadGate gate) => () =>
    {
        try
        {
            body();
        }
        finally
        {
            gate.Leave();
        }
    };

    private LoadResult Result(LoadTarget target, TimeSpan elapsed, IReadOnlyList<string> failures) => new()
    {
        Settings = settings,
        CapacityBytes = target.Config.CapacityBytes,
        RangeBytes = target.RangeBytes,
        HasEventIndex = (target.Features & VirtioFeatures.EventIndex) != 0,
        Elapsed = elapsed,
        Failures = failures,
    };

    private CompletionWait[] Waits(LoadTarget target, LoadGate gate) =>
    [
        .. target.Queues.Zip(
            target.Drivers, (queue, driver) => new CompletionWait(queue, driver, settings.Mode, gate)),
    ];

    /// <summary>Sleeps for a time, or until all threads ended, and reports on the way.</summary>
    private void Watch(LoadThreads threads, TimeSpan duration, Func<long> operations)
    {
        if (progress is null)
        {
            threads.Sleep(duration);
            return;
        }

        long start = Stopwatch.GetTimestamp();
        long before = operations();
        while (!threads.HaveEnded)
        {
            TimeSpan left = duration - Stopwatch.GetElapsedTime(start);
            bool isLimited = duration != Timeout.InfiniteTimeSpan;
            if (isLimited && left <= TimeSpan.Zero)
            {
                return;
            }

            threads.Sleep(isLimited && left < s_progressInterval ? left : s_progressInterval);
            progress(Stopwatch.GetElapsedTime(start), operations() - before);
        }
    }

    private (ProcessUsage? Backend, TimeSpan Frontend) Usage()
    {
        ProcessUsage? backend = settings.BackendProcessId == 0 ? null : ProcessUsage.Read(settings.BackendProcessId);
        return (backend, Environment.CpuUsage.TotalTime);
    }

    private static ProcessUsage? Difference(ProcessUsage? before, ProcessUsage? after) =>
        before is { } b && after is { } a
            ? a with
            {
                CpuTime = a.CpuTime - b.CpuTime,
                VoluntarySwitches = a.VoluntarySwitches - b.VoluntarySwitches,
                InvoluntarySwitches = a.InvoluntarySwitches - b.InvoluntarySwitches,
            }
            : null;
}

/// <summary>The threads of a load. The first failure of one is thrown by <see cref="Join"/>.</summary>
internal sealed class LoadThreads : IDisposable
{
    private readonly Thread[] _threads;
    private readonly CountdownEvent _running;
    private Exception? _failure;

    public LoadThreads(IReadOnlyList<int> cpus, Action[] bodies)
    {
        _running = new CountdownEvent(bodies.Length);
        _threads = new Thread[bodies.Length];
        for (int i = 0; i < bodies.Length; i++)
        {
            Action body = bodies[i];
            int cpu = cpus.Count == 0 ? -1 : cpus[i % cpus.Count];
            _threads[i] = new Thread(() => Run(body, cpu)) { IsBackground = true, Name = $"load/{i}" };
            _threads[i].Start();
        }
    }

    public bool HaveEnded => _running.IsSet;

    /// <summary>Sleeps; wakes early when all threads have ended.</summary>
    public void Sleep(TimeSpan duration) => _running.Wait(duration);

    public void Join()
    {
        Array.ForEach(_threads, thread => thread.Join());
        if (_failure is not null)
        {
            throw _failure is IOException
                ? new IOException(_failure.Message, _failure)
                : new InvalidOperationException(_failure.Message, _failure);
        }
    }

    public void Dispose() => _running.Dispose();

    private void Run(Action body, int cpu)
    {
        try
        {
            if (cpu >= 0)
            {
                ThreadPlacement.PinCurrentThread(cpu);
            }

            body();
        }
#pragma warning disable CA1031 // A thread's failure is thrown where the threads are joined.
        catch (Exception error)
#pragma warning restore CA1031
        {
            _failure ??= error;
        }
        finally
        {
            _running.Signal();
        }
    }
}
