// The options of "outboard net", in the order in which --help shows them.
using System.CommandLine;
using System.Net.NetworkInformation;
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

    private readonly ServingOptions _serving = new();

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

    public void AddTo(Command command)
    {
        Option[] all =
        [
            .. _serving.Sockets,
            _tap, _stream, _streamListen, _datagram, _null, _loopback, _mac, _mtu,
            _pairs, _queueSize, _control, .. _serving.Threads,
            .. _serving.Last,
        ];
        foreach (Option option in all)
        {
            command.Add(option);
        }
    }

    public NetSettings Read(ParseResult result) => new()
    {
        Serving = _serving.Read(result),
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
    };

    private static PhysicalAddress? ParseMac(string text) =>
        text.Length == 17 && PhysicalAddress.TryParse(text, out PhysicalAddress? mac)
            && mac.GetAddressBytes() is { Length: 6 } bytes && (bytes[0] & 1) == 0 ? mac : null;
}
