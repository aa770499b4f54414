// What a load found out.
namespace Outboard.Cli.Bench;

/// <summary>The outcome of a load.</summary>
internal sealed record LoadResult
{
    public required LoadSettings Settings { get; init; }

    public required ulong CapacityBytes { get; init; }

    public required long RangeBytes { get; init; }

    /// <summary>Whether the event index was negotiated.</summary>
    public required bool HasEventIndex { get; init; }

    /// <summary>Nanoseconds of a cache line between the two processors and back; null when not measured.</summary>
    public double? CpuDistanceNs { get; init; }

    public required TimeSpan Elapsed { get; init; }

    /// <summary>I/O errors and wrong blocks: the first ones in words.</summary>
    public required IReadOnlyList<string> Failures { get; init; }

    public long FailureCount { get; init; }

    public LatencyHistogram Latency { get; init; } = new();

    /// <summary>Completions a second in the median window of 10 ms.</summary>
    public double MedianWindowRate { get; init; }

    /// <summary>Back-ends that came after another one during the load.</summary>
    public int Reconnections { get; init; }

    public long Batches { get; init; }

    public long Sleeps { get; init; }

    /// <summary>Bytes that the threads of the load allocated while they ran.</summary>
    public long AllocatedBytes { get; init; }

    /// <summary>Processor time of this process while it measured.</summary>
    public TimeSpan FrontendCpu { get; init; }

    /// <summary>The back-end's use while it was measured, memory at the end; null without a process id.</summary>
    public ProcessUsage? Backend { get; init; }

    /// <summary>With verification: blocks compared, blocks written, flushes.</summary>
    public (long Verified, long Written, long Flushes) Verification { get; init; }

    public long Operations => Settings.Verify ? Verification.Verified + Verification.Written : Latency.Count;

    public double OperationsPerSecond => Elapsed > TimeSpan.Zero ? Operations / Elapsed.TotalSeconds : 0;

    public double MegabytesPerSecond => OperationsPerSecond * Settings.BlockSize / 1e6;

    public bool IsGood => FailureCount == 0;
}
