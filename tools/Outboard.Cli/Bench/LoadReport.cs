// A result for people, and the same for programs. The JSON is one object:
//   mode, queueDepth, blockSize, readPercent, pattern ("random", "sequential"), queues, queueSize, eventIndex,
//   packed, indirect, memory ("slots", "table"), inflight, cpus []        what was run
//   capacityBytes, rangeBytes, seconds, operations, failures, reconnections, messages []
//   iops, medianWindowIops (10-ms windows), megabytesPerSecond
//   cpuDistanceNs                                                         with --distance-to
//   latencyUs { min, mean, p50, p90, p99, p999, max }                     without --verify
//   frontend { cpuUsPerIo, sleepsPerIo, iosPerBatch, allocatedBytes }
//   backend { cpuUsPerIo, voluntarySwitchesPerIo, involuntarySwitchesPerIo, rssKiB, peakRssKiB }   with --backend-pid
//   verification { comparedBlocks, writtenBlocks, flushes }                                        with --verify
// Names are added to it, not changed.
using System.Globalization;
using System.Text;
using System.Text.Json;
using Outboard.Cli.Text;

namespace Outboard.Cli.Bench;

/// <summary>Prints results.</summary>
internal static class LoadReport
{
    private static readonly (string Name, double Share)[] s_percentiles =
        [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p999", 0.999)];

    /// <summary>What was run, in a line.</summary>
    public static string Title(LoadSettings settings)
    {
        string mix = settings.ReadPercent switch
        {
            100 => "read",
            0 => "write",
            int reads => $"mix of {reads} % reads",
        };
        string queues = settings.QueueCount == 1 ? string.Empty : $", {settings.QueueCount} queues";
        string pattern = settings.IsSequential ? "sequential" : "random";
        string mode = settings.Mode.ToString().ToLowerInvariant();
        return $"{SizeText.Format(settings.BlockSize)} {pattern} {mix}, depth {settings.QueueDepth}{queues}, {mode}";
    }

    /// <summary>The table.</summary>
    public static string Table(LoadResult result)
    {
        StringBuilder text = new();
        void line(string name, string value) => text.Append(CultureInfo.InvariantCulture, $"  {name,-12}{value}\n");
        text.Append(Title(result.Settings)).Append('\n');
        line("IOPS", $"{result.OperationsPerSecond:N0}"
            + (result.Settings.Verify ? string.Empty : $"   median 10-ms window {result.MedianWindowRate:N0}"));
        line("MB/s", $"{result.MegabytesPerSecond:N1}");
        if (!result.Settings.Verify)
        {
            LatencyHistogram latency = result.Latency;
            string percentiles = string.Concat(
                s_percentiles.Select(one => $"{one.Name} {Us(latency.Percentile(one.Share))}   "));
            line("latency us", $"mean {Us(latency.Mean)}   {percentiles}max {Us(latency.Most)}");
        }

        double ios = Math.Max(1, result.Operations);
        line("front-end", $"{PerIo(result.FrontendCpu, ios):F2} us CPU, {result.Sleeps / ios:F3} sleeps for each I/O");
        if (result.Backend is { } backend)
        {
            line("back-end", $"{PerIo(backend.CpuTime, ios):F2} us CPU, {backend.VoluntarySwitches / ios:F3} sleeps "
                + $"for each I/O, {backend.ResidentKiB / 1024.0:F1} MiB, {backend.PeakKiB / 1024.0:F1} MiB at most");
        }

        if (result.Settings.Verify)
        {
            (long verified, long written, long flushes) = result.Verification;
            line("verified", $"{verified:N0} blocks compared, {written:N0} written, {flushes:N0} flushes: "
                + (result.IsGood ? "every block is right" : "NOT right"));
        }

        if (result.Reconnections > 0)
        {
            line("reconnected", $"{result.Reconnections:N0} times");
        }

        if (!result.IsGood)
        {
            line("failures", $"{result.FailureCount:N0}");
        }

        return text.ToString();
    }

    /// <summary>The JSON object.</summary>
    public static string Json(LoadResult result)
    {
        using MemoryStream stream = new();
        using (Utf8JsonWriter json = new(stream, new JsonWriterOptions { Indented = true }))
        {
            json.WriteStartObject();
            WriteLoad(json, result.Settings, result.HasEventIndex);
            WriteOutcome(json, result);
            WriteUse(json, result);
            json.WriteEndObject();
        }

        return Encoding.UTF8.GetString(stream.ToArray());
    }

    private static void WriteLoad(Utf8JsonWriter json, LoadSettings settings, bool hasEventIndex)
    {
        json.WriteString("mode", settings.Mode.ToString().ToLowerInvariant());
        json.WriteNumber("queueDepth", settings.QueueDepth);
        json.WriteNumber("blockSize", settings.BlockSize);
        json.WriteNumber("readPercent", settings.ReadPercent);
        json.WriteString("pattern", settings.IsSequential ? "sequential" : "random");
        json.WriteNumber("queues", settings.QueueCount);
        json.WriteNumber("queueSize", settings.EffectiveQueueSize);
        json.WriteBoolean("eventIndex", hasEventIndex);
        json.WriteBoolean("packed", settings.UsePacked);
        json.WriteBoolean("in_order", settings.UseInOrder);
        json.WriteBoolean("indirect", settings.UseIndirect);
        json.WriteString("memory", settings.UseMemoryTable ? "table" : "slots");
        json.WriteBoolean("inflight", settings.TrackInflight);
        json.WriteStartArray("cpus");
        foreach (int cpu in settings.Cpus)
        {
            json.WriteNumberValue(cpu);
        }

        json.WriteEndArray();
    }

    private static void WriteOutcome(Utf8JsonWriter json, LoadResult result)
    {
        json.WriteNumber("capacityBytes", result.CapacityBytes);
        json.WriteNumber("rangeBytes", result.RangeBytes);
        json.WriteNumber("seconds", Math.Round(result.Elapsed.TotalSeconds, 3));
        json.WriteNumber("operations", result.Operations);
        json.WriteNumber("failures", result.FailureCount);
        json.WriteNumber("reconnections", result.Reconnections);
        json.WriteStartArray("messages");
        foreach (string failure in result.Failures)
        {
            json.WriteStringValue(failure);
        }

        json.WriteEndArray();
        json.WriteNumber("iops", Math.Round(result.OperationsPerSecond, 1));
        json.WriteNumber("megabytesPerSecond", Math.Round(result.MegabytesPerSecond, 2));
        if (result.CpuDistanceNs is { } distance)
        {
            json.WriteNumber("cpuDistanceNs", Math.Round(distance, 1));
        }

        if (result.Settings.Verify)
        {
            return;
        }

        LatencyHistogram latency = result.Latency;
        json.WriteNumber("medianWindowIops", result.MedianWindowRate);
        json.WriteStartObject("latencyUs");
        json.WriteNumber("min", ToUs(latency.Count == 0 ? 0 : latency.Least));
        json.WriteNumber("mean", ToUs(latency.Mean));
        foreach ((string name, double share) in s_percentiles)
        {
            json.WriteNumber(name, ToUs(latency.Percentile(share)));
        }

        json.WriteNumber("max", ToUs(latency.Most));
        json.WriteEndObject();
    }

    private static void WriteUse(Utf8JsonWriter json, LoadResult result)
    {
        double ios = Math.Max(1, result.Operations);
        json.WriteStartObject("frontend");
        json.WriteNumber("cpuUsPerIo", Math.Round(PerIo(result.FrontendCpu, ios), 4));
        json.WriteNumber("sleepsPerIo", Math.Round(result.Sleeps / ios, 4));
        json.WriteNumber("iosPerBatch", Math.Round(ios / Math.Max(1, result.Batches), 2));
        json.WriteNumber("allocatedBytes", result.AllocatedBytes);
        json.WriteEndObject();
        if (result.Backend is { } backend)
        {
            json.WriteStartObject("backend");
            json.WriteNumber("cpuUsPerIo", Math.Round(PerIo(backend.CpuTime, ios), 4));
            json.WriteNumber("voluntarySwitchesPerIo", Math.Round(backend.VoluntarySwitches / ios, 4));
            json.WriteNumber("involuntarySwitchesPerIo", Math.Round(backend.InvoluntarySwitches / ios, 4));
            json.WriteNumber("rssKiB", backend.ResidentKiB);
            json.WriteNumber("peakRssKiB", backend.PeakKiB);
            json.WriteEndObject();
        }

        if (result.Settings.Verify)
        {
            json.WriteStartObject("verification");
            json.WriteNumber("comparedBlocks", result.Verification.Verified);
            json.WriteNumber("writtenBlocks", result.Verification.Written);
            json.WriteNumber("flushes", result.Verification.Flushes);
            json.WriteEndObject();
        }
    }

    private static double PerIo(TimeSpan cpu, double ios) => cpu.TotalMicroseconds / ios;

    private static double ToUs(double nanoseconds) => Math.Round(nanoseconds / 1000, 3);

    private static string Us(double nanoseconds) => (nanoseconds / 1000).ToString("F2", CultureInfo.InvariantCulture);
}
