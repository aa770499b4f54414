// The options of "outboard block", in the order in which --help shows them.
using System.CommandLine;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Serving;
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

    private readonly ValueOption<string> _socketPath = ValueOption.Text(
        "--socket-path", "PATH", "Listen on a UNIX socket at PATH.");

    private readonly ValueOption<string> _connect = ValueOption.Text(
        "--connect", "PATH", "Connect to a front-end that listens at PATH, again whenever it comes back.");

    private readonly ValueOption<int?> _descriptor = ValueOption.Number(
        "--fd", "N", "Use the inherited socket N, connected or listening. LISTEN_FDS=1 is understood, too.",
        0, int.MaxValue);

    private readonly ValueOption<string> _vfioUserPath = ValueOption.Text(
        "--vfio-user-socket", "PATH", "Be a PCI device on a UNIX socket at PATH: a vfio-user server.");

    private readonly SwitchOption _capabilities = new(
        "--print-capabilities", "Print what this back-end can do as JSON and exit, whatever else is given.");

    private readonly ValueOption<string> _file = ValueOption.Text(
        "--blk-file", "PATH", "Serve a raw image file or a block device.");

    private readonly ValueOption<long?> _memory = ValueOption.Size(
        "--memory-size", "Serve memory of this size, empty at the start and gone at the end.");

    private readonly ValueOption<long?> _null = ValueOption.Size(
        "--null-size", "Serve nothing of this size: writes are dropped, reads leave the buffers as they are.");

    private readonly SwitchOption _readOnly = new("--read-only", "Refuse writes.");

    private readonly SwitchOption _direct = new("--direct", "Bypass the page cache (O_DIRECT).");

    private readonly SwitchOption _incoming = new(
        "--incoming", "A guest will arrive by live migration: lock the file when it does, not before.");

    private readonly SwitchOption _noLock = new(
        "--no-lock", "Do not lock the file. Two guests that write at the same time destroy what is in it.");

    private readonly ValueOption<string> _serial = ValueOption.Text(
        "--serial", "TEXT", "The disk's serial number, at most 20 ASCII characters.");

    private readonly ValueOption<int?> _blockSize = ValueOption.PowerOfTwo(
        "--block-size", "N", "Logical block size in bytes. [default: 512, or what --direct needs]", 512, 4096);

    private readonly SwitchOption _writeCache = new(
        "--write-cache", "Completed writes may be lost until the guest flushes. [default]");

    private readonly SwitchOption _noWriteCache = new(
        "--no-write-cache", "A completed write is durable, unless the guest turns the cache on.");

    private readonly ValueOption<int?> _queues = ValueOption.Number(
        "--num-queues", "N", "Number of virtqueues. [default: 1]", 1, MostQueues);

    private readonly ValueOption<int?> _queueSize = ValueOption.PowerOfTwo(
        "--queue-size", "N", "Largest size of a virtqueue. [default: 1024]", 2, LargestQueue);

    private readonly SwitchOption _splitRings = new(
        "--split-rings", "For tests: do not offer packed virtqueues.");

    private readonly ValueOption<int?> _threads = ValueOption.Number(
        "--threads", "N", "Threads for the queues. [default: one for each, at most one for each CPU]", 1, MostThreads);

    private readonly ValueOption<int?> _polling = ValueOption.Number(
        "--poll-us", "N", "Longest time in microseconds that a thread polls before it sleeps. [default: 50]",
        0, LongestPollingUs);

    private readonly ValueOption<string> _engine = ValueOption.Choice(
        "--io", "How files are read and written. [default: auto]", "auto", "io_uring", "threads");

    private readonly SwitchOption _watchSize = new(
        "--watch-size", "Look every second whether the file was resized. (SIGHUP makes it look at once, always.)");

    private readonly ValueOption<long?> _faultSeed = ValueOption.LargeNumber(
        "--fault-seed", "N", "For tests: where the random numbers of the faults begin. [default: 1]");

    private readonly ValueOption<double?> _faultErrors = ValueOption.Fraction(
        "--fault-error-rate", "X", "For tests: this share of the requests fails, 0 to 1.");

    private readonly ValueOption<double?> _faultDelays = ValueOption.Fraction(
        "--fault-delay-rate", "X", "For tests: this share of the requests is delayed, 0 to 1.");

    private readonly ValueOption<int?> _faultDelay = ValueOption.Number(
        "--fault-delay", "MS", "For tests: how long requests are delayed; all of them without --fault-delay-rate.",
        1, LongestDelayMs);

    private readonly SwitchOption _inOrder = InOrderOption.Create();

    private readonly SwitchOption _inband = InbandOption.Create();

    private readonly SwitchOption _verbose = new("--verbose", "Log more.");

    private readonly SwitchOption _quiet = new("--quiet", "Log warnings and errors only.");

    public void AddTo(Command command)
    {
        Option[] all =
        [
            _socketPath, _connect, _descriptor, _vfioUserPath, _capabilities,
            _file, _memory, _null,
            _readOnly, _direct, _incoming, _noLock, _serial, _blockSize,
            _writeCache, _noWriteCache,
            _queues, _queueSize, _splitRings, _threads, _polling, _engine, _watchSize,
            _faultErrors, _faultDelays, _faultDelay, _faultSeed,
            _inOrder, _inband,
            _verbose, _quiet,
        ];
        foreach (Option option in all)
        {
            command.Add(option);
        }
    }

    public BlockSettings Read(ParseResult result)
    {
        Refuse(result, _writeCache, _noWriteCache);
        Refuse(result, _incoming, _noLock);
        Refuse(result, _verbose, _quiet);
        return new BlockSettings
        {
            SocketPath = _socketPath.Read(result),
            PeerPath = _connect.Read(result),
            VfioUserPath = _vfioUserPath.Read(result),
            HasSplitRingsOnly = _splitRings.Read(result),
            DescriptorNumber = _descriptor.Read(result),
            FilePath = _file.Read(result),
            MemorySizeBytes = _memory.Read(result),
            NullSizeBytes = _null.Read(result),
            IsReadOnly = _readOnly.Read(result),
            IsDirect = _direct.Read(result),
            IsIncoming = _incoming.Read(result),
            IsUnlocked = _noLock.Read(result),
            Serial = _serial.Read(result) ?? string.Empty,
            BlockSize = _blockSize.Read(result),
            HasWriteCache = !_noWriteCache.Read(result),
            QueueCount = _queues.Read(result) ?? 1,
            QueueSize = _queueSize.Read(result),
            ThreadCount = _threads.Read(result) ?? 0,
            MaxPolling = _polling.Read(result) is { } us ? TimeSpan.FromMicroseconds(us) : null,
            FileEngine = ReadEngine(result),
            WatchesSize = _watchSize.Read(result),
            Faults = ReadFaults(result),
            IsInOrder = _inOrder.Read(result),
            OffersInbandNotifications = _inband.Read(result),
            LogLevel = _verbose.Read(result) ? LogLevel.Debug
                : _quiet.Read(result) ? LogLevel.Warning
                : LogLevel.Information,
        };
    }

    private static void Refuse(ParseResult result, SwitchOption one, SwitchOption other)
    {
        if (one.Read(result) && other.Read(result))
        {
            string both = $"{one.Name} and {other.Name}";
            throw new CommandLineException($"{both} exclude each other: give one of them");
        }
    }

    private FileIoEngineKind ReadEngine(ParseResult result) => _engine.Read(result) switch
    {
        "io_uring" => FileIoEngineKind.IoUring,
        "threads" => FileIoEngineKind.Threads,
        _ => FileIoEngineKind.Automatic,
    };

    private FaultPlan? ReadFaults(ParseResult result)
    {
        double? errors = _faultErrors.Read(result);
        double? delays = _faultDelays.Read(result);
        int? delayMs = _faultDelay.Read(result);
        long? seed = _faultSeed.Read(result);
        if (errors is null && delays is null && delayMs is null)
        {
            return seed is null
                ? null
                : throw new CommandLineException(
                    "--fault-seed: no faults; give --fault-error-rate or --fault-delay as well");
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
