// "outboard bench": the load generators.
using System.CommandLine;

namespace Outboard.Cli.Bench;

internal static class BenchCommand
{
    public static Command Create()
    {
        Command command = new("bench", "Put loads on back-ends, whoever wrote them.");
        command.Add(BenchBlockCommand.Create());
        command.Add(BenchNvmeCommand.Create());
        command.Add(BenchKillCommand.Create());
        return command;
    }
}
