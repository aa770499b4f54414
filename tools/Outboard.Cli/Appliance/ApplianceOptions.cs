// The options of "outboard virtio-vhost-user", in the order in which --help shows them.
using System.CommandLine;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.VhostUser.Channel;
using Outboard.Virtio.Spec;
using Outboard.VirtioVhostUser.Device;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.Cli.Appliance;

/// <summary>The settings. Null means that nothing was said.</summary>
internal sealed record ApplianceSettings(
    string? Personality, string? FrontendPath, string? PeerPath, string? AppliancePath, string? VfioUserPath,
    string? MemoryPath, int? Rings, long? WindowBytes, int? DeviceType, string? DeviceName, int? GraceMs,
    bool NumbersSessions, LogLevel LogLevel)
{
    /// <summary>Whether the device is a vhost-pci adapter.</summary>
    /// <exception cref="CommandLineException">What was said does not suit it.</exception>
    public bool IsVhostPci
    {
        get
        {
            bool isIt = Personality == ApplianceOptions.VhostPci;
            return isIt && (VfioUserPath is null || AppliancePath is not null || DeviceType is not null
                || MemoryPath is not null)
                ? throw new CommandLineException(
                    "a vhost-pci adapter is no virtio device: give --vfio-user-socket=PATH, without "
                    + "--appliance-socket, --memory-file and --device-type")
                : isIt;
        }
    }

    /// <summary>The file that the tenant's memory lies in, as large as the window; null for what needs none.</summary>
    /// <exception cref="CommandLineException">No appliance, or two; a file that is missing or of no use.</exception>
    /// <exception cref="IOException">It cannot be had.</exception>
    public FileSharedMemory? OpenMemory() => (AppliancePath, VfioUserPath, MemoryPath) switch
    {
        _ when IsVhostPci => null,
        (null, null, _) => throw new CommandLineException(
            "no appliance: give one of --appliance-socket=PATH and --vfio-user-socket=PATH"),
        ({ }, null, null) => null,
        ({ }, null, { }) => throw new CommandLineException(
            "--memory-file is for --vfio-user-socket: --appliance-socket maps any memory"),
        (null, { }, null) => throw new CommandLineException(
            "no memory: give --memory-file=PATH, the file of the tenant's memory-backend-file "
            + "(or --personality=vhost-pci)"),
        (null, { }, { } path) => new FileSharedMemory(
            SharedFile.Open(path, (ulong?)WindowBytes ?? new VirtioVhostUserOptions().WindowBytes)),
        _ => throw new CommandLineException(
            "--appliance-socket and --vfio-user-socket exclude each other: give one of them"),
    };

    /// <summary>The device that was asked for.</summary>
    /// <exception cref="CommandLineException">It cannot be.</exception>
    public VirtioVhostUserOptions Device(ILogger log)
    {
        VirtioVhostUserOptions defaults = new();
        VirtioVhostUserOptions options = new()
        {
            Logger = log,
            Type = DeviceType is { } type ? (VirtioDeviceId)type : defaults.Type,
            Rings = Rings ?? defaults.Rings,
            WindowBytes = (ulong?)WindowBytes ?? defaults.WindowBytes,
            Id = VirtioVhostUserOptions.IdOf(DeviceName ?? AppliancePath ?? VfioUserPath ?? string.Empty),
            NumbersSessions = NumbersSessions,
            MemoryGrace = GraceMs is { } grace ? TimeSpan.FromMilliseconds(grace) : null,
        };
        return ulong.IsPow2(options.WindowBytes) && options.WindowBytes >= VirtioVhostUserOptions.MinWindowBytes
            ? options
            : throw new CommandLineException($"--window={WindowBytes}: give a power of two from 1M on");
    }

    /// <summary>Where front-ends come from.</summary>
    /// <exception cref="CommandLineException">Nowhere, or from two places.</exception>
    /// <exception cref="IOException">The path cannot be bound.</exception>
    public ChannelSource OpenFrontends()
    {
        return (FrontendPath, PeerPath) switch
        {
            ({ } path, null) => ChannelSource.Listen(path),
            (null, { } path) => ChannelSource.Connect(path),
            _ => throw new CommandLineException(
                "no tenant: give one of --vhost-user-socket=PATH and --vhost-user-connect=PATH"),
        };
    }
}

/// <summary>The options, and how they become <see cref="ApplianceSettings"/>.</summary>
internal sealed class ApplianceOptions
{
    public const string VhostPci = "vhost-pci";

    private const int LongestGraceMs = 3_600_000;
    private const int LastDeviceType = 63;

    private readonly ValueOption<string> _personality = ValueOption.Choice(
        "--personality",
        "What the appliance sees: the virtio device, or the PCI adapter that came before it. [default: "
        + ApplianceCommand.Name + "]", ApplianceCommand.Name, VhostPci);

    private readonly ValueOption<string> _frontend = ValueOption.Text(
        "--vhost-user-socket", "PATH", "Listen for the tenant's front-end on a UNIX socket at PATH.");

    private readonly ValueOption<string> _peer = ValueOption.Text(
        "--vhost-user-connect", "PATH", "Connect to the tenant's front-end, which listens at PATH.");

    private readonly ValueOption<string> _appliance = ValueOption.Text(
        "--appliance-socket", "PATH",
        "Listen for the appliance's QEMU (11.1 or newer) on a UNIX socket at PATH; the log shows its arguments.");

    private readonly ValueOption<string> _vfioUser = ValueOption.Text(
        ServedSocket.VfioUserOption, "PATH",
        "Instead, be a PCI device for the appliance's machine on a UNIX socket at PATH: a vfio-user server.");

    private readonly ValueOption<string> _memory = ValueOption.Text(
        "--memory-file", "PATH",
        "With --vfio-user-socket: the file that has the tenant's memory (memory-backend-file,share=on). It is made, "
        + "and lengthened to the window. Not for vhost-pci.");

    private readonly ValueOption<int?> _rings = ValueOption.Number(
        "--rings", "N", "Most queues of the tenant's device. [default: 8]", 1, VirtioVhostUserSpec.MaxRings);

    private readonly ValueOption<long?> _window = ValueOption.Size(
        "--window", "The appliance's BAR, a power of two: 7/8 of it must hold the tenant's memory. [default: 8G]");

    private readonly ValueOption<int?> _type = ValueOption.Number(
        "--device-type", "N", "The virtio device type; QEMU must have a name for it. [default: 22]", 1, LastDeviceType);

    private readonly ValueOption<string> _name = ValueOption.Text(
        "--name", "TEXT", "What the device's identification is made of. [default: the appliance's socket]");

    private readonly ValueOption<int?> _grace = ValueOption.Number(
        "--memory-grace", "MS",
        "Take the tenant's memory away this long after it is gone, whatever the back-end does. [default: wait for it]",
        0, LongestGraceMs);

    private readonly SwitchOption _numbers = new(
        "--number-sessions", "Have back-ends acknowledge each front-end's number before it is heard.");

    private readonly LogOptions _log = new();

    public void AddTo(Command command)
    {
        Option[] all =
        [
            _frontend, _peer, _appliance, _personality, _vfioUser, _memory, _rings, _window, _type, _name,
            _grace, _numbers, .. _log.All,
        ];
        foreach (Option option in all)
        {
            command.Add(option);
        }
    }

    public ApplianceSettings Read(ParseResult result)
    {
        return new ApplianceSettings(
            _personality.Read(result),
            _frontend.Read(result),
            _peer.Read(result),
            _appliance.Read(result),
            _vfioUser.Read(result),
            _memory.Read(result),
            _rings.Read(result),
            _window.Read(result),
            _type.Read(result),
            _name.Read(result),
            _grace.Read(result),
            _numbers.Read(result),
            _log.Read(result));
    }
}
