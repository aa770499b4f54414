// The commands of the program.
using System.CommandLine;
using Outboard.Cli.Bench;
using Outboard.Cli.Block;
using Outboard.Cli.Demo;
using Outboard.Cli.Discovery;

namespace Outboard.Cli;

internal static class CommandTree
{
    /// <summary>The commands, or the one that is called: a back-end does not pay for the others at its start.</summary>
    public static RootCommand Create(Invocation invocation)
    {
        RootCommand root = new("Virtual devices outside the hypervisor: vhost-user back-ends and tools.");
        if (invocation.Arguments is [BlockCommand.Name, ..])
        {
            root.Add(BlockCommand.Create(invocation.BackendName));
            return root;
        }

        root.Add(BlockCommand.Create(invocation.BackendName));
        root.Add(ListBackendsCommand.Create());
        root.Add(InstallDescriptorsCommand.Create());
        root.Add(BenchCommand.Create());
        root.Add(DemoCommand.Create());
        return root;
    }
}
