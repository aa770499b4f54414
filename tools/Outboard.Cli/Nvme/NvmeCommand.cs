// "outboard nvme": an NVMe controller, as a vfio-user server.
using System.CommandLine;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme;
using Outboard.Linux;
using Outboard.Linux.Sockets;
using Outboard.VfioUser.Server;

namespace Outboard.Cli.Nvme;

internal static class NvmeCommand
{
    public const string Name = "nvme";

    private static readonly TimeSpan s_watchInterval = TimeSpan.FromSeconds(1);

    /// <param name="programName">The name that the program was called by, for the log.</param>
    public static Command Create(string programName)
    {
        Command command = new(Name, "Serve an NVMe controller: a vfio-user server. Ends on SIGTERM.");
        NvmeOptionSet options = new();
        options.AddTo(command);
        command.SetAction(result => Run(options.Read(result), programName));
        return command;
    }

    private static int Run(NvmeSettings settings, string programName)
    {
        settings.Check();
        StandardErrorLog log = new(programName, settings.LogLevel);
        using EndSignals signals = new();
        List<Disk> disks = [];
        try
        {
            List<NvmeNamespace> namespaces = [];
            settings.Open(disks, namespaces);
            return Serve(settings, namespaces, disks, log, signals.Requested);
        }
        finally
        {
            disks.ForEach(disk => disk.Dispose());
        }
    }

    private static int Serve(
        NvmeSettings settings, List<NvmeNamespace> namespaces, List<Disk> disks, StandardErrorLog log,
        CancellationToken ending)
    {
        NvmeController controller = settings.CreateController(namespaces, log);
        using UnixListener listener = FunctionServer.Bind(settings.SocketPath);
        using ResizeWatch watch = new(
            () => Resize(controller, log), settings.WatchesSize ? s_watchInterval : null);
        foreach (Disk disk in disks)
        {
            log.LogInformation("serving {Disk} on {Socket}", disk.Description, settings.SocketPath);
        }

        bool wasClean = FunctionServer.Serve(
            controller, listener, new VfioUserServerOptions { Logger = log }, ending);
        if (!wasClean)
        {
            return 1;
        }

        controller.DisposeAsync().AsTask().GetAwaiter().GetResult();
        foreach (Disk disk in disks)
        {
            if (disk.Flush() is < 0 and var error)
            {
                throw new LinuxException("fdatasync", -error, $"{disk.Description}: written data may be lost");
            }
        }

        return 0;
    }

    private static void Resize(NvmeController controller, StandardErrorLog log)
    {
        try
        {
            if (controller.RefreshSizes())
            {
                log.LogInformation("resized");
            }
        }
        catch (IOException error)
        {
            log.LogWarning("the size cannot be read: {Reason}", error.Message);
        }
    }
}
