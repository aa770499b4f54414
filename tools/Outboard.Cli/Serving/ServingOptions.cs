// The options that every back-end of a virtio device has: which socket, how many threads, how it tells what happens.
// In --help a command shows Sockets first, then what is its own with Threads among it (if it has any), then Last.
using System.CommandLine;
using Outboard.Cli.Text;

namespace Outboard.Cli.Serving;

/// <summary>The options, and how they become <see cref="ServingSettings"/>.</summary>
internal sealed class ServingOptions
{
    private readonly ValueOption<string> _socketPath = ValueOption.Text(
        "--socket-path", "PATH", "Listen on a UNIX socket at PATH.");

    private readonly ValueOption<string> _connect = ValueOption.Text(
        "--connect", "PATH", "Connect to a front-end that listens at PATH, again whenever it comes back.");

    private readonly ValueOption<int?> _descriptor = ValueOption.Number(
        "--fd", "N", "Use the inherited socket N, connected or listening. LISTEN_FDS=1 is understood, too.",
        0, int.MaxValue);

    private readonly ValueOption<string> _vfioUserPath = ValueOption.Text(
        "--vfio-user-socket", "PATH", "Be a PCI device on a UNIX socket at PATH: a vfio-user server.");

    private readonly ValueOption<string> _pciAddress = ValueOption.Text(
        "--virtio-vhost-user", "ADDRESS",
        "Inside a virtual machine: serve another one through the virtio-vhost-user device at this PCI address "
        + "(0000:00:03.0), which is bound to vfio-pci; or, outside of one, through that of the vfio-user server at "
        + "vfio-user:PATH.");

    /// <summary>Carried out before anything is parsed (see Invocation); here for --help.</summary>
    private readonly SwitchOption _capabilities = new(
        "--print-capabilities", "Print what this back-end can do as JSON and exit, whatever else is given.");

    private readonly ThreadOptions _threads = new("one for each, at most one for each CPU");

    private readonly SwitchOption _inband = new(
        "--inband-notifications",
        "Offer kicks and calls as messages, for front-ends that simulate time (User Mode Linux). QEMU accepts them and "
        + "then never kicks: not for QEMU.");

    private readonly SwitchOption _inOrder = new(
        "--in-order",
        "Offer VIRTIO_F_IN_ORDER: requests are returned in the order they came. Cheap for a network card; on a disk "
        + "one slow request holds back all behind it, so only on request.");

    private readonly SwitchOption _lifeCycle = new(
        "--life-cycle", "Offer the whole life cycle of the device (private to outboard), for 'outboard relay'.");

    private readonly SwitchOption _noMsix = FunctionServer.CreateNoMsixOption();

    private readonly LogOptions _log = new();

    /// <summary>Where front-ends or clients come from; the first options of a command.</summary>
    public IEnumerable<Option> Sockets =>
        [_socketPath, _connect, _descriptor, _vfioUserPath, _pciAddress, _capabilities];

    /// <summary>For devices with several queues or much to do. Left out, they are not there.</summary>
    public IEnumerable<Option> Threads => _threads.All;

    /// <summary>The last options of a command.</summary>
    public IEnumerable<Option> Last => [_inOrder, _inband, _lifeCycle, _noMsix, .. _log.All];

    /// <exception cref="CommandLineException">A value is wrong, or two exclude each other.</exception>
    public ServingSettings Read(ParseResult result) => new()
    {
        SocketPath = _socketPath.Read(result),
        PeerPath = _connect.Read(result),
        DescriptorNumber = _descriptor.Read(result),
        VfioUserPath = _vfioUserPath.Read(result),
        HasMsix = !_noMsix.Read(result),
        PciAddress = _pciAddress.Read(result),
        Threads = _threads.Read(result),
        IsInOrder = _inOrder.Read(result),
        OffersInbandNotifications = _inband.Read(result),
        OffersLifeCycle = _lifeCycle.Read(result),
        LogLevel = _log.Read(result),
    };
}
