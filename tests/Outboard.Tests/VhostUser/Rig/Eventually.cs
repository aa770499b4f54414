// Waiting for a condition that another thread brings about. The limit is generous: it is reached only by a bug.
using System.Diagnostics;
using Xunit;

namespace Outboard.Tests.VhostUser;

internal static class Eventually
{
    public static readonly TimeSpan Limit = TimeSpan.FromSeconds(20);

    public static async Task TrueAsync(Func<bool> condition, string what)
    {
        if (!await IsTrueAsync(condition, Limit))
        {
            Assert.Fail($"not within {Limit.TotalSeconds} s: {what}");
        }
    }

    public static async Task<bool> IsTrueAsync(Func<bool> condition, TimeSpan limit)
    {
        long start = Stopwatch.GetTimestamp();
        while (!condition())
        {
            if (Stopwatch.GetElapsedTime(start) > limit)
            {
                return false;
            }

            await Task.Delay(1, TestContext.Current.CancellationToken);
        }

        return true;
    }
}
