// The options of "outboard block", in the order in which --help shows them.
using System.CommandLine;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Text;
using Outboard.Devices.Block.Backends;
using Outboard.Linux.Files;

namespace Outboard.Cli.Block;

/// <summary>The options, and how they become <see cref="BlockSettings"/>.</summary>
internal sealed class BlockOptions
{
    /// <summary>A vring's index has eight bits in the messages that pass its notifiers.</summary>
    private const int MostQueues = 256;

    /// <summary>Largest split virtqueue.</summary>
    private const int LargestQueue = 32768;

    private const int MostThreads = 256;
    private const int LongestPollingUs = 1_000_000;
    private const int LongestDelayMs = 60_000;

    private readonly Option<string?> _socketPath = TypedOptions.Text(
        "--socket-path", "PATH", "Listen on a UNIX socket at PATH.");

    private readonly Option<int?> _descriptor = TypedOptions.Number(
        "--fd", "N", "Use the inherited socket N, connected or listening. LISTEN_FDS=1 is understood, too.", 0, int.MaxValue);

    private readonly Option<bool> _capabilities = TypedOptions.Switch(
        "--print-capabilities", "Print what this back-end can do as JSON and exit, whatever else is given.");

    private readonly Option<string?> _file = TypedOptions.Text(
        "--blk-file", "PATH", "Serve a raw image file or a block device.");

    private readonly Option<long?> _memory = TypedOptions.Size(
        "--memory-size", "Serve memory of this size, empty at the start and gone at the end.");

    private readonly Option<long?> _null = TypedOptions.Size(
        "--null-size", "Serve nothing of this size: reads give zeroes, writes are dropped.");

    private readonly Option<bool> _readOnly = TypedOptions.Switch("--read-only", "Refuse writes.");

    private readonly Option<bool> _direct = TypedOptions.Switch("--direct", "Bypass the page cache (O_DIRECT).");

    private readonly Option<string?> _serial = TypedOptions.Text(
        "--serial", "TEXT", "The disk's serial number, at most 20 ASCII characters.");

    private readonly Option<int?> _blockSize = TypedOptions.PowerOfTwo(
        "--block-size", "N", "Logical block size in bytes. [default: 512, or what --direct needs]", 512, 4096);

    private readonly Option<bool> _writeCache = TypedOptions.Switch(
        "--write-cache", "Completed writes may be lost until the guest flushes. [default]");

    private readonly Option<bool> _noWriteCache = TypedOptions.Switch(
        "--no-write-cache", "A completed write is durable, unless the guest turns the cache on.");

    private readonly Option<int?> _queues = TypedOptions.Number(
        "--num-queues", "N", "Number of virtqueues. [default: 1]", 1, MostQueues);

    private readonly Option<int?> _queueSize = TypedOptions.PowerOfTwo(
        "--queue-size", "N", "Largest size of a virtqueue. [default: 1024]", 2, LargestQueue);

    private readonly Option<int?> _threads = TypedOptions.Number(
        "--threads", "N", "Threads for the queues. [default: one for each, at most one for each CPU]", 1, MostThreads);

    private readonly Option<int?> _polling = TypedOptions.Number(
        "--poll-us", "N", "Longest time in microseconds that a thread polls before it sleeps. [default: 50]",
        0, LongestPollingUs);

    private readonly Option<string?> _engine = TypedOptions.Choice(
        "--io", "How files are read and written. [default: auto]", "auto", "io_uring", "threads");

    private readonly Option<bool> _watchSize = TypedOptions.Switch(
        "--watch-size", "Look every second whether the file was resized. (SIGHUP makes it look at once, always.)");

    private readonly Option<long?> _faultSeed = TypedOptions.Number64(
        "--fault-seed", "N", "Where the random numbers of the two below begin. [default: 1]");

    private readonly Option<double?> _faultErrors = TypedOptions.Fraction(
        "--fault-error-rate", "X", "For tests: this share of the requests fails, 0 to 1.");

    private readonly Option<double?> _faultDelays = TypedOptions.Fraction(
        "--fault-delay-rate", "X", "For tests: this share of the requests is delayed, 0 to 1.");

    private readonly Option<int?> _faultDelay = TypedOptions.Number(
        "--fault-delay", "MS", "For tests: how long requests are delayed; all of them without --fault-delay-rate.",
        1, LongestDelayMs);

    private readonly Option<bool> _verbose = TypedOptions.Switch("--verbose", "Log more.");

    private readonly Option<bool> _quiet = TypedOptions.Switch("--quiet", "Log warnings and errors only.");

    public void AddTo(Command command)
    {
        Option[] all =
        [
            _socketPath, _descriptor, _capabilities, _file, _memory, _null, _readOnly, _direct, _serial, _blockSize,
            _writeCache, _noWriteCache, _queues, _queueSize, _threads, _polling, _engine, _watchSize,
            _faultSeed, _faultErrors, _faultDelays, _faultDelay, _verbose, _quiet,
        ];
        foreach (Option option in all)
        {
            command.Add(option);
        }
    }

    public BlockSettings Read(ParseResult result)
    {
        Refuse(result, _writeCache, _noWriteCache);
        Refuse(result, _verbose, _quiet);
        return new BlockSettings
        {
            SocketPath = result.GetValue(_socketPath),
            DescriptorNumber = result.GetValue(_descriptor),
            FilePath = result.GetValue(_file),
            MemorySizeBytes = result.GetValue(_memory),
            NullSizeBytes = result.GetValue(_null),
            IsReadOnly = result.GetValue(_readOnly),
            IsDirect = result.GetValue(_direct),
            Serial = result.GetValue(_serial) ?? string.Empty,
            BlockSize = result.GetValue(_blockSize),
            HasWriteCache = !result.GetValue(_noWriteCache),
            QueueCount = result.GetValue(_queues) ?? 1,
            QueueSize = result.GetValue(_queueSize),
            ThreadCount = result.GetValue(_threads) ?? 0,
            MaxPolling = result.GetValue(_polling) is { } us ? TimeSpan.FromMicroseconds(us) : null,
            FileEngine = ReadEngine(result),
            WatchesSize = result.GetValue(_watchSize),
            Faults = ReadFaults(result),
            LogLevel = result.GetValue(_verbose) ? LogLevel.Debug
                : result.GetValue(_quiet) ? LogLevel.Warning
                : LogLevel.Information,
        };
    }

    private static void Refuse(ParseResult result, Option<bool> one, Option<bool> other)
    {
        if (result.GetValue(one) && result.GetValue(other))
        {
            throw new CommandLineException($"{one.Name} and {other.Name} exclude each other: give one of them");
        }
    }

    private FileIoEngineKind ReadEngine(ParseResult result) => result.GetValue(_engine) switch
    {
        "io_uring" => FileIoEngineKind.IoUring,
        "threads" => FileIoEngineKind.Threads,
        _ => FileIoEngineKind.Automatic,
    };

    private FaultPlan? ReadFaults(ParseResult result)
    {
        double? errors = result.GetValue(_faultErrors);
        double? delays = result.GetValue(_faultDelays);
        int? delayMs = result.GetValue(_faultDelay);
        long? seed = result.GetValue(_faultSeed);
        if (errors is null && delays is null && delayMs is null)
        {
            return seed is null
                ? null
                : throw new CommandLineException("--fault-seed: no faults; give --fault-error-rate or --fault-delay as well");
        }

        FaultPlan plan = new()
        {
            ErrorRate = errors ?? 0,
            DelayRate = delays ?? (delayMs is null ? 0 : 1),
        };
        plan = seed is null ? plan : plan with { Seed = (ulong)seed };
        return delayMs is null ? plan : plan with { Delay = TimeSpan.FromMilliseconds(delayMs.Value) };
    }
}
