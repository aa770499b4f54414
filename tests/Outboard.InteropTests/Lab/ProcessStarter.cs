// ProcessStarter.cs - starts every program of the rig from one thread that lives as long as the test run.
// The programs ask the kernel to be killed when the thread that started them ends (PR_SET_PDEATHSIG): so nothing is
// left behind even when the test run is killed, and a pool thread that retires kills nothing.
using System.Collections.Concurrent;
using System.Diagnostics;

namespace Outboard.InteropTests.Lab;

internal static class ProcessStarter
{
    private static readonly BlockingCollection<Action> s_requests = [];

    static ProcessStarter()
    {
        Thread thread = new(Serve) { IsBackground = true, Name = "process starter" };
        thread.Start();
    }

    /// <summary>Starts a program with its three standard streams redirected.</summary>
    public static Process Start(string program, IEnumerable<string> arguments)
    {
        ProcessStartInfo information = new(program, arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            UseShellExecute = false,
        };
        TaskCompletionSource<Process> answer = new(TaskCreationOptions.RunContinuationsAsynchronously);
        s_requests.Add(() =>
        {
            try
            {
                answer.SetResult(Process.Start(information) ?? throw new LabException($"{program} did not start"));
            }
            catch (Exception exception)
            {
                answer.SetException(exception);
            }
        });
        return answer.Task.GetAwaiter().GetResult();
    }

    private static void Serve()
    {
        foreach (Action request in s_requests.GetConsumingEnumerable())
        {
            request();
        }
    }
}
