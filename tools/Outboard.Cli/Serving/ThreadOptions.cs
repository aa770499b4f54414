// How many threads serve queues, on which processors, and how long they look for work: for every command that has such.
using System.CommandLine;
using Outboard.Cli.Text;
using Outboard.Linux.Threads;
using Outboard.Virtio;

namespace Outboard.Cli.Serving;

/// <summary>What was asked for. Null means that nothing was said.</summary>
internal sealed record ThreadSettings
{
    /// <summary>Threads for the queues; 0 for as many as the device wants.</summary>
    public int Count { get; init; }

    /// <summary>Processors for those threads, in turn; none for wherever the system puts them.</summary>
    public IReadOnlyList<int> Cpus { get; init; } = [];

    public TimeSpan? MaxPolling { get; init; }

    /// <summary>Worker options with what was asked for.</summary>
    public QueueWorkerOptions Apply(QueueWorkerOptions worker)
    {
        int started = 0;
        return worker with
        {
            MaxPolling = MaxPolling ?? worker.MaxPolling,
            OnThreadStart = Cpus.Count == 0
                ? worker.OnThreadStart
                : () => ThreadPlacement.PinCurrentThread(
                    Cpus[(Interlocked.Increment(ref started) - 1) % Cpus.Count]),
        };
    }
}

/// <summary>The options, and how they become <see cref="ThreadSettings"/>.</summary>
/// <param name="usualCount">What --help says of the number of threads when none is given.</param>
internal sealed class ThreadOptions(string usualCount)
{
    private const int MostThreads = 256;
    private const int LongestPollingUs = 1_000_000;

    private readonly ValueOption<int?> _threads = ValueOption.Number(
        "--threads", "N", $"Threads for the queues. [default: {usualCount}]", 1, MostThreads);

    private readonly ValueOption<IReadOnlyList<int>> _cpus = ValueOption.Processors(
        "--cpu", "Processors for the threads, in turn, such as 1 or 0,1. [default: all]");

    private readonly ValueOption<int?> _polling = ValueOption.Number(
        "--poll-us", "N", "Longest time in microseconds that a thread polls before it sleeps. [default: 50]",
        0, LongestPollingUs);

    private readonly SwitchOption _busyPoll = new(
        "--busy-poll", "Poll without end while a driver's rings are there: each thread keeps a CPU busy.");

    /// <summary>The options in the order of --help.</summary>
    public IEnumerable<Option> All => [_threads, _cpus, _polling, _busyPoll];

    /// <exception cref="CommandLineException">A value is wrong, or two exclude each other.</exception>
    public ThreadSettings Read(ParseResult result) => new()
    {
        Count = _threads.Read(result) ?? 0,
        Cpus = ReadCpus(result),
        MaxPolling = ReadPolling(result),
    };

    private TimeSpan? ReadPolling(ParseResult result)
    {
        TimeSpan? most = _polling.Read(result) is { } us ? TimeSpan.FromMicroseconds(us) : null;
        if (!_busyPoll.Read(result))
        {
            return most;
        }

        return most is null
            ? Timeout.InfiniteTimeSpan
            : throw new CommandLineException("--busy-poll and --poll-us exclude each other: give one of them");
    }

    private IReadOnlyList<int> ReadCpus(ParseResult result)
    {
        IReadOnlyList<int> cpus = _cpus.Read(result) ?? [];
        IReadOnlyList<int> available = cpus.Count == 0 ? [] : ThreadPlacement.AvailableCpus;
        foreach (int cpu in cpus.Where(cpu => !available.Contains(cpu)))
        {
            throw new CommandLineException(
                $"--cpu={string.Join(',', cpus)}: this process may not use processor {cpu}; "
                + $"choose from {string.Join(',', available)}");
        }

        return cpus;
    }
}
