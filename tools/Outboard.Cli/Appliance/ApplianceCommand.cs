// "outboard virtio-vhost-user": the device by which a back-end inside one virtual machine (the appliance) serves
// another one (the tenant). To the tenant it is a vhost-user back-end; to the appliance it is a device, which
// stock QEMU shows as a vhost-user device of its own, or as a PCI device over vfio-user; or a vhost-pci adapter, which
// is the latter always. A machine maps the memory of a PCI device once, so the virtio one needs the tenant's memory in
// a file that is known beforehand.
using System.CommandLine;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.Linux.Sockets;
using Outboard.Memory;
using Outboard.VfioUser.Server;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.Virtio.Pci;
using Outboard.Virtio.Spec;
using Outboard.VirtioVhostUser.Device;
using Outboard.VirtioVhostUser.VhostPci;

namespace Outboard.Cli.Appliance;

internal static class ApplianceCommand
{
    public const string Name = "virtio-vhost-user";

    /// <param name="programName">The name that the program was called by, for the log.</param>
    public static Command Create(string programName)
    {
        Command command = new(
            Name,
            "Connect a virtual machine's vhost-user device to a back-end inside another virtual machine. "
            + "Ends on SIGTERM.");
        ApplianceOptions options = new();
        options.AddTo(command);
        command.SetAction(result => Run(options.Read(result), programName));
        return command;
    }

    private static int Run(ApplianceSettings settings, string programName)
    {
        StandardErrorLog log = new(programName, settings.LogLevel);
        using EndSignals signals = new();
        using FileSharedMemory? memory = settings.OpenMemory();
        using VirtioVhostUserDevice device = new(settings.Device(log) with { MemoryFile = memory });
        using ChannelSource frontends = settings.OpenFrontends();
        if (settings.IsVhostPci)
        {
            return RunAdapter(settings, device, frontends, signals, log);
        }

        log.LogInformation("front-ends of the tenant on {Frontends}", frontends.Description);
        using CancellationTokenSource ended = CancellationTokenSource.CreateLinkedTokenSource(signals.Requested);
        Task serving = device.ServeAsync(frontends, ended.Token);
        bool wasClean = memory is null
            ? ServeOverVhostUser(device, settings, log, signals.Requested)
            : ServeOverVfioUser(device, settings, log, signals.Requested);
        ended.Cancel();
        serving.GetAwaiter().GetResult();
        return wasClean ? 0 : 1;
    }

    private static bool ServeOverVhostUser(
        VirtioVhostUserDevice device, ApplianceSettings settings, ILogger log, CancellationToken ending)
    {
        using ServedSocket appliance = ServedSocket.Open(new ServingSettings { SocketPath = settings.AppliancePath });
        log.LogInformation("the appliance's machine on {Appliance}: {Arguments}",
            appliance.Name, Arguments(settings, device));
        VhostUserBackendOptions options = new()
        {
            Logger = log,
            WorkerCount = 1,

            // The device is given physical addresses: a machine's own IOMMU is not between it and memory.
            WithheldFeatures = VirtioFeatures.AccessPlatform,
        };
        return DeviceServer.Serve(device, appliance, options, ending);
    }

    private static bool ServeOverVfioUser(
        VirtioVhostUserDevice device, ApplianceSettings settings, ILogger log, CancellationToken ending)
    {
        using UnixListener listener = FunctionServer.Bind(settings.VfioUserPath);
        log.LogInformation(
            "the appliance's machine on {Appliance}; the tenant's needs -object memory-backend-file,id=mem,share=on,"
            + "mem-path={File},size=... of up to {Bytes} bytes",
            settings.VfioUserPath, settings.MemoryPath, device.SharedRegions[0].SizeBytes);
        VirtioPciFunction function = new(device, new VirtioPciOptions { Logger = log, WorkerCount = 1 });
        bool wasClean = FunctionServer.Serve(function, listener, new VfioUserServerOptions { Logger = log }, ending);
        return wasClean && GracePeriod.Wait(
            function.DisposeAsync().AsTask(), log, "the device is still at work", ending);
    }

    private static int RunAdapter(
        ApplianceSettings settings, VirtioVhostUserDevice device, ChannelSource frontends, EndSignals signals,
        StandardErrorLog log)
    {
        VhostPciFunction adapter = new(device);
        try
        {
            using UnixListener listener = FunctionServer.Bind(settings.VfioUserPath);
            log.LogInformation("front-ends of the tenant on {Frontends}", frontends.Description);
            log.LogInformation("a vhost-pci adapter for the appliance's machine on {Socket}", settings.VfioUserPath);
            using CancellationTokenSource ended = CancellationTokenSource.CreateLinkedTokenSource(signals.Requested);
            Task serving = device.ServeAsync(frontends, ended.Token);
            VfioUserServerOptions options = new() { Logger = log };
            bool wasClean = FunctionServer.Serve(adapter, listener, options, signals.Requested);
            ended.Cancel();
            serving.GetAwaiter().GetResult();
            return wasClean ? 0 : 1;
        }
        finally
        {
            adapter.DisposeAsync().AsTask().GetAwaiter().GetResult();
        }
    }

    /// <summary>What the appliance's QEMU is to be started with.</summary>
    private static string Arguments(ApplianceSettings settings, VirtioVhostUserDevice device) =>
        $"-chardev socket,id=vvu,path={settings.AppliancePath} -device vhost-user-test-device-pci,chardev=vvu,"
        + $"virtio-id={(int)device.Id},num_vqs={device.QueueCount},config_size={device.Config.SizeBytes}";
}
