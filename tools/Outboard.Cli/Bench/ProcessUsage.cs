// What a process used so far, from /proc: run time of its threads, context switches, memory.
//   /proc/PID/task/TID/schedstat   "run-ns wait-ns slices"        nanoseconds, of threads that live
//   /proc/PID/stat                 fields 14 and 15: user and system time in ticks of 10 ms, ended threads included
using System.Globalization;

namespace Outboard.Cli.Bench;

/// <summary>A reading of a process's use of resources.</summary>
/// <param name="CpuTime">Processor time.</param>
/// <param name="VoluntarySwitches">Times that a thread of it slept.</param>
/// <param name="InvoluntarySwitches">Times that a thread of it was preempted.</param>
/// <param name="ResidentKiB">Memory in use.</param>
/// <param name="PeakKiB">Most memory in use.</param>
internal readonly record struct ProcessUsage(
    TimeSpan CpuTime, long VoluntarySwitches, long InvoluntarySwitches, long ResidentKiB, long PeakKiB)
{
    private const int TicksPerSecond = 100;

    /// <summary>Reads a process's use.</summary>
    /// <exception cref="IOException">There is no such process.</exception>
    public static ProcessUsage Read(int processId)
    {
        string folder = $"/proc/{processId}";
        if (!Directory.Exists(folder))
        {
            throw new IOException($"--backend-pid={processId}: there is no such process");
        }

        long run = 0;
        long voluntary = 0;
        long involuntary = 0;
        foreach (string task in Directory.GetDirectories($"{folder}/task"))
        {
            try
            {
                run += Number(File.ReadAllText($"{task}/schedstat").Split(' ')[0]);
                string[] status = File.ReadAllLines($"{task}/status");
                voluntary += Value(status, "voluntary_ctxt_switches:");
                involuntary += Value(status, "nonvoluntary_ctxt_switches:");
            }
            catch (IOException)
            {
                // The thread ended between the listing and the reading.
            }
        }

        string[] lines = File.ReadAllLines($"{folder}/status");
        TimeSpan cpu = run > 0 ? TimeSpan.FromTicks(run / TimeSpan.NanosecondsPerTick) : TicksOf(folder);
        return new ProcessUsage(cpu, voluntary, involuntary, Value(lines, "VmRSS:"), Value(lines, "VmHWM:"));
    }

    private static TimeSpan TicksOf(string folder)
    {
        // The program's name, in parentheses, may hold blanks.
        string stat = File.ReadAllText($"{folder}/stat");
        string[] fields = stat[(stat.LastIndexOf(')') + 2)..].Split(' ');
        return TimeSpan.FromSeconds((Number(fields[11]) + Number(fields[12])) / (double)TicksPerSecond);
    }

    private static long Value(string[] lines, string key)
    {
        string? line = Array.Find(lines, line => line.StartsWith(key, StringComparison.Ordinal));
        return line is null ? 0 : Number(line[key.Length..].TrimEnd('k', 'B', ' ').Trim());
    }

    private static long Number(string text) =>
        long.TryParse(text, NumberStyles.Integer, CultureInfo.InvariantCulture, out long value) ? value : 0;
}
