// What "outboard net" was asked for, checked as far as the command line alone can be; and the other side and the device
// that follow from it.
using System.Net.NetworkInformation;
using Outboard.Cli.Serving;
using Outboard.Devices.Net;
using Outboard.Devices.Net.Backends;
using Outboard.Linux;

namespace Outboard.Cli.Net;

/// <summary>The settings of the network back-end. Null means that nothing was said.</summary>
internal sealed record NetSettings
{
    private const string Remedy =
        "give one of --tap=NAME, --stream=PATH, --stream-listen=PATH and --dgram=LOCAL,REMOTE";

    public required ServingSettings Serving { get; init; }

    public string? TapName { get; init; }

    public string? StreamPath { get; init; }

    /// <summary>Where to listen for the peer of a stream.</summary>
    public string? StreamListenPath { get; init; }

    public (string Local, string Remote)? DatagramPaths { get; init; }

    public bool IsNull { get; init; }

    public bool IsLoopback { get; init; }

    public PhysicalAddress? Mac { get; init; }

    public int Mtu { get; init; }

    public int PairCount { get; init; } = 1;

    public int? QueueSize { get; init; }

    public bool HasControlQueue { get; init; }

    /// <summary>Checks what belongs together.</summary>
    /// <exception cref="CommandLineException">It does not fit.</exception>
    public void Check()
    {
        string[] sides =
        [
            .. TapName is null ? (string[])[] : [$"--tap={TapName}"],
            .. StreamPath is null ? (string[])[] : [$"--stream={StreamPath}"],
            .. StreamListenPath is null ? (string[])[] : [$"--stream-listen={StreamListenPath}"],
            .. DatagramPaths is { } paths ? (string[])[$"--dgram={paths.Local},{paths.Remote}"] : [],
            .. IsNull ? (string[])["--null"] : [],
            .. IsLoopback ? (string[])["--loopback"] : [],
        ];
        if (sides.Length == 0)
        {
            throw new CommandLineException($"no network: {Remedy}");
        }

        if (sides.Length > 1)
        {
            throw new CommandLineException($"{string.Join(" and ", sides)} exclude each other: {Remedy}");
        }

        if (PairCount > 1 && (StreamPath ?? StreamListenPath ?? DatagramPaths?.Local) is not null)
        {
            throw new CommandLineException(
                $"--queue-pairs={PairCount}: {sides[0]} has one pair; leave it out, or give --tap");
        }
    }

    /// <summary>Opens the other side.</summary>
    /// <exception cref="IOException">It cannot be opened.</exception>
    public NetBackend OpenBackend()
    {
        if (TapName is not null)
        {
            return Named($"--tap={TapName}", () => TapBackend.Open(TapName, PairCount, Mtu));
        }

        if (StreamPath is not null)
        {
            return Named(
                $"--stream={StreamPath}", () => StreamBackend.ConnectAsync(StreamPath).GetAwaiter().GetResult());
        }

        if (StreamListenPath is not null)
        {
            return Named($"--stream-listen={StreamListenPath}", () => StreamBackend.Listen(StreamListenPath));
        }

        return DatagramPaths is { } paths
            ? Named($"--dgram={paths.Local},{paths.Remote}", () => DatagramBackend.Open(paths.Local, paths.Remote))
            : IsNull ? new NullBackend() : new LoopbackBackend(PairCount);
    }

    /// <summary>Makes the device.</summary>
    public NetDevice CreateDevice(NetBackend backend)
    {
        NetDeviceOptions defaults = new();
        return new NetDevice(backend, defaults with
        {
            Mac = Mac,
            Mtu = Mtu,
            PairCount = PairCount,
            QueueSize = QueueSize ?? defaults.QueueSize,

            // behind vfio-user there is nobody else who would answer it
            HasControlQueue = HasControlQueue || Serving.VfioUserPath is not null,
        });
    }

    private static NetBackend Named(string option, Func<NetBackend> open)
    {
        try
        {
            return open();
        }
        catch (LinuxException error)
        {
            throw new IOException($"{option}: {error.Message}", error);
        }
    }
}
