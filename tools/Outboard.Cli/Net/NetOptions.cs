// The options of "outboard net", in the order in which --help shows them.
using System.CommandLine;
using System.Net.NetworkInformation;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.Linux.Tap;

namespace Outboard.Cli.Net;

/// <summary>The options, and how they become <see cref="NetSettings"/>.</summary>
internal sealed class NetOptions
{
    /// <summary>A vring's index has eight bits in the messages that pass its notifiers; a pair has two.</summary>
    private const int MostPairs = 127;

    private const int LeastMtu = 68;
    private const int LargestQueue = 32768;
    private const int MostThreads = 256;
    private const int LongestPollingUs = 1_000_000;

    private readonly ValueOption<string> _socketPath = ValueOption.Text(
        "--socket-path", "PATH", "Listen on a UNIX socket at PATH.");

    private readonly ValueOption<string> _connect = ValueOption.Text(
        "--connect", "PATH", "Connect to a front-end that listens at PATH, again whenever it comes back.");

    private readonly ValueOption<int?> _descriptor = ValueOption.Number(
        "--fd", "N", "Use the inherited socket N, connected or listening. LISTEN_FDS=1 is understood, too.",
        0, int.MaxValue);

    private readonly ValueOption<string> _vfioUserPath = ValueOption.Text(
        "--vfio-user-socket", "PATH", "Be a PCI device on a UNIX socket at PATH: a vfio-user server.");

    private readonly SwitchOption _capabilities = new(
        "--print-capabilities", "Print what this back-end can do as JSON and exit, whatever else is given.");

    private readonly ValueOption<string> _tap = new(
        "--tap", "NAME", "Be the other end of a tap interface, which is made when there is none.",
        "give an interface's name of at most 15 characters",
        text => text.Length is > 0 and <= TapDevice.MaxNameBytes && !text.StartsWith('-') ? text : null);

    private readonly ValueOption<string> _stream = ValueOption.Text(
        "--stream", "PATH", "Connect to a UNIX socket where packets come and go behind their lengths, as QEMU's "
        + "'-netdev stream,server=on' does; again whenever the peer has gone away.");

    private readonly ValueOption<string> _streamListen = ValueOption.Text(
        "--stream-listen", "PATH", "Listen on a UNIX socket at PATH for such a peer, one at a time, as QEMU's "
        + "'-netdev stream,server=off' is.");

    private readonly ValueOption<(string Local, string Remote)?> _datagram = new(
        "--dgram", "LOCAL,REMOTE",
        "Bind a UNIX datagram socket at LOCAL, send to REMOTE, as QEMU's '-netdev dgram' does.",
        "give two paths with a comma between them",
        text => text.Split(',') is [{ Length: > 0 } local, { Length: > 0 } remote] ? (local, remote) : null);

    private readonly SwitchOption _null = new("--null", "For tests: drop what the guest sends.");

    private readonly SwitchOption _loopback = new("--loopback", "For tests: give back what the guest sends.");

    private readonly ValueOption<PhysicalAddress> _mac = new(
        "--mac", "MAC", "The guest's address, where the front-end does not give one (QEMU does).",
        "give six bytes as in 52:54:00:12:34:56", ParseMac);

    private readonly ValueOption<int?> _mtu = ValueOption.Number(
        "--mtu", "N", "The MTU to tell the guest, and to set on the tap.", LeastMtu, ushort.MaxValue);

    private readonly ValueOption<int?> _pairs = ValueOption.Number(
        "--queue-pairs", "N", "Pairs of virtqueues; a tap gets as many queues. [default: 1]", 1, MostPairs);

    private readonly ValueOption<int?> _queueSize = ValueOption.PowerOfTwo(
        "--queue-size", "N", "Largest size of a virtqueue. [default: 1024]", 2, LargestQueue);

    private readonly SwitchOption _control = new(
        "--control-queue", "Have a control queue, for front-ends that pass it on (QEMU answers it itself).");

    private readonly ValueOption<int?> _threads = ValueOption.Number(
        "--threads", "N", "Threads for the queues. [default: one for each, at most one for each CPU]", 1, MostThreads);

    private readonly ValueOption<int?> _polling = ValueOption.Number(
        "--poll-us", "N", "Longest time in microseconds that a thread polls before it sleeps. [default: 50]",
        0, LongestPollingUs);

    private readonly SwitchOption _inOrder = InOrderOption.Create();

    private readonly SwitchOption _inband = InbandOption.Create();

    private readonly SwitchOption _verbose = new("--verbose", "Log more.");

    private readonly SwitchOption _quiet = new("--quiet", "Log warnings and errors only.");

    public void AddTo(Command command)
    {
        Option[] all =
        [
            _socketPath, _connect, _descriptor, _vfioUserPath,
            _capabilities, _tap, _stream, _streamListen, _datagram, _null, _loopback, _mac, _mtu,
            _pairs, _queueSize, _control, _threads, _polling, _inOrder, _inband,
            _verbose, _quiet,
        ];
        foreach (Option option in all)
        {
            command.Add(option);
        }
    }

    public NetSettings Read(ParseResult result)
    {
        if (_verbose.Read(result) && _quiet.Read(result))
        {
            throw new CommandLineException("--verbose and --quiet exclude each other: give one of them");
        }

        return new NetSettings
        {
            SocketPath = _socketPath.Read(result),
            PeerPath = _connect.Read(result),
            VfioUserPath = _vfioUserPath.Read(result),
            DescriptorNumber = _descriptor.Read(result),
            TapName = _tap.Read(result),
            StreamPath = _stream.Read(result),
            StreamListenPath = _streamListen.Read(result),
            DatagramPaths = _datagram.Read(result),
            IsNull = _null.Read(result),
            IsLoopback = _loopback.Read(result),
            Mac = _mac.Read(result),
            Mtu = _mtu.Read(result) ?? 0,
            PairCount = _pairs.Read(result) ?? 1,
            QueueSize = _queueSize.Read(result),
            HasControlQueue = _control.Read(result),
            ThreadCount = _threads.Read(result) ?? 0,
            MaxPolling = _polling.Read(result) is { } us ? TimeSpan.FromMicroseconds(us) : null,
            IsInOrder = _inOrder.Read(result),
            OffersInbandNotifications = _inband.Read(result),
            LogLevel = _verbose.Read(result) ? LogLevel.Debug
                : _quiet.Read(result) ? LogLevel.Warning
                : LogLevel.Information,
        };
    }

    private static PhysicalAddress? ParseMac(string text) =>
        text.Length == 17 && PhysicalAddress.TryParse(text, out PhysicalAddress? mac)
            && mac.GetAddressBytes() is { Length: 6 } bytes && (bytes[0] & 1) == 0 ? mac : null;
}
