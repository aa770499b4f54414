// "outboard demo": shows in some ten seconds what this is about, on any Linux machine, without root or a virtual
// machine. Exit status: 0 every block was right, 1 something failed.
using System.CommandLine;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;

namespace Outboard.Cli.Demo;

internal static class DemoCommand
{
    private const int InterruptedStatus = 130;

    public static Command Create()
    {
        Command command = new(
            "demo", "Serve a disk from another process, drive it, kill that process under load, verify every block.");
        ValueOption<string> folder = ValueOption.Text(
            "--folder", "PATH", "Where the disk image goes, for the time of the demo. [default: the temporary folder]");
        command.Add(folder);
        command.SetAction((result, _) => RunAsync(folder.Read(result)));
        return command;
    }

    private static async Task<int> RunAsync(string? folder)
    {
        using EndSignals signals = new();
        DemoScreen screen = new();
        try
        {
            using DemoFolder files = new(folder);
            DemoRun run = new(files, screen);
            await using (run.ConfigureAwait(false))
            {
                return await run.RunAsync(signals.Requested).ConfigureAwait(false) ? 0 : 1;
            }
        }
        catch (OperationCanceledException)
        {
            screen.Abandon();
            return InterruptedStatus;
        }
        catch
        {
            screen.Abandon();
            throw;
        }
    }
}
