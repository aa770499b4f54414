// "outboard bench block": a load generator for any vhost-user-blk back-end, with the library's own front-end.
// Exit status: 0 all requests succeeded (and every block was right), 1 otherwise.
using System.CommandLine;
using System.Globalization;
using Outboard.Cli.Text;

namespace Outboard.Cli.Bench;

internal static class BenchBlockCommand
{
    public static Command Create()
    {
        Command command = new("block", "Put a load on a vhost-user-blk back-end, and measure or verify it.");
        BenchBlockOptions options = new();
        options.AddTo(command);
        command.SetAction((result, _) => RunAsync(options.Read(result), options.WantsJson(result)));
        return command;
    }

    private static async Task<int> RunAsync(LoadSettings settings, bool wantsJson)
    {
        bool isTerminal = !Console.IsErrorRedirected;
        LoadResult result;
        try
        {
            result = await new BlockLoad(settings, isTerminal ? ShowProgress : null).RunAsync().ConfigureAwait(false);
        }
        finally
        {
            if (isTerminal)
            {
                Console.Error.Write("\r\e[K");
            }
        }

        foreach (string failure in result.Failures)
        {
            ErrorLine.Write(failure);
        }

        Console.Out.Write(wantsJson ? LoadReport.Json(result) + "\n" : LoadReport.Table(result));
        return result.IsGood ? 0 : 1;
    }

    private static void ShowProgress(TimeSpan elapsed, long operations) => Console.Error.Write(string.Create(
        CultureInfo.InvariantCulture,
        $"\r\e[K{elapsed.TotalSeconds,6:F1} s   {operations / Math.Max(0.001, elapsed.TotalSeconds),14:N0} IOPS"));
}
