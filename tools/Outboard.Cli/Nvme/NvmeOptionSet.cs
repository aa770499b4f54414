// The options of "outboard nvme", in the order in which --help shows them.
using System.CommandLine;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.Devices.Nvme;
using Outboard.Linux.Files;

namespace Outboard.Cli.Nvme;

/// <summary>The options, and how they become <see cref="NvmeSettings"/>.</summary>
internal sealed class NvmeOptionSet
{
    private const int LargestQueue = 4096;

    private readonly ValueOption<string> _socket = ValueOption.Text(
        "--vfio-user-socket", "PATH", "Listen for vfio-user clients on a UNIX socket at PATH.");

    private readonly ValueOption<string> _file = ValueOption.Text(
        "--blk-file", "PATH", "A raw image file or a block device: the first namespace.");

    private readonly ValueOption<long?> _memory = ValueOption.Size(
        "--memory-size", "Memory of this size, empty at the start and gone at the end: the first namespace.");

    private readonly ValueOption<long?> _null = ValueOption.Size(
        "--null-size", "Nothing of this size, where writes are dropped: the first namespace.");

    private readonly RepeatedOption _namespaces = new(
        "--namespace", "PATH[,OPTION...]",
        "One more namespace, of a file or a block device; may be given again. OPTION is read-only or block-size=N.");

    private readonly SwitchOption _readOnly = new("--read-only", "Refuse writes, to all namespaces.");

    private readonly SwitchOption _direct = new("--direct", "Bypass the page cache (O_DIRECT).");

    private readonly SwitchOption _incoming = new(
        "--incoming", "A guest will arrive by live migration: lock the files when it does, not before.");

    private readonly SwitchOption _noLock = new(
        "--no-lock", "Do not lock the files. Two guests that write at the same time destroy what is in one.");

    private readonly ValueOption<string> _serial = ValueOption.Text(
        "--serial", "TEXT", "The serial number, at most 20 ASCII characters. [default: made of the first file's path]");

    private readonly ValueOption<string> _model = ValueOption.Text(
        "--model", "TEXT", "The model number, at most 40 ASCII characters.");

    private readonly ValueOption<int?> _blockSize = ValueOption.PowerOfTwo(
        "--block-size", "N", "Logical block size, 512 or 4096. [default: 512, or what --direct needs]", 512, 4096);

    private readonly SwitchOption _writeCache = new(
        "--write-cache", "Completed writes may be lost until the guest flushes. [default]");

    private readonly SwitchOption _noWriteCache = new(
        "--no-write-cache", "A completed write is durable, unless the guest turns the cache on.");

    private readonly ValueOption<int?> _queues = ValueOption.Number(
        "--num-queues", "N", "I/O queue pairs that a guest may make. [default: 32]", 1, NvmeOptions.MaxQueuePairs);

    private readonly ValueOption<int?> _queueSize = ValueOption.PowerOfTwo(
        "--queue-size", "N", "Most entries of an I/O queue. [default: 1024]", 2, LargestQueue);

    private readonly ThreadOptions _threads = new("one for each CPU");

    private readonly ValueOption<string> _engine = ValueOption.Choice(
        "--io", "How files are read and written. [default: auto]", "auto", "io_uring", "threads");

    private readonly SwitchOption _watchSize = new(
        "--watch-size", "Look every second whether a file was resized. (SIGHUP makes it look at once, always.)");

    private readonly SwitchOption _noMsix = FunctionServer.CreateNoMsixOption();

    private readonly SwitchOption _noShadow = new(
        "--no-shadow-doorbells", "For tests: do not offer doorbells in memory.");

    private readonly LogOptions _log = new();

    public void AddTo(Command command)
    {
        Option[] all =
        [
            _socket, _file, _memory, _null, _namespaces,
            _readOnly, _direct, _incoming, _noLock, _serial, _model, _blockSize, _writeCache, _noWriteCache,
            _queues, _queueSize, .. _threads.All, _engine, _watchSize, _noMsix, _noShadow,
            .. _log.All,
        ];
        foreach (Option option in all)
        {
            command.Add(option);
        }
    }

    public NvmeSettings Read(ParseResult result)
    {
        SwitchOption.RefuseBoth(result, _writeCache, _noWriteCache);
        SwitchOption.RefuseBoth(result, _incoming, _noLock);
        return new NvmeSettings
        {
            SocketPath = _socket.Read(result)
                ?? throw new CommandLineException("no socket: give --vfio-user-socket=PATH"),
            FilePath = _file.Read(result),
            MemorySizeBytes = _memory.Read(result),
            NullSizeBytes = _null.Read(result),
            Namespaces = _namespaces.Read(result),
            IsReadOnly = _readOnly.Read(result),
            IsDirect = _direct.Read(result),
            IsIncoming = _incoming.Read(result),
            IsUnlocked = _noLock.Read(result),
            Serial = _serial.Read(result),
            Model = _model.Read(result),
            BlockSize = _blockSize.Read(result) ?? 0,
            HasWriteCache = !_noWriteCache.Read(result),
            QueuePairs = _queues.Read(result),
            QueueSize = _queueSize.Read(result),
            Threads = _threads.Read(result),
            FileEngine = _engine.Read(result) switch
            {
                "io_uring" => FileIoEngineKind.IoUring,
                "threads" => FileIoEngineKind.Threads,
                _ => FileIoEngineKind.Automatic,
            },
            WatchesSize = _watchSize.Read(result),
            HasMsix = !_noMsix.Read(result),
            HasShadowDoorbells = !_noShadow.Read(result),
            LogLevel = _log.Read(result),
        };
    }
}
