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
    private const int LongestSeconds = 24 * 3600;

    private readonly Option<string?> _socketPath = TypedOptions.Text(
        "--socket-path", "PATH", "The back-end's socket.");

    private readonly Option<int?> _depth = TypedOptions.Number(
        "--queue-depth", "N", "Requests in flight on each queue. [default: 32]", 1, MostDepth);

    private readonly Option<long?> _blockSize = TypedOptions.Size(
        "--block-size", "Bytes of a request. [default: 4K]");

    private readonly Option<int?> _reads = TypedOptions.Number(
        "--read-percent", "N", "Share of reads; the rest writes. [default: 100, with --verify 50]", 0, 100);

    private readonly Option<bool> _sequential = TypedOptions.Switch(
        "--sequential", "Go through the disk in order instead of at random.");

    private readonly Option<int?> _queues = TypedOptions.Number(
        "--queues", "N", "Queues, with a thread each. [default: 1]", 1, MostQueues);

    private readonly Option<int?> _queueSize = TypedOptions.PowerOfTwo(
        "--queue-size", "N", "Descriptors of a virtqueue. [default: enough, 256 at least]", 2, SplitRing.MaxSize);

    private readonly Option<double?> _duration = Seconds("--duration", "Measured time in seconds. [default: 5]");

    private readonly Option<double?> _warmUp = Seconds("--warm-up", "Time before that in seconds. [default: 0.5]");

    private readonly Option<long?> _range = TypedOptions.Size(
        "--range", "Use this much of the disk, from its start. [default: all]");

    private readonly Option<bool> _verify = TypedOptions.Switch(
        "--verify", "Write all blocks, read and rewrite at random for the duration, read all; compare every block read. "
        + "OVERWRITES the range.");

    private readonly Option<string?> _mode = TypedOptions.Choice(
        "--mode", "irq: sleep, collect, re-arm, as a guest does; eventfd: sleep when nothing is there; poll: never sleep. "
        + "[default: irq]", "irq", "eventfd", "poll");

    private readonly Option<bool> _indirect = TypedOptions.Switch("--indirect", "Use indirect descriptors.");

    private readonly Option<bool> _noEventIndex = TypedOptions.Switch("--no-event-idx", "Do without VIRTIO_F_EVENT_IDX.");

    private readonly Option<string?> _memory = TypedOptions.Choice(
        "--memory", "How memory is passed: ADD_MEM_REG if the back-end has it, or SET_MEM_TABLE. [default: slots]",
        "slots", "table");

    private readonly Option<string?> _cpus = TypedOptions.Text(
        "--cpu", "LIST", "Processors for the threads, in turn, such as 1 or 0,1.");

    private readonly Option<int?> _process = TypedOptions.Number(
        "--backend-pid", "N", "The back-end's process: report its CPU time, sleeps and memory, too.", 1, int.MaxValue);

    private readonly Option<bool> _json = TypedOptions.Switch("--json", "Print one JSON object.");

    public void AddTo(Command command)
    {
        Option[] all =
        [
            _socketPath, _depth, _blockSize, _reads, _sequential, _queues, _queueSize, _duration, _warmUp, _range,
            _verify, _mode, _indirect, _noEventIndex, _memory, _cpus, _process, _json,
        ];
        foreach (Option option in all)
        {
            command.Add(option);
        }
    }

    public bool WantsJson(ParseResult result) => result.GetValue(_json);

    public LoadSettings Read(ParseResult result)
    {
        string socket = result.GetValue(_socketPath)
            ?? throw new CommandLineException("--socket-path is missing: give the back-end's socket");
        bool verify = result.GetValue(_verify);
        return new LoadSettings
        {
            SocketPath = socket,
            QueueDepth = result.GetValue(_depth) ?? 32,
            BlockSize = ReadBlockSize(result),
            ReadPercent = result.GetValue(_reads) ?? (verify ? 50 : 100),
            IsSequential = result.GetValue(_sequential),
            QueueCount = result.GetValue(_queues) ?? 1,
            QueueSize = result.GetValue(_queueSize) ?? 0,
            Duration = TimeSpan.FromSeconds(result.GetValue(_duration) ?? 5),
            WarmUp = TimeSpan.FromSeconds(result.GetValue(_warmUp) ?? 0.5),
            RangeBytes = result.GetValue(_range) ?? 0,
            Verify = verify,
            Mode = result.GetValue(_mode) switch
            {
                "poll" => WaitMode.Poll,
                "eventfd" => WaitMode.EventFd,
                _ => WaitMode.Irq,
            },
            UseIndirect = result.GetValue(_indirect),
            UseEventIndex = !result.GetValue(_noEventIndex),
            UseMemoryTable = result.GetValue(_memory) == "table",
            Cpus = ReadCpus(result.GetValue(_cpus)),
            BackendProcessId = result.GetValue(_process) ?? 0,
        };
    }

    private int ReadBlockSize(ParseResult result)
    {
        long size = result.GetValue(_blockSize) ?? 4096;
        return size % BlockConfig.SectorBytes == 0 && size <= MostBlockBytes
            ? (int)size
            : throw new CommandLineException($"--block-size={size}: give a multiple of {BlockConfig.SectorBytes} up to 64M");
    }

    private static List<int> ReadCpus(string? text)
    {
        List<int> cpus = [];
        foreach (string part in text?.Split(',') ?? [])
        {
            cpus.Add(int.TryParse(part, NumberStyles.None, CultureInfo.InvariantCulture, out int cpu)
                ? cpu
                : throw new CommandLineException($"--cpu={text}: give processor numbers, such as 1 or 0,1"));
        }

        return cpus;
    }

    private static Option<double?> Seconds(string name, string description) => new(name)
    {
        Description = description,
        HelpName = "SECONDS",
        CustomParser = result =>
        {
            string text = result.Tokens[0].Value;
            if (double.TryParse(text, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture, out double seconds)
                && seconds <= LongestSeconds)
            {
                return seconds;
            }

            result.AddError($"{name}={text}: give seconds, such as 5 or 0.5");
            return null;
        },
    };
}
