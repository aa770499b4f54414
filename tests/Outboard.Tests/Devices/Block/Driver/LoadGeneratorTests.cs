// "outboard bench block" against disks that serve well, fail or lie, served in this process; and its parts.
using System.Text.Json;
using Outboard.Cli.Bench;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Tests.Cli;
using Xunit;

namespace Outboard.Tests.Devices.Block.Driver;

public sealed class LoadGeneratorTests
{
    private const int DiskBytes = 4 << 20;

    private static readonly BlockDeviceOptions s_twoQueues = new() { QueueCount = 2 };

    [Theory]
    [InlineData("--mode=irq")]
    [InlineData("--mode=poll", "--queues=2", "--read-percent=30")]
    [InlineData("--mode=eventfd", "--indirect", "--memory=table", "--sequential")]
    [InlineData("--no-event-idx", "--queue-depth=1", "--block-size=512")]
    public async Task A_measurement_counts_and_allocates_nothing(params string[] arguments)
    {
        await using BlockRig rig = await BlockRig.ServeAsync(new MemoryDisk(DiskBytes), s_twoQueues);
        JsonElement result = await MeasureAsync(rig, arguments);
        Assert.True(result.GetProperty("operations").GetInt64() > 0);
        Assert.True(result.GetProperty("iops").GetDouble() > 0);
        Assert.Equal(0, result.GetProperty("failures").GetInt64());
        Assert.Equal(0, result.GetProperty("frontend").GetProperty("allocatedBytes").GetInt64());
        JsonElement latency = result.GetProperty("latencyUs");
        Assert.True(latency.GetProperty("min").GetDouble() <= latency.GetProperty("p50").GetDouble());
        Assert.True(latency.GetProperty("p50").GetDouble() <= latency.GetProperty("p999").GetDouble());
        Assert.True(latency.GetProperty("p999").GetDouble() <= latency.GetProperty("max").GetDouble());
    }

    [Theory]
    [InlineData("--mode=irq", "--queues=2")]
    [InlineData("--mode=eventfd", "--indirect", "--block-size=8K")]
    [InlineData("--packed")]
    [InlineData("--packed", "--indirect", "--mode=poll")]
    public async Task A_good_disk_is_verified(params string[] arguments)
    {
        await using BlockRig rig = await BlockRig.ServeAsync(new MemoryDisk(DiskBytes), s_twoQueues);
        JsonElement result = await MeasureAsync(rig, [.. arguments, "--verify"]);
        Assert.Equal(0, result.GetProperty("failures").GetInt64());
        long blocks = DiskBytes / result.GetProperty("blockSize").GetInt32();
        Assert.True(result.GetProperty("verification").GetProperty("comparedBlocks").GetInt64() >= blocks);
    }

    [Theory]
    [InlineData(Lie.LoseWrites, "lost or stale: generation")]
    [InlineData(Lie.TearWrites, "torn: generation")]
    [InlineData(Lie.MisplaceReads, "misplaced: sector")]
    [InlineData(Lie.FlipBits, "corrupt: sector")]
    [InlineData(Lie.SkipReads, "was not transferred")]
    public async Task A_disk_that_lies_is_found_out(Lie lie, string diagnosis)
    {
        await using BlockRig rig = await BlockRig.ServeAsync(new LyingDisk(new MemoryDisk(DiskBytes), lie));
        Outcome outcome = await OutboardProcess.RunAsync(
            "bench", "block", $"--socket-path={rig.SocketPath}", "--verify", "--duration=0.5");
        Assert.Equal(1, outcome.ExitCode);
        Assert.Contains(diagnosis, outcome.Errors, StringComparison.Ordinal);
        Assert.Matches(@"read of block \d+ \(offset \d+, 4096 bytes\): ", outcome.Errors);
    }

    [Fact]
    public async Task An_error_names_the_block()
    {
        await using BlockRig rig = await BlockRig.ServeAsync(
            new FaultyDisk(new MemoryDisk(DiskBytes), new FaultPlan { ErrorRate = 0.01 }));
        Outcome outcome = await OutboardProcess.RunAsync(
            "bench", "block", $"--socket-path={rig.SocketPath}", "--duration=0.2", "--warm-up=0");
        Assert.Equal(1, outcome.ExitCode);
        Assert.Matches(@"read of block \d+ \(offset \d+\): the device answered IoError", outcome.Errors);
    }

    [Theory]
    [InlineData("--queues=2", "the back-end has 1")]
    [InlineData("--block-size=1000", "multiple of 512")]
    [InlineData("--cpu=x", "processor numbers")]
    public async Task A_load_that_does_not_fit_is_refused(string argument, string reason)
    {
        await using BlockRig rig = await BlockRig.ServeAsync(new MemoryDisk(DiskBytes));
        Outcome outcome = await OutboardProcess.RunAsync("bench", "block", $"--socket-path={rig.SocketPath}", argument);
        Assert.NotEqual(0, outcome.ExitCode);
        Assert.Contains(reason, outcome.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public void Percentiles_are_right_within_1_6_per_cent()
    {
        LatencyHistogram histogram = new();
        Random random = new(7);
        long[] values = [.. Enumerable.Range(0, 100_000).Select(_ => (long)Math.Exp(random.NextDouble() * 23))];
        Array.ForEach(values, histogram.Record);
        Array.Sort(values);
        foreach (double share in (double[])[0.01, 0.5, 0.9, 0.99, 0.999, 1])
        {
            double exact = values[(int)Math.Ceiling(values.Length * share) - 1];
            Assert.InRange(histogram.Percentile(share), Math.Floor(exact * 0.984), Math.Ceiling(exact * 1.016));
        }

        Assert.Equal(values.Average(), histogram.Mean, 3);
        Assert.Equal((values[0], values[^1]), (histogram.Least, histogram.Most));
    }

    private static async Task<JsonElement> MeasureAsync(BlockRig rig, string[] arguments)
    {
        string[] common = ["bench", "block", "--duration=0.3", "--warm-up=0.3", "--json"];
        Outcome outcome = await OutboardProcess.RunAsync(
            [.. common, $"--socket-path={rig.SocketPath}", .. arguments]);
        Assert.Equal(string.Empty, outcome.Errors);
        Assert.Equal(0, outcome.ExitCode);
        return JsonDocument.Parse(outcome.Output).RootElement;
    }
}
