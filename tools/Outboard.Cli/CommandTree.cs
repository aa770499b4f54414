// The commands of the program.
using System.CommandLine;
using Outboard.Cli.Appliance;
using Outboard.Cli.Bench;
using Outboard.Cli.Block;
using Outboard.Cli.Bridge;
using Outboard.Cli.Demo;
using Outboard.Cli.Discovery;
using Outboard.Cli.Inspect;
using Outboard.Cli.Net;
using Outboard.Cli.Nvme;
using Outboard.Cli.Register;
using Outboard.Cli.Relay;
using Outboard.Cli.Rng;
using Outboard.Cli.Terminal;
using Outboard.Cli.TestCard;
using Outboard.Cli.Trace;

namespace Outboard.Cli;

internal static class CommandTree
{
    private static readonly (string Name, Func<string, Command> Create)[] s_backends =
    [
        (BlockCommand.Name, BlockCommand.Create),
        (NetCommand.Name, NetCommand.Create),
        (RngCommand.Name, RngCommand.Create),
        (ConsoleCommand.Name, ConsoleCommand.Create),
        (RegisterCommand.CounterName, RegisterCommand.CreateCounter),
        (RegisterCommand.RegisterName, RegisterCommand.CreateRegister),
        (NvmeCommand.Name, NvmeCommand.Create),
        (RelayCommand.Name, RelayCommand.Create),
        (TestCardCommand.Name, TestCardCommand.Create),
        (BridgeCommand.Name, BridgeCommand.Create),
        (ApplianceCommand.Name, ApplianceCommand.Create),
    ];

    /// <summary>The commands, or the one that is called: a back-end does not pay for the others at its start.</summary>
    public static RootCommand Create(Invocation invocation)
    {
        RootCommand root = new("Virtual devices outside the hypervisor: vhost-user back-ends and tools.");
        foreach ((string name, Func<string, Command> create) in s_backends)
        {
            if (invocation.Arguments is [var first, ..] && first == name)
            {
                root.Add(create(invocation.BackendName));
                return root;
            }
        }

        foreach ((_, Func<string, Command> create) in s_backends)
        {
            root.Add(create(invocation.BackendName));
        }

        root.Add(ListBackendsCommand.Create());
        root.Add(InstallDescriptorsCommand.Create());
        root.Add(InspectCommand.Create());
        root.Add(TraceCommand.Create());
        root.Add(BenchCommand.Create());
        root.Add(DemoCommand.Create());
        return root;
    }
}
