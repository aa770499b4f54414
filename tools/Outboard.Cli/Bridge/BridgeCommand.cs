// "outboard bridge": any vhost-user back-end as a PCI device over vfio-user. Requests go between guest and back-end
// directly: memory, doorbells and interrupts are handed on, and this program is asked only when one of them changes.
using System.CommandLine;
using System.Net.NetworkInformation;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Inspect;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.Linux.Sockets;
using Outboard.VfioUser.Server;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Pci;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Bridge;

internal static class BridgeCommand
{
    public const string Name = "bridge";

    private const int MostQueues = 1024;
    private const int MacBytes = 6;

    /// <param name="programName">The name that the program was called by, for the log.</param>
    public static Command Create(string programName)
    {
        ValueOption<string> front = ValueOption.Text(
            "--vfio-user-socket", "PATH", "Be a PCI device on a UNIX socket at PATH: a vfio-user server.");
        ValueOption<string> back = ValueOption.Text(
            "--vhost-user-socket", "PATH", "The back-end listens at PATH. Waited for, also when it goes away.");
        ValueOption<VirtioDeviceId?> type = InspectCommand.TypeOption();
        ValueOption<int?> queues = ValueOption.Number(
            "--num-queues", "N", "Queues to show. [default: as many as the back-end tells]", 1, MostQueues);
        ValueOption<int?> size = ValueOption.PowerOfTwo(
            "--queue-size", "N", "Largest size of a queue. [default: 256]", 2, SplitRing.MaxSize);
        ValueOption<string> mac = ValueOption.Text(
            "--mac", "MAC", "A network device's address, if the back-end has none. [default: a random one]");
        ValueOption<string> tag = ValueOption.Text("--tag", "TAG", "A file system's tag, if the back-end has none.");
        SwitchOption split = new("--split-rings", "Do not offer packed rings.");
        SwitchOption noMsix = FunctionServer.CreateNoMsixOption();
        LogOptions logging = new();
        Command command = new(
            Name,
            "Show a vhost-user back-end as a PCI device over vfio-user. The type of device is told by the back-end's "
            + "features, or has to be given. Ends on SIGTERM.");
        foreach (Option option in (Option[])[front, back, type, queues, size, mac, tag, split, noMsix, .. logging.All])
        {
            command.Add(option);
        }

        command.SetAction(result =>
        {
            StandardErrorLog log = new(programName, logging.Read(result));
            RemoteDeviceOptions options = new()
            {
                Logger = log,
                Type = type.Read(result),
                QueueCount = queues.Read(result),
                Mac = ParseMac(mac.Read(result)),
                Tag = tag.Read(result),
                WithheldFeatures = split.Read(result) ? VirtioFeatures.RingPacked : 0,
            };
            return Run(
                front.Read(result) ?? throw new CommandLineException("no socket: give --vfio-user-socket=PATH"),
                back.Read(result) ?? throw new CommandLineException("no back-end: give --vhost-user-socket=PATH"),
                size.Read(result) is { } given ? options with { QueueSize = given } : options,
                new VirtioPciOptions { Logger = log, HasMsix = !noMsix.Read(result) },
                log);
        });
        return command;
    }

    private static byte[]? ParseMac(string? text)
    {
        if (text is null)
        {
            return null;
        }

        return PhysicalAddress.TryParse(text, out PhysicalAddress? address)
            && address.GetAddressBytes() is { Length: MacBytes } bytes && (bytes[0] & 1) == 0
            ? bytes
            : throw new CommandLineException($"--mac={text}: no address of one card; give one as 52:54:00:12:34:56");
    }

    private static int Run(
        string front, string back, RemoteDeviceOptions options, VirtioPciOptions pci, StandardErrorLog log)
    {
        using EndSignals signals = new();
        using UnixListener listener = FunctionServer.Bind(front);
        using ChannelSource source = ChannelSource.Connect(back);
        Task<RemoteDevice> connecting = ConnectAsync(source, back, options, signals.Requested);
        RemoteDevice device;
        try
        {
            device = connecting.GetAwaiter().GetResult();
        }
        catch (OperationCanceledException) when (signals.Requested.IsCancellationRequested)
        {
            return 0;
        }

        VirtioPciFunction function = new(device, pci);
        log.LogInformation(
            "serving the {Type} device at {Back} on {Front}, with {Queues} queues",
            DeviceTypeWords.Of(device.Id), back, front, device.QueueCount);
        bool isDone = FunctionServer.Serve(
            function, listener, new VfioUserServerOptions { Logger = log }, signals.Requested);
        if (isDone)
        {
            function.DisposeAsync().AsTask().GetAwaiter().GetResult();
        }

        return isDone ? 0 : 1;
    }

    private static async Task<RemoteDevice> ConnectAsync(
        ChannelSource source, string path, RemoteDeviceOptions options, CancellationToken cancellation)
    {
        try
        {
            return await RemoteDevice.ConnectAsync(source, options, cancellation);
        }
        catch (Exception error) when (error is ProtocolException or IOException)
        {
            string hint = options.Type is null && error.Message.Contains("type of the device", StringComparison.Ordinal)
                ? " by --type" : string.Empty;
            throw new IOException($"--vhost-user-socket={path}: {error.Message}{hint}", error);
        }
    }
}
