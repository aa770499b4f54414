// A load that knows what every block must hold: all blocks are written, then read and rewritten in random order, then
// all are read. A block has at most one request in flight, so its content is known whenever it is read: a lost, stale,
// torn, misplaced or corrupt block is found and named.
//
// The load survives a crash of the back-end: Interrupt makes it return with its requests in flight; after the rings
// were handed to a successor (LoadTarget.ReconnectAsync) the same phase is called again and goes on.
using System.Diagnostics;
using Outboard.Devices.Block.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Bench;

/// <summary>Verifies a range of blocks through one queue. Run by one thread at a time.</summary>
internal sealed class VerifyingLoad
{
    /// <summary>One request of so many is a flush, when the device has it.</summary>
    private const int FlushInterval = 256;

    /// <summary>Failures that are told in words; the load ends at the last.</summary>
    private const int MostFailures = 10;

    private readonly LoadSettings _settings;
    private readonly BlockDriver _driver;
    private readonly CompletionWait _wait;
    private readonly BlockPattern _pattern;
    private readonly bool _hasFlush;
    private readonly int _blockSize;
    private readonly int _readPercent;
    private readonly ulong _firstBlock;
    private readonly uint[] _generations;
    private readonly bool[] _inUse;
    private readonly Request[] _requests;
    private readonly BlockCompletion[] _completions;
    private readonly Stack<int> _idle = new();
    private readonly List<string> _failures = [];
    private RandomSequence _random;
    private volatile bool _isInterrupted;
    private int _cursor;
    private long _operations;

    /// <param name="settings">Depth, block size and mix.</param>
    /// <param name="target">The device.</param>
    /// <param name="queue">Which of its queues.</param>
    /// <param name="wait">That queue's completions.</param>
    /// <param name="range">Blocks of the disk: the first, and how many. No other load writes them.</param>
    /// <param name="seed">Marks this run's blocks.</param>
    public VerifyingLoad(
        LoadSettings settings, LoadTarget target, int queue, CompletionWait wait, (ulong First, ulong Count) range,
        uint seed)
    {
        _settings = settings;
        _driver = target.Drivers[queue];
        _wait = wait;
        _pattern = new BlockPattern(seed);
        _hasFlush = target.Config.HasFlush;
        _blockSize = settings.BlockSize;
        _readPercent = settings.ReadPercent;
        _firstBlock = range.First;
        _generations = new uint[range.Count];
        _inUse = new bool[range.Count];
        _requests = new Request[settings.QueueDepth];
        _completions = new BlockCompletion[settings.QueueDepth];
        _random = new RandomSequence(seed ^ range.First);
        for (int i = 0; i < settings.QueueDepth; i++)
        {
            _idle.Push(i);
        }
    }

    private enum Kind
    {
        Read,
        Write,
        Flush,
    }

    private enum Phase
    {
        WriteAll,
        Mix,
        ReadAll,
    }

    /// <summary>What went wrong, each with the block's name.</summary>
    public IReadOnlyList<string> Failures => _failures;

    /// <summary>Blocks whose content was compared.</summary>
    public long VerifiedBlocks { get; private set; }

    public long WrittenBlocks { get; private set; }

    public long Flushes { get; private set; }

    /// <summary>Completions so far, for others to look at.</summary>
    public long Operations => Volatile.Read(ref _operations);

    private bool HasGivenUp => _failures.Count >= MostFailures;

    /// <summary>Writes every block once.</summary>
    /// <returns>False when interrupted.</returns>
    public bool WriteAll() => Run(Phase.WriteAll, 0);

    /// <summary>Reads and writes random blocks until a time, in ticks of the stopwatch.</summary>
    /// <returns>False when interrupted.</returns>
    public bool MixUntil(long end) => Run(Phase.Mix, end);

    /// <summary>Reads every block once.</summary>
    /// <returns>False when interrupted.</returns>
    public bool ReadAll() => Run(Phase.ReadAll, 0);

    /// <summary>From another thread: makes the load return once nothing is completed any more.</summary>
    public void Interrupt() => _isInterrupted = true;

    /// <summary>Ends the interruption, before a phase is called again.</summary>
    public void Resume() => _isInterrupted = false;

    private bool Run(Phase phase, long end)
    {
        long lastCompletion = Stopwatch.GetTimestamp();
        while (true)
        {
            bool hasMore = !_isInterrupted && !HasGivenUp && StartMany(phase, end);
            _driver.Submit();
            if (_driver.InFlight == 0 && !hasMore && !_isInterrupted)
            {
                _cursor = 0;
                return true;
            }

            int count = _driver.InFlight == 0 ? 0 : _wait.Collect(_completions);
            foreach (ref readonly BlockCompletion completion in _completions.AsSpan(0, count))
            {
                Finish(in completion);
            }

            Volatile.Write(ref _operations, _operations + count);
            lastCompletion = count > 0 ? Stopwatch.GetTimestamp() : lastCompletion;
            if (count == 0 && _isInterrupted)
            {
                return false;
            }

            if (Stopwatch.GetElapsedTime(lastCompletion) > _settings.StallLimit)
            {
                throw TimedLoad.Stalled(_driver, _settings);
            }
        }
    }

    /// <summary>Uses all idle slots.</summary>
    /// <returns>Whether the phase has more to do.</returns>
    private bool StartMany(Phase phase, long end)
    {
        bool hasTime = phase != Phase.Mix || Stopwatch.GetTimestamp() < end;
        for (int left = _idle.Count; left > 0 && hasTime; left--)
        {
            if (phase == Phase.Mix)
            {
                StartRandom();
                continue;
            }

            if (_cursor == _generations.Length)
            {
                return false;
            }

            Start(phase == Phase.WriteAll ? Kind.Write : Kind.Read, _cursor++);
        }

        return hasTime;
    }

    private void StartRandom()
    {
        if (_hasFlush && _random.Below(FlushInterval) == 0)
        {
            int slot = _idle.Pop();
            _requests[slot] = new Request(Kind.Flush, 0, 0);
            Added(_driver.TryFlush(slot));
            return;
        }

        int block = (int)_random.Below((ulong)_generations.Length);
        if (!_inUse[block])
        {
            Start(_random.Happens(_readPercent) ? Kind.Read : Kind.Write, block);
        }
    }

    private void Start(Kind kind, int block)
    {
        int slot = _idle.Pop();
        uint generation = kind == Kind.Write ? _generations[block] + 1 : _generations[block];
        _requests[slot] = new Request(kind, block, generation);
        _inUse[block] = true;
        Span<byte> data = _driver.Data(slot);
        if (kind == Kind.Write)
        {
            _pattern.Fill(data, SectorOf(block), generation);
            Added(_driver.TryWrite(slot, SectorOf(block), (uint)_blockSize));
        }
        else
        {
            data.Fill(BlockPattern.Untouched);
            Added(_driver.TryRead(slot, SectorOf(block), (uint)_blockSize));
        }
    }

    private void Finish(in BlockCompletion completion)
    {
        Request request = _requests[completion.Slot];
        _idle.Push(completion.Slot);
        if (completion.Status != BlockStatus.Ok)
        {
            Fail(in request, $"the device answered {completion.Status}");
        }

        if (request.Kind == Kind.Flush)
        {
            Flushes++;
            return;
        }

        _inUse[request.Block] = false;
        if (request.Kind == Kind.Write)
        {
            _generations[request.Block] = request.Generation;
            WrittenBlocks++;
        }
        else if (completion.Status == BlockStatus.Ok)
        {
            VerifiedBlocks++;
            Span<byte> data = _driver.Data(completion.Slot);
            string? problem = _pattern.Diagnose(data, SectorOf(request.Block), request.Generation);
            if (problem is not null)
            {
                Fail(in request, problem);
            }
        }
    }

    private void Fail(in Request request, string problem)
    {
        ulong block = _firstBlock + (ulong)request.Block;
        string what = request.Kind switch
        {
            Kind.Read => $"read of block {block} (offset {block * (ulong)_blockSize}, {_blockSize} bytes)",
            Kind.Write => $"write of block {block} (offset {block * (ulong)_blockSize}, {_blockSize} bytes)",
            _ => "flush",
        };
        if (!HasGivenUp)
        {
            _failures.Add($"{what}: {problem}");
        }
    }

    private static void Added(bool wasAdded)
    {
        if (!wasAdded)
        {
            throw new IOException("the virtqueue is too small for the queue depth: raise --queue-size");
        }
    }

    private ulong SectorOf(int block) => (_firstBlock + (ulong)block) * ((ulong)_blockSize / BlockConfig.SectorBytes);

    private readonly record struct Request(Kind Kind, int Block, uint Generation);
}
