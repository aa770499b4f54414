// The options of "outboard bench block", in the order in which --help shows them.
using System.CommandLine;
using System.Globalization;
using Outboard.Cli.Text;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Bench;

/// <summary>The options, and how they become <see cref="LoadSettings"/>.</summary>
internal sealed class BenchBlockOptions
{
    private const int MostQueues = 256;
    private const int MostDepth = 4096;
    private const int MostBlockBytes = 64 << 20;
    private const int MostCpu = 8191;
    private const int LongestSeconds = 24 * 3600;

    private readonly ValueOption<string> _socketPath = ValueOption.Text(
        "--socket-path", "PATH", "The back-end's socket.");

    private readonly ValueOption<string> _listen = ValueOption.Text(
        "--listen", "PATH", "Listen at PATH instead, for a back-end that connects.");

    private readonly ValueOption<double?> _reconnect = ValueOption.Seconds(
        "--reconnect", "Wait so long for the back-end, also when it goes away, and go on. [default: give up]",
        LongestSeconds);

    private readonly SwitchOption _noInflight = new(
        "--no-inflight", "Do without in-flight tracking: after a crash requests are submitted again from here.");

    private readonly ValueOption<int?> _depth = ValueOption.Number(
        "--queue-depth", "N", "Requests in flight on each queue. [default: 32]", 1, MostDepth);

    private readonly ValueOption<long?> _blockSize = ValueOption.Size(
        "--block-size", "Bytes of a request. [default: 4K]");

    private readonly ValueOption<int?> _reads = ValueOption.Number(
        "--read-percent", "N", "Share of reads; the rest writes. [default: 100, with --verify 50]", 0, 100);

    private readonly SwitchOption _sequential = new(
        "--sequential", "Go through the disk in order instead of at random.");

    private readonly ValueOption<int?> _queues = ValueOption.Number(
        "--queues", "N", "Queues, with a thread each. [default: 1]", 1, MostQueues);

    private readonly ValueOption<int?> _queueSize = ValueOption.PowerOfTwo(
        "--queue-size", "N", "Descriptors of a virtqueue. [default: enough, 256 at least]", 2, SplitRing.MaxSize);

    private readonly ValueOption<double?> _duration = ValueOption.Seconds(
        "--duration", "Measured time in seconds. [default: 5]", LongestSeconds);

    private readonly ValueOption<double?> _warmUp = ValueOption.Seconds(
        "--warm-up", "Time before that in seconds. [default: 0.5]", LongestSeconds);

    private readonly ValueOption<long?> _range = ValueOption.Size(
        "--range", "Use this much of the disk, from its start. [default: all]");

    private readonly SwitchOption _verify = new(
        "--verify", "Write all blocks, read and rewrite at random for the duration, read all; compare every block "
        + "read. OVERWRITES the range.");

    private readonly ValueOption<string> _mode = ValueOption.Choice(
        "--mode", "irq: sleep, collect, re-arm, as a guest does; eventfd: sleep when nothing is there; poll: never "
        + "sleep. [default: irq]", "irq", "eventfd", "poll");

    private readonly SwitchOption _indirect = new("--indirect", "Use indirect descriptors.");

    private readonly SwitchOption _packed = new("--packed", "Use packed virtqueues.");

    private readonly SwitchOption _inOrder = new("--in-order", "Use VIRTIO_F_IN_ORDER.");

    private readonly SwitchOption _noEventIndex = new("--no-event-idx", "Do without VIRTIO_F_EVENT_IDX.");

    private readonly ValueOption<string> _memory = ValueOption.Choice(
        "--memory", "How memory is passed: ADD_MEM_REG if the back-end has it, or SET_MEM_TABLE. [default: slots]",
        "slots", "table");

    private readonly ValueOption<IReadOnlyList<int>> _cpus = ValueOption.Processors(
        "--cpu", "Processors for the threads, in turn, such as 1 or 0,1.");

    private readonly ValueOption<int?> _process = ValueOption.Number(
        "--backend-pid", "N", "The back-end's process: report its CPU time, sleeps and memory, too.", 1, int.MaxValue);

    private readonly ValueOption<int?> _distance = ValueOption.Number(
        "--distance-to", "CPU", "Measure first how far this processor is from the first of --cpu, and report it.",
        0, MostCpu);

    private readonly SwitchOption _json = new("--json", "Print one JSON object.");

    public void AddTo(Command command)
    {
        Option[] all =
        [
            _socketPath, _listen, _reconnect, _noInflight,
            _depth, _blockSize, _reads, _sequential, _queues, _queueSize, _duration, _warmUp, _range,
            _verify, _mode, _indirect, _packed, _inOrder, _noEventIndex, _memory, _cpus, _process,
            _distance, _json,
        ];
        foreach (Option option in all)
        {
            command.Add(option);
        }
    }

    public bool WantsJson(ParseResult result) => _json.Read(result);

    public LoadSettings Read(ParseResult result)
    {
        string? listen = _listen.Read(result);
        string? connect = _socketPath.Read(result);
        if (listen is not null && connect is not null)
        {
            throw new CommandLineException("--socket-path and --listen exclude each other: give one of them");
        }

        string socket = connect ?? listen
            ?? throw new CommandLineException("--socket-path is missing: give the back-end's socket");
        bool verify = _verify.Read(result);
        return new LoadSettings
        {
            SocketPath = socket,
            Listens = listen is not null,
            ReconnectLimit = TimeSpan.FromSeconds(_reconnect.Read(result) ?? 0),
            TrackInflight = !_noInflight.Read(result),
            QueueDepth = _depth.Read(result) ?? 32,
            BlockSize = ReadBlockSize(result),
            ReadPercent = _reads.Read(result) ?? (verify ? 50 : 100),
            IsSequential = _sequential.Read(result),
            QueueCount = _queues.Read(result) ?? 1,
            QueueSize = _queueSize.Read(result) ?? 0,
            Duration = TimeSpan.FromSeconds(_duration.Read(result) ?? 5),
            WarmUp = TimeSpan.FromSeconds(_warmUp.Read(result) ?? 0.5),
            RangeBytes = _range.Read(result) ?? 0,
            Verify = verify,
            Mode = _mode.Read(result) switch
            {
                "poll" => WaitMode.Poll,
                "eventfd" => WaitMode.EventFd,
                _ => WaitMode.Irq,
            },
            UseIndirect = _indirect.Read(result),
            UsePacked = _packed.Read(result),
            UseInOrder = _inOrder.Read(result),
            UseEventIndex = !_noEventIndex.Read(result),
            UseMemoryTable = _memory.Read(result) == "table",
            Cpus = _cpus.Read(result) ?? [],
            DistanceTo = _distance.Read(result) ?? -1,
            BackendProcessId = _process.Read(result) ?? 0,
        };
    }

    private int ReadBlockSize(ParseResult result)
    {
        long size = _blockSize.Read(result) ?? 4096;
        return size % BlockConfig.SectorBytes == 0 && size <= MostBlockBytes
            ? (int)size
            : throw new CommandLineException(
                $"--block-size={size}: give a multiple of {BlockConfig.SectorBytes} up to 64M");
    }
}
