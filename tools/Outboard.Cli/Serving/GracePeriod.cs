// What both servers do when they are asked to end: what is in flight gets a little time, and no more, since management
// software kills what does not end.
using Microsoft.Extensions.Logging;

namespace Outboard.Cli.Serving;

internal static class GracePeriod
{
    /// <summary>Time for what is in flight, once asked to end.</summary>
    private static readonly TimeSpan s_grace = TimeSpan.FromMilliseconds(700);

    /// <summary>Waits until a server ends, or until some time after it was asked to.</summary>
    /// <param name="serving">The server, which ends when <paramref name="ending"/> is cancelled.</param>
    /// <param name="log">Where it is told that it did not.</param>
    /// <param name="leftover">What is given up then, for the log.</param>
    /// <param name="ending">Cancelled when it is to end.</param>
    /// <returns>False when it was given up.</returns>
    public static bool Wait(Task serving, ILogger log, string leftover, CancellationToken ending)
    {
        using ManualResetEventSlim wake = new();
        _ = serving.ContinueWith(
            _ => wake.Set(), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        using CancellationTokenRegistration registration = ending.Register(wake.Set);
        wake.Wait(CancellationToken.None);
        if (ending.IsCancellationRequested && Task.WaitAny([serving], s_grace) < 0)
        {
            log.LogError(
                "{Leftover} {Grace} ms after the signal; given up", leftover, s_grace.TotalMilliseconds);
            return false;
        }

        try
        {
            serving.GetAwaiter().GetResult();
        }
        catch (OperationCanceledException) when (ending.IsCancellationRequested)
        {
            // Asked to end.
        }

        return true;
    }
}
