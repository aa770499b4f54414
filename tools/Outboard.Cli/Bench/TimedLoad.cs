// The load of one queue: as many requests in flight as the depth says, each replaced as soon as it is done. Nothing is
// allocated in the loop, except for the text of errors.
using System.Diagnostics;
using Outboard.Devices.Block.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Bench;

/// <summary>Measures one queue. Run by one thread.</summary>
internal sealed class TimedLoad
{
    /// <summary>A back-end that completes nothing for so long counts as dead.</summary>
    public static readonly TimeSpan StallLimit = TimeSpan.FromSeconds(10);

    /// <summary>Errors that are told in words; the rest is counted.</summary>
    private const int MostErrors = 10;

    private readonly LoadSettings _settings;
    private readonly LoadPhase _phase;
    private readonly BlockDriver _driver;
    private readonly CompletionWait _wait;
    private readonly BlockCompletion[] _completions;
    private readonly Request[] _requests;
    private readonly ulong _firstBlock;
    private readonly ulong _blockCount;
    private readonly uint _sectorsPerBlock;
    private readonly List<string> _errors = [];
    private RandomSequence _random;
    private ulong _next;
    private bool _isCounting;
    private long _sleepsBefore;
    private long _allocatedBefore;
    private long _operations;

    /// <param name="settings">The load.</param>
    /// <param name="phase">When to measure, when to end.</param>
    /// <param name="driver">The queue's driver.</param>
    /// <param name="wait">The queue's completions.</param>
    /// <param name="range">Blocks of the disk: the first, and how many.</param>
    public TimedLoad(
        LoadSettings settings, LoadPhase phase, BlockDriver driver, CompletionWait wait,
        (ulong First, ulong Count) range)
    {
        _settings = settings;
        _phase = phase;
        _driver = driver;
        _wait = wait;
        _firstBlock = range.First;
        _blockCount = range.Count;
        _sectorsPerBlock = (uint)settings.BlockSize / BlockConfig.SectorBytes;
        _completions = new BlockCompletion[settings.QueueDepth];
        _requests = new Request[settings.QueueDepth];
        _random = new RandomSequence(range.First);
        Windows = new RateWindows(settings.Duration);
        for (int i = 0; i < settings.QueueDepth; i++)
        {
            driver.Data(i).Fill(0x5A);
        }
    }

    public LatencyHistogram Latency { get; } = new();

    public RateWindows Windows { get; }

    public IReadOnlyList<string> Errors => _errors;

    public long ErrorCount { get; private set; }

    public long Batches { get; private set; }

    public long Sleeps { get; private set; }

    /// <summary>Bytes that the loop allocated while it was measured.</summary>
    public long AllocatedBytes { get; private set; }

    /// <summary>Completions so far, for others to look at.</summary>
    public long Operations => Volatile.Read(ref _operations);

    /// <summary>Runs until the phase ends and everything in flight is completed.</summary>
    /// <exception cref="IOException">The back-end stopped completing.</exception>
    public void Run()
    {
        long now = Stopwatch.GetTimestamp();
        for (int slot = 0; slot < _requests.Length; slot++)
        {
            Start(slot, now);
        }

        _driver.Submit();
        long lastCompletion = now;
        while (_driver.InFlight > 0)
        {
            int count = _wait.Collect(_completions);
            now = Stopwatch.GetTimestamp();
            if (count == 0)
            {
                CheckStalled(lastCompletion, now);
                continue;
            }

            lastCompletion = now;
            Take(_completions.AsSpan(0, count), now);
        }
    }

    private void Take(ReadOnlySpan<BlockCompletion> completions, long now)
    {
        bool isMeasuring = _phase.IsMeasuring;
        bool isEnded = _phase.IsEnded;
        if (isMeasuring)
        {
            CountBatch(completions.Length, now);
        }

        foreach (ref readonly BlockCompletion completion in completions)
        {
            if (completion.Status != BlockStatus.Ok)
            {
                NoteError(in completion);
            }

            if (isMeasuring)
            {
                Latency.Record(now - _requests[completion.Slot].Started);
            }

            if (!isEnded)
            {
                Start(completion.Slot, now);
            }
        }

        Volatile.Write(ref _operations, _operations + completions.Length);
        _driver.Submit();
    }

    private void CountBatch(int count, long now)
    {
        if (!_isCounting)
        {
            _isCounting = true;
            _sleepsBefore = _wait.Sleeps;
            _allocatedBefore = GC.GetAllocatedBytesForCurrentThread();
        }

        Batches++;
        Sleeps = _wait.Sleeps - _sleepsBefore;
        AllocatedBytes = GC.GetAllocatedBytesForCurrentThread() - _allocatedBefore;
        Windows.Count(now - _phase.Start, count);
    }

    private void Start(int slot, long now)
    {
        ulong block;
        if (_settings.IsSequential)
        {
            block = _next;
            _next = _next + 1 == _blockCount ? 0 : _next + 1;
        }
        else
        {
            block = _random.Below(_blockCount);
        }

        block += _firstBlock;
        int reads = _settings.ReadPercent;
        bool isRead = reads == 100 || (reads > 0 && _random.Happens(reads));
        _requests[slot] = new Request(now, block, isRead);
        bool added = isRead
            ? _driver.TryRead(slot, block * _sectorsPerBlock, (uint)_settings.BlockSize)
            : _driver.TryWrite(slot, block * _sectorsPerBlock, (uint)_settings.BlockSize);
        if (!added)
        {
            throw new IOException(
                $"--queue-size={_settings.EffectiveQueueSize} is too small for a depth of {_settings.QueueDepth}");
        }
    }

    private void NoteError(in BlockCompletion completion)
    {
        ErrorCount++;
        if (_errors.Count < MostErrors)
        {
            Request request = _requests[completion.Slot];
            string what = request.IsRead ? "read" : "write";
            ulong offset = request.Block * (ulong)_settings.BlockSize;
            _errors.Add($"{what} of block {request.Block} (offset {offset}): the device answered {completion.Status}");
        }
    }

    private void CheckStalled(long since, long now)
    {
        if (Stopwatch.GetElapsedTime(since, now) > _settings.StallLimit)
        {
            throw Stalled(_driver, _settings);
        }
    }

    /// <summary>What to throw when a back-end completes nothing.</summary>
    public static IOException Stalled(BlockDriver driver, LoadSettings settings) => new(
        $"the back-end completed nothing for {settings.StallLimit.TotalSeconds} s; "
        + $"{driver.InFlight} requests are in flight");

    private readonly record struct Request(long Started, ulong Block, bool IsRead);
}
