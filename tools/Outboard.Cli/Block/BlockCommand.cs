// "outboard block": a disk as a vhost-user back-end.
using System.CommandLine;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.VhostUser.Backend;
using Outboard.Virtio;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Block;

internal static class BlockCommand
{
    public const string Name = "block";

    private static readonly TimeSpan s_watchInterval = TimeSpan.FromSeconds(1);

    /// <param name="programName">The name that the program was called by, for the log.</param>
    public static Command Create(string programName)
    {
        Command command = new(
            Name,
            "Serve a disk: a vhost-user back-end, or a vfio-user server, of the type block. Ends on SIGTERM.");
        BlockOptions options = new();
        options.AddTo(command);
        command.SetAction(result => Run(options.Read(result), programName));
        return command;
    }

    private static int Run(BlockSettings settings, string programName)
    {
        settings.Check();
        StandardErrorLog log = new(programName, settings.LogLevel);
        using EndSignals signals = new();
        using Disk disk = settings.OpenDisk();
        BlockDevice device = settings.CreateDevice(disk);
        string engine = CheckEngine(settings);
        using ServedSocket socket = ServedSocket.Open(
            settings.SocketPath, settings.PeerPath, settings.DescriptorNumber, settings.VfioUserPath);
        using ResizeWatch watch = new(() => Resize(device, disk, log), settings.WatchesSize ? s_watchInterval : null);
        log.LogInformation("serving {Disk}{Engine} on {Socket}", disk.Description, engine, socket.Name);
        bool wasClean = DeviceServer.Serve(device, socket, Options(settings, log), signals.Requested);
        if (wasClean && disk.Flush() is < 0 and var error)
        {
            throw new LinuxException("fdatasync", -error, $"{disk.Description}: written data may be lost");
        }

        return wasClean ? 0 : 1;
    }

    private static VhostUserBackendOptions Options(BlockSettings settings, StandardErrorLog log)
    {
        QueueWorkerOptions worker = new() { FileEngine = settings.FileEngine };
        return new VhostUserBackendOptions
        {
            Logger = log,
            WorkerCount = settings.ThreadCount,
            WithheldFeatures = settings.HasSplitRingsOnly ? VirtioFeatures.RingPacked : 0,
            AdditionalFeatures = InOrderOption.Features(settings.IsInOrder),
            AdditionalProtocolFeatures = InbandOption.Features(settings.OffersInbandNotifications),
            Worker = settings.MaxPolling is { } polling ? worker with { MaxPolling = polling } : worker,
        };
    }

    /// <summary>Which engine the file's I/O will use. One that was asked for by name and does not work is told now, not
    /// to the first guest.</summary>
    private static string CheckEngine(BlockSettings settings)
    {
        if (settings.FilePath is null && settings.FileEngine == FileIoEngineKind.Automatic)
        {
            return string.Empty;
        }

        try
        {
            using FileIoEngine engine = FileIoEngine.Create(depth: 1, settings.FileEngine);
            return $", by {engine.Name}";
        }
        catch (LinuxException error)
        {
            throw new IOException($"--io=io_uring: {error.Message}; use --io=threads", error);
        }
    }

    private static void Resize(BlockDevice device, Disk disk, StandardErrorLog log)
    {
        try
        {
            if (device.RefreshSize())
            {
                log.LogInformation("resized: {Disk}", disk.Description);
            }
        }
        catch (IOException error)
        {
            log.LogWarning("the size cannot be read: {Reason}", error.Message);
        }
    }
}
