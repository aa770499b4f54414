// Completions in windows of 10 ms. The median window is a rate that a moment of somebody else's CPU use does not move.
using System.Diagnostics;

namespace Outboard.Cli.Bench;

/// <summary>Counts completions in windows of time. Counted by one thread.</summary>
internal sealed class RateWindows(TimeSpan duration)
{
    private const int WindowsPerSecond = 100;

    private static readonly long s_windowTicks = Stopwatch.Frequency / WindowsPerSecond;

    private readonly int[] _counts = new int[(int)(duration.TotalSeconds * WindowsPerSecond) + WindowsPerSecond];

    /// <param name="sinceStart">Ticks of the stopwatch since the measurement began.</param>
    /// <param name="count">Completions.</param>
    public void Count(long sinceStart, int count)
    {
        long window = sinceStart / s_windowTicks;
        if ((ulong)window < (ulong)_counts.Length)
        {
            _counts[window] += count;
        }
    }

    /// <summary>Completions a second in the median window of all counters together.</summary>
    public static double MedianRate(IReadOnlyList<RateWindows> all, TimeSpan elapsed)
    {
        // The last window is cut short by the end.
        int whole = Math.Min((int)(elapsed.TotalSeconds * WindowsPerSecond), all[0]._counts.Length);
        if (whole == 0)
        {
            return 0;
        }

        long[] sums = new long[whole];
        foreach (RateWindows one in all)
        {
            for (int i = 0; i < whole; i++)
            {
                sums[i] += one._counts[i];
            }
        }

        Array.Sort(sums);
        return sums[whole / 2] * (double)WindowsPerSecond;
    }
}
