// "outboard test-card": the PCI test card, as a vfio-user server.
using System.CommandLine;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.Devices.TestCard;
using Outboard.Linux.Sockets;
using Outboard.VfioUser.Server;

namespace Outboard.Cli.TestCard;

internal static class TestCardCommand
{
    public const string Name = "test-card";

    /// <summary>Windows of guest memory that the card takes, as its description says.</summary>
    private const int MaxDmaMaps = 64;

    /// <param name="programName">The name that the program was called by, for the log.</param>
    public static Command Create(string programName)
    {
        ValueOption<string> path = FunctionServer.CreateOption();
        SwitchOption later = new(
            "--async-dma", "Do DMA after the write that starts it was answered, as QEMU needs it.");
        LogOptions log = new();
        Command command = new(
            Name, "Serve the PCI test card, for authors of drivers and of vfio-user clients. Ends on SIGTERM.");
        foreach (Option option in (Option[])[path, later, .. log.All])
        {
            command.Add(option);
        }

        command.SetAction(result => Run(
            path.Read(result), later.Read(result), new StandardErrorLog(programName, log.Read(result))));
        return command;
    }

    private static int Run(string? path, bool transfersLater, StandardErrorLog log)
    {
        using EndSignals signals = new();
        using TestCardFunction card = new(transfersLater);
        using UnixListener listener = FunctionServer.Bind(path);
        log.LogInformation("serving the PCI test card on {Socket}", path);
        VfioUserServerOptions options = new() { Logger = log, MaxDmaMaps = MaxDmaMaps };
        return FunctionServer.Serve(card, listener, options, signals.Requested) ? 0 : 1;
    }
}
