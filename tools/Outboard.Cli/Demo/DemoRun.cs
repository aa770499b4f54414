// The demo's story: a disk image, a back-end process, a driver here; what the disk can do; how fast it is; and that
// nothing is lost when the back-end is killed in the middle.
using System.Diagnostics;
using System.Reflection;
using Outboard.Cli.Bench;
using Outboard.Cli.Text;
using Outboard.Devices.Block.Driver;

namespace Outboard.Cli.Demo;

internal sealed class DemoRun(DemoFolder folder, DemoScreen screen) : IAsyncDisposable
{
    private const string Serial = "OUTBOARD-DEMO";
    private const long ImageBytes = 256L << 20;
    private const long VerifiedBytes = 32L << 20;

    /// <summary>Times that the back-end is killed.</summary>
    private const int Kills = 3;

    private static readonly int[] s_depths = [1, 8, 32, 128];
    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(20);
    private static readonly TimeSpan s_measured = TimeSpan.FromSeconds(0.6);
    private static readonly TimeSpan s_warmUp = TimeSpan.FromSeconds(0.2);
    private static readonly TimeSpan s_lifeBetweenKills = TimeSpan.FromSeconds(0.7);

    private readonly List<string> _failures = [];
    private BackendProcess? _backend;
    private long _compared;

    /// <summary>Runs the whole demo.</summary>
    /// <returns>Whether every block was right.</returns>
    public async Task<bool> RunAsync(CancellationToken cancellation)
    {
        long start = Stopwatch.GetTimestamp();
        DemoScreen.Write("A disk in another process, by vhost-user, without a virtual machine");
        DemoScreen.Write(string.Empty);
        Prepare();
        await StartAsync().ConfigureAwait(false);
        await ShowRequestsAsync().ConfigureAwait(false);
        await VerifyDepthsAsync(cancellation).ConfigureAwait(false);
        await VerifyThroughCrashesAsync(cancellation).ConfigureAwait(false);
        await MeasureAsync(cancellation).ConfigureAwait(false);
        DemoScreen.Write(string.Empty);
        foreach (string failure in _failures)
        {
            ErrorLine.Write(failure);
        }

        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        DemoScreen.Write(_failures.Count == 0
            ? $"every block verified: {_compared:N0} comparisons, {Kills} kills, {seconds:F1} s"
            : "NOT every block is right");
        return _failures.Count == 0;
    }

    public async ValueTask DisposeAsync()
    {
        if (_backend is not null)
        {
            await _backend.DisposeAsync().ConfigureAwait(false);
        }
    }

    private static bool IsUnoptimized =>
        typeof(DemoRun).Assembly.GetCustomAttribute<DebuggableAttribute>() is { IsJITOptimizerDisabled: true };

    private BackendProcess StartBackend() => BackendProcess.Start(
        "block", $"--socket-path={folder.SocketPath}", $"--blk-file={folder.ImagePath}", $"--serial={Serial}",
        "--quiet");

    private LoadSettings Settings(int depth) => new()
    {
        SocketPath = folder.SocketPath,
        QueueDepth = depth,
        Duration = s_measured,
        WarmUp = s_warmUp,
        RangeBytes = VerifiedBytes,
        ReadPercent = 50,
    };

    private void Prepare()
    {
        screen.Begin("disk image");
        folder.CreateImage(ImageBytes);
        screen.Done($"{SizeText.Format(ImageBytes)} at {folder.ImagePath}");
    }

    private async Task StartAsync()
    {
        screen.Begin("back-end");
        long start = Stopwatch.GetTimestamp();
        _backend = StartBackend();
        LoadTarget target = await ConnectAsync(Settings(1)).ConfigureAwait(false);
        await target.DisposeAsync().ConfigureAwait(false);
        screen.Done($"process {_backend.ProcessId}, first connection after {Ms(start):F0} ms");
    }

    private async Task<LoadTarget> ConnectAsync(LoadSettings settings)
    {
        try
        {
            return await LoadTarget
                .ConnectAsync(settings, s_startLimit, () => _backend?.HasEnded ?? true).ConfigureAwait(false);
        }
        catch (IOException error) when (_backend is { HasEnded: true })
        {
            throw new IOException($"the back-end ended at once: {_backend.Errors}", error);
        }
    }

    /// <summary>One request of each kind.</summary>
    private async Task ShowRequestsAsync()
    {
        screen.Begin("one request of each kind");
        LoadTarget target = await ConnectAsync(Settings(1)).ConfigureAwait(false);
        await using (target.ConfigureAwait(false))
        {
            BlockDriver driver = target.Drivers[0];
            List<string> done = ["read", "write"];
            byte[] written = new byte[16384];
            byte[] read = new byte[written.Length];
            Random.Shared.NextBytes(written);
            driver.Write(0, written);
            driver.Read(0, read);
            Expect(read.AsSpan().SequenceEqual(written), "the first read does not give what was written");
            if (target.Config.HasFlush)
            {
                driver.Flush();
                done.Add("flush");
            }

            if (target.Config.WriteZeroes is not null)
            {
                driver.WriteZeroes(4096, 8192);
                written.AsSpan(4096, 8192).Clear();
                driver.Read(0, read);
                Expect(read.AsSpan().SequenceEqual(written), "write zeroes did not make exactly its range zero");
                done.Add("write zeroes");
            }

            if (target.Config.Discard is not null)
            {
                driver.Discard(8192, 4096);
                done.Add("discard");
            }

            done.Add($"get id: {driver.GetId()}");
            await target.StopAsync().ConfigureAwait(false);
            screen.Done(string.Join(", ", done));
        }
    }

    private async Task VerifyDepthsAsync(CancellationToken cancellation)
    {
        foreach (int depth in s_depths)
        {
            cancellation.ThrowIfCancellationRequested();
            screen.Begin($"verified load, depth {depth}");
            LoadResult result = await RunAsync(Settings(depth) with { Verify = true }).ConfigureAwait(false);
            (long verified, long written, _) = result.Verification;
            Note(result.Failures, verified);
            Conclude(result.IsGood, $"{written:N0} blocks written, {verified:N0} compared");
        }
    }

    private async Task VerifyThroughCrashesAsync(CancellationToken cancellation)
    {
        screen.Begin($"kill -9 under load, {Kills} times");
        LoadSettings settings = Settings(32) with { ReconnectLimit = s_startLimit };
        LoadTarget target = await ConnectAsync(settings).ConfigureAwait(false);
        await using (target.ConfigureAwait(false))
        {
            using CompletionWait wait = new(target.Queues[0], target.Drivers[0], settings.Mode);
            (ulong First, ulong Count) range = (0, (ulong)(VerifiedBytes / settings.BlockSize));
            VerifyingLoad load = new(settings, target, 0, wait, range, (uint)Stopwatch.GetTimestamp());
            using CrashingLoad crashing = new(load);
            List<string> deaths = [];
            for (int i = 0; i < Kills; i++)
            {
                crashing.LetRun(s_lifeBetweenKills);
                cancellation.ThrowIfCancellationRequested();
                deaths.Add(await CrashAsync(crashing, target).ConfigureAwait(false));
                screen.Update(deaths[^1]);
            }

            crashing.Finish();
            await target.StopAsync().ConfigureAwait(false);
            Note(load.Failures, load.VerifiedBlocks);
            Conclude(load.Failures.Count == 0, string.Join("; ", deaths));
        }
    }

    private async Task<string> CrashAsync(CrashingLoad load, LoadTarget target)
    {
        long start = Stopwatch.GetTimestamp();
        await _backend!.DisposeAsync().ConfigureAwait(false);
        load.Pause();
        int inFlight = target.Drivers[0].InFlight;
        _backend = StartBackend();
        await target.ReconnectAsync().ConfigureAwait(false);
        load.Resume();
        return $"back in {Ms(start):F0} ms, {inFlight} requests resubmitted";
    }

    private async Task MeasureAsync(CancellationToken cancellation)
    {
        DemoScreen.Write(string.Empty);
        DemoScreen.Write("  4 KiB random reads and writes of a cached file, one queue, a driver that sleeps:");
        DemoScreen.Row("depth", "reads/s", "MB/s", "p50 us", "p99 us", "writes/s", "MB/s", "p50 us", "p99 us");
        foreach (int depth in s_depths)
        {
            cancellation.ThrowIfCancellationRequested();
            LoadResult read = await RunAsync(Settings(depth) with { ReadPercent = 100 }).ConfigureAwait(false);
            LoadResult write = await RunAsync(Settings(depth) with { ReadPercent = 0 }).ConfigureAwait(false);
            DemoScreen.Row([depth, .. Cells(read), .. Cells(write)]);
            Note(read.Failures, 0);
            Note(write.Failures, 0);
        }

        if (IsUnoptimized)
        {
            DemoScreen.Write("  (built for debugging: 'dotnet run -c Release' shows what it can do)");
        }
    }

    private static Task<LoadResult> RunAsync(LoadSettings settings) => new BlockLoad(settings).RunAsync();

    private static object[] Cells(LoadResult result) =>
    [
        (long)result.OperationsPerSecond, result.MegabytesPerSecond,
        result.Latency.Percentile(0.5) / 1000.0, result.Latency.Percentile(0.99) / 1000.0,
    ];

    private void Note(IReadOnlyList<string> failures, long compared)
    {
        _failures.AddRange(failures);
        _compared += compared;
    }

    private void Conclude(bool isGood, string detail)
    {
        if (isGood)
        {
            screen.Done(detail);
        }
        else
        {
            screen.Failed(detail);
        }
    }

    private void Expect(bool holds, string problem)
    {
        _compared++;
        if (!holds)
        {
            _failures.Add(problem);
        }
    }

    private static double Ms(long start) => Stopwatch.GetElapsedTime(start).TotalMilliseconds;
}
