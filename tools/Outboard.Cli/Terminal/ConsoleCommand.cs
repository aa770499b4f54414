// "outboard console": a console for a guest, with a log that has each byte once.
using System.CommandLine;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.Devices.Console;
using Outboard.VhostUser.Backend;
using Outboard.Virtio;
using Outboard.Virtio.Journal;

namespace Outboard.Cli.Terminal;

internal static class ConsoleCommand
{
    public const string Name = "console";

    /// <param name="programName">The name that the program was called by, for the log.</param>
    public static Command Create(string programName)
    {
        Command command = new(
            Name,
            "Serve a console: a vhost-user back-end, or a vfio-user server, of the type console. Ends on SIGTERM.");
        ConsoleOptions options = new();
        options.AddTo(command);
        command.SetAction(result => Run(options.Read(result), programName));
        return command;
    }

    private static int Run(ConsoleSettings settings, string programName)
    {
        settings.Check();
        StandardErrorLog log = new(programName, settings.Serving.LogLevel);
        using EndSignals signals = new();
        using ConsoleSides sides = ConsoleSides.Open(settings);
        ConsoleDeviceOptions options = sides.ToDeviceOptions(settings);
        using DeviceJournal journal = settings.State.Open(ConsoleDevice.LayoutFor(options));
        using ConsoleDevice device = new(journal, options);
        device.LogChanged += (name, error) =>
        {
            if (error == 0)
            {
                log.LogInformation("{Log} can be written again", name);
            }
            else
            {
                log.LogWarning("{Log} cannot be written, output waits: errno {Error}", name, error);
            }
        };
        using ServedSocket socket = settings.Serving.OpenSocket();
        log.LogInformation("serving a console, {Sides}, on {Socket}", sides.Description, socket.Name);

        // One thread: a console has little to do, and its terminal is then used by one thread only.
        VhostUserBackendOptions backend = settings.Serving.ToBackendOptions(log) with
        {
            WorkerCount = 1,
            Worker = new QueueWorkerOptions { MaxPolling = TimeSpan.Zero },
        };
        return DeviceServer.Serve(device, socket, backend, signals.Requested) ? 0 : 1;
    }
}
