// The socket a back-end serves, in the ways in which it may come:
//   --socket-path=PATH        bound here; the file is removed at the end
//   --connect=PATH            the front-end listens there; tried again whenever nobody does
//   --fd=N, connected         one front-end; the program ends when it goes away
//   --fd=N, listening         any number of front-ends, one after another
//   LISTEN_FDS=1              as --fd=3, by socket activation; only when no option is given
//   --vfio-user-socket=PATH   bound here, for the other protocol: any number of clients, one after another
//   --virtio-vhost-user=ADDR  no socket at all: front-ends come through a device of the machine this runs in, or
//                             through one that a vfio-user server has (vfio-user:PATH)
using System.Globalization;
using Outboard.Linux;
using Outboard.Linux.Sockets;
using Outboard.VfioUser.Client;
using Outboard.VhostUser.Channel;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Channel;

namespace Outboard.Cli.Serving;

/// <summary>A socket to serve: either <see cref="Source"/> or <see cref="Connection"/> is there.</summary>
internal sealed class ServedSocket : IDisposable
{
    /// <summary>The option for the other protocol, which commands that serve PCI functions have, too.</summary>
    public const string VfioUserOption = "--vfio-user-socket";

    /// <summary>The first descriptor after the standard streams; socket activation begins with it.</summary>
    private const int FirstDescriptor = 3;

    private const string PathOption = "--socket-path";
    private const string PciOption = "--virtio-vhost-user";
    private const string VfioUserPrefix = "vfio-user:";

    /// <summary>Memory for the queues of a virtio-vhost-user device: messages and rings need a fourth of it.</summary>
    private const ulong DriverBytes = 2 << 20;

    private ServedSocket(string name, UnixListener listener)
        : this(name, ChannelSource.Accept(listener)) => Listener = listener;

    private ServedSocket(string name, ChannelSource? source, UnixSocket? connection = null)
    {
        Name = name;
        Source = source;
        Connection = connection;
    }

    /// <summary>What it is, for messages.</summary>
    public string Name { get; }

    /// <summary>The socket that listens, if that is how they come.</summary>
    public UnixListener? Listener { get; }

    /// <summary>Where front-ends come from, one after another.</summary>
    public ChannelSource? Source { get; }

    /// <summary>A socket that is connected.</summary>
    public UnixSocket? Connection { get; }

    /// <summary>Whether the device is served as a PCI function over vfio-user.</summary>
    public bool IsVfioUser { get; private init; }

    /// <summary>Whether that PCI function has MSI-X.</summary>
    public bool HasMsix { get; private init; } = true;

    /// <summary>Opens what the options name.</summary>
    /// <exception cref="CommandLineException">None or several are given, or the descriptor is unfit.</exception>
    /// <exception cref="IOException">The path cannot be bound.</exception>
    public static ServedSocket Open(ServingSettings settings)
    {
        string?[] given =
        [
            settings.SocketPath is null ? null : $"{PathOption}={settings.SocketPath}",
            settings.PeerPath is null ? null : $"--connect={settings.PeerPath}",
            settings.DescriptorNumber is null ? null : $"--fd={settings.DescriptorNumber}",
            settings.VfioUserPath is null ? null : $"{VfioUserOption}={settings.VfioUserPath}",
            settings.PciAddress is null ? null : $"{PciOption}={settings.PciAddress}",
        ];
        if (given.Count(option => option is not null) > 1)
        {
            string all = string.Join(" and ", given.Where(option => option is not null));
            throw new CommandLineException($"{all} exclude each other: give one of them");
        }

        if (!settings.HasMsix && settings.VfioUserPath is null)
        {
            throw new CommandLineException(
                $"--no-msix is for PCI devices: give it together with {VfioUserOption}=PATH");
        }

        return settings switch
        {
            { SocketPath: { } path } => new ServedSocket(path, Bind(PathOption, path)),
            { VfioUserPath: { } path } => new ServedSocket(path, Bind(VfioUserOption, path))
            {
                IsVfioUser = true,
                HasMsix = settings.HasMsix,
            },
            { PeerPath: { } path } => new ServedSocket($"{path}, as its client", ChannelSource.Connect(path)),
            { PciAddress: { } address } => new ServedSocket($"the device at {address}", OpenDevice(address)),
            { DescriptorNumber: { } number } => Inherit(number, $"--fd={number}"),
            _ => OpenActivated(),
        };
    }

    /// <summary>Binds the path that an option names.</summary>
    /// <exception cref="IOException">It cannot be bound.</exception>
    public static UnixListener Bind(string option, string path)
    {
        try
        {
            return UnixListener.Bind(path);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new IOException($"{option}={path}: {error.Message}", error);
        }
    }

    public void Dispose()
    {
        Source?.Dispose();
        Listener?.Dispose();
        Connection?.Dispose();
    }

    private static VirtioVhostUserSource OpenDevice(string address)
    {
        try
        {
            Task<DriverAccess> opening = address.StartsWith(VfioUserPrefix, StringComparison.Ordinal)
                ? ConnectDeviceAsync(address[VfioUserPrefix.Length..])
                : PciAccess.OpenAsync(address);
            return new VirtioVhostUserSource(opening.GetAwaiter().GetResult());
        }
        catch (Exception error) when (error is IOException or InvalidDataException or UnauthorizedAccessException)
        {
            throw new IOException($"{PciOption}={address}: {error.Message}", error);
        }
    }

    /// <summary>Takes hold of a device that a vfio-user server has, without a machine between.</summary>
    private static async Task<DriverAccess> ConnectDeviceAsync(string path)
    {
        VfioUserClient client = await VfioUserClient.ConnectAsync(path).ConfigureAwait(false);
        DriverMemory memory = new(DriverBytes);
        async ValueTask ReleaseAsync()
        {
            await client.DisposeAsync().ConfigureAwait(false);
            memory.Dispose();
        }

        try
        {
            await client.MapAsync(memory.GuestAddress, memory.File, 0, memory.SizeBytes).ConfigureAwait(false);
            return await PciAccess.StartAsync(client, memory, ReleaseAsync, $"the device at {path}")
                .ConfigureAwait(false);
        }
        catch
        {
            await ReleaseAsync().ConfigureAwait(false);
            throw;
        }
    }

    private static ServedSocket OpenActivated() => IsActivated()
        ? Inherit(FirstDescriptor, "LISTEN_FDS=1")
        : throw new CommandLineException(
            "no socket: give --socket-path=PATH, --connect=PATH, --fd=N, --vfio-user-socket=PATH "
            + "or --virtio-vhost-user=ADDRESS");

    private static ServedSocket Inherit(int number, string option)
    {
        if (number < FirstDescriptor)
        {
            throw new CommandLineException(
                $"{option}: 0, 1 and 2 are the standard streams; pass the socket as 3 or above");
        }

        FileDescriptor descriptor;
        try
        {
            descriptor = FileDescriptor.FromInherited(number);
        }
        catch (LinuxException)
        {
            throw new CommandLineException(
                $"{option}: descriptor {number} is not open; let the starting program pass it on");
        }

        if (!UnixSocket.IsUnixStream(descriptor))
        {
            FileKind kind = descriptor.Kind;
            descriptor.Dispose();
            string what = kind == FileKind.Socket ? "another kind of socket" : $"no socket but of the kind {kind}";
            throw new CommandLineException($"{option}: {what}; pass a UNIX stream socket, connected or listening");
        }

        string name = $"descriptor {number}";
        return UnixListener.IsListening(descriptor)
            ? new ServedSocket(name, UnixListener.FromInherited(descriptor))
            : new ServedSocket(name, source: null, new UnixSocket(descriptor));
    }

    /// <summary>Whether sockets were passed, to this very process (the variables are inherited by children).</summary>
    private static bool IsActivated()
    {
        string? count = Environment.GetEnvironmentVariable("LISTEN_FDS");
        string? process = Environment.GetEnvironmentVariable("LISTEN_PID");
        if (count is null || process != Environment.ProcessId.ToString(CultureInfo.InvariantCulture))
        {
            return false;
        }

        return count == "1"
            ? true
            : throw new CommandLineException($"LISTEN_FDS={count}: one socket is served; pass one");
    }
}
