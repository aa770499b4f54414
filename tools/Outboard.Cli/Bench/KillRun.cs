// Kills a block back-end again and again under a verified load, and counts what that did to the driver's requests.
//
//   a back-end process -> the load begins -> { a random while; kill -9; the next process; reconnect } -> the load reads
//   every block once more, and ends with nothing in flight
//
// Lost is a request that is never completed: the load does not end. Doubled is a request that is completed once more
// than it was made: the driver's queue throws. Wrong is a block that does not hold what was written last.
// With in-flight tracking the load goes on while no back-end is there; without, it is paused for the change.
using System.Diagnostics;

namespace Outboard.Cli.Bench;

/// <summary>What a kill run is to do.</summary>
internal sealed record KillSettings
{
    public required LoadSettings Load { get; init; }

    public required string Folder { get; init; }

    public required int Kills { get; init; }

    /// <summary>Arguments of the back-end, beside socket and image.</summary>
    public IReadOnlyList<string> BackendArguments { get; init; } = [];

    public TimeSpan LongestLife { get; init; } = TimeSpan.FromMilliseconds(200);

    public int Seed { get; init; } = 1;

    public string ImagePath => Path.Combine(Folder, "kill.img");
}

/// <summary>What a kill run found out.</summary>
internal sealed record KillResult
{
    public required KillSettings Settings { get; init; }

    public int Kills { get; set; }

    public TimeSpan Elapsed { get; set; }

    /// <summary>Requests that were in flight when the back-end was killed, of all kills.</summary>
    public long InFlightAtKills { get; set; }

    /// <summary>Kills with at least one request in flight.</summary>
    public int KillsInFlight { get; set; }

    /// <summary>Starts of the back-end that failed, for instance on a lock that the kernel had not released.</summary>
    public int FailedStarts { get; set; }

    public long Completed { get; set; }

    public long Compared { get; set; }

    public long Written { get; set; }

    public int Lost { get; set; }

    public int Doubled { get; set; }

    public IReadOnlyList<string> Failures { get; set; } = [];

    public bool IsGood => Lost == 0 && Doubled == 0 && Failures.Count == 0 && Kills == Settings.Kills;
}

/// <summary>Runs it.</summary>
internal sealed class KillRun(KillSettings settings, Action<KillResult>? progress = null) : IAsyncDisposable
{
    /// <summary>One life of so many is long enough for a completion on each queue.</summary>
    private const int LivesBetweenProgress = 4;

    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);

    private readonly KillResult _result = new() { Settings = settings };
    private readonly Random _random = new(settings.Seed);
    private BackendProcess? _backend;
    private volatile bool _isFinishing;

    /// <summary>Runs to the end.</summary>
    /// <exception cref="IOException">The back-end does not start, or does not come back.</exception>
    public async Task<KillResult> RunAsync(CancellationToken cancellation)
    {
        long start = Stopwatch.GetTimestamp();
        MakeImage();
        LoadSettings load = settings.Load with { ReconnectLimit = s_startLimit };
        _backend = StartBackend();
        LoadTarget target = await LoadTarget
            .ConnectAsync(load, s_startLimit, () => _backend.HasEnded).ConfigureAwait(false);
        await using (target.ConfigureAwait(false))
        {
            using LoadGate gate = new(load.QueueCount);
            CompletionWait[] waits =
            [
                .. target.Queues.Zip(target.Drivers, (queue, driver) => new CompletionWait(
                    queue, driver, load.Mode, gate)),
            ];
            VerifyingLoad[] loads = MakeLoads(load, target, waits);
            using LoadThreads threads = new([], [.. loads.Select(one => (Action)(() => Run(one, gate)))]);
            try
            {
                await KillAllAsync(target, gate, threads, loads, cancellation).ConfigureAwait(false);
            }
            catch (Exception error)
            {
                gate.Fail(error);
                throw;
            }
            finally
            {
                _isFinishing = true;
            }

            Finish(target, threads, loads);
            Array.ForEach(waits, wait => wait.Dispose());
            await target.StopAsync().ConfigureAwait(false);
        }

        _result.Elapsed = Stopwatch.GetElapsedTime(start);
        return _result;
    }

    public async ValueTask DisposeAsync()
    {
        if (_backend is not null)
        {
            await _backend.DisposeAsync().ConfigureAwait(false);
        }

        File.Delete(settings.ImagePath);
    }

    private void MakeImage()
    {
        using FileStream file = new(settings.ImagePath, FileMode.Create, FileAccess.Write);
        file.SetLength(settings.Load.RangeBytes);
    }

    private BackendProcess StartBackend() => BackendProcess.Start(
    [
        "block", $"--socket-path={settings.Load.SocketPath}", $"--blk-file={settings.ImagePath}", "--quiet",
        $"--num-queues={settings.Load.QueueCount}", .. settings.BackendArguments,
    ]);

    private static VerifyingLoad[] MakeLoads(LoadSettings load, LoadTarget target, CompletionWait[] waits)
    {
        ulong share = (ulong)(target.RangeBytes / load.BlockSize) / (ulong)load.QueueCount;
        uint seed = (uint)Stopwatch.GetTimestamp();
        return
        [
            .. waits.Select((wait, queue) =>
                new VerifyingLoad(load, target, queue, wait, ((ulong)queue * share, share), seed)),
        ];
    }

    private void Run(VerifyingLoad load, LoadGate gate)
    {
        try
        {
            load.WriteAll();
            while (!_isFinishing)
            {
                load.MixUntil(Stopwatch.GetTimestamp() + (Stopwatch.Frequency / 20));
            }

            load.ReadAll();
        }
        finally
        {
            gate.Leave();
        }
    }

    private async Task KillAllAsync(
        LoadTarget target,
        LoadGate gate,
        LoadThreads threads,
        VerifyingLoad[] loads,
        CancellationToken cancellation)
    {
        while (_result.Kills < settings.Kills && !threads.HaveEnded)
        {
            cancellation.ThrowIfCancellationRequested();
            threads.Sleep(_random.NextDouble() * settings.LongestLife);
            await ProgressAsync(loads, threads).ConfigureAwait(false);
            await _backend!.KillAsync().ConfigureAwait(false);
            int inFlight = target.Drivers.Sum(driver => driver.InFlight);
            _result.Kills++;
            _result.InFlightAtKills += inFlight;
            _result.KillsInFlight += inFlight > 0 ? 1 : 0;
            await _backend.DisposeAsync().ConfigureAwait(false);
            if (!target.TracksInflight)
            {
                await gate.CloseAsync().ConfigureAwait(false);
            }

            await ReplaceAsync(target, cancellation).ConfigureAwait(false);
            gate.Open();
            progress?.Invoke(_result);
        }
    }

    /// <summary>
    /// On a machine that is too busy every back-end might die before its first request: once in a while one lives until
    /// each queue has got on, or the load would rightly say that nothing is completed.
    /// </summary>
    private async Task ProgressAsync(VerifyingLoad[] loads, LoadThreads threads)
    {
        if (_result.Kills % LivesBetweenProgress != LivesBetweenProgress - 1)
        {
            return;
        }

        long start = Stopwatch.GetTimestamp();
        long[] before = [.. loads.Select(load => load.Operations)];
        while (!threads.HaveEnded && Stopwatch.GetElapsedTime(start) < s_startLimit
            && loads.Where((load, i) => load.Operations == before[i]).Any())
        {
            await Task.Delay(1).ConfigureAwait(false);
        }
    }

    /// <summary>Starts back-ends until one is there that the front-end is connected to.</summary>
    private async Task ReplaceAsync(LoadTarget target, CancellationToken cancellation)
    {
        long start = Stopwatch.GetTimestamp();
        Task reconnecting = target.ReconnectAsync(cancellation);
        while (true)
        {
            _backend = StartBackend();
            using CancellationTokenSource watching = new();
            Task ended = _backend.WaitForEndAsync(watching.Token);
            bool isThere = await Task.WhenAny(reconnecting, ended).ConfigureAwait(false) == reconnecting;
            await watching.CancelAsync().ConfigureAwait(false);
            if (isThere)
            {
                await reconnecting.ConfigureAwait(false);
                return;
            }

            _result.FailedStarts++;
            string errors = _backend.Errors;
            await _backend.DisposeAsync().ConfigureAwait(false);
            if (Stopwatch.GetElapsedTime(start) > s_startLimit)
            {
                throw new IOException($"the back-end does not start: {errors}");
            }
        }
    }

    /// <summary>Waits for the load's end, and judges it.</summary>
    private void Finish(LoadTarget target, LoadThreads threads, VerifyingLoad[] loads)
    {
        List<string> failures = [];
        try
        {
            threads.Join();
        }
        catch (InvalidOperationException error) when (error.InnerException is InvalidDataException)
        {
            // The driver's queue: a chain that it did not miss came back.
            _result.Doubled++;
            failures.Add(error.Message);
        }
        catch (IOException error)
        {
            failures.Add(error.Message);
        }

        _result.Lost = target.Drivers.Sum(driver => driver.InFlight);
        _result.Completed = loads.Sum(load => load.Operations);
        _result.Compared = loads.Sum(load => load.VerifiedBlocks);
        _result.Written = loads.Sum(load => load.WrittenBlocks);
        failures.AddRange(loads.SelectMany(load => load.Failures));
        _result.Failures = failures;
    }
}
