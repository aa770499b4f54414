// The options of "outboard rng", in the order in which --help shows them.
using System.CommandLine;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;

namespace Outboard.Cli.Rng;

/// <summary>The settings of the entropy back-end. Null means that nothing was said.</summary>
internal sealed record RngSettings(
    string? SocketPath, string? PeerPath, int? DescriptorNumber, string? VfioUserPath, string? SourcePath,
    long MaxBytesPerSecond, bool IsInOrder, bool OffersInbandNotifications, LogLevel LogLevel);

/// <summary>The options, and how they become <see cref="RngSettings"/>.</summary>
internal sealed class RngOptions
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

    private readonly SwitchOption _capabilities = new(
        "--print-capabilities", "Print what this back-end can do as JSON and exit, whatever else is given.");

    private readonly ValueOption<string> _source = ValueOption.Text(
        "--source", "PATH", "Take the bytes from a device (/dev/hwrng) or a file. [default: the system's generator]");

    private readonly ValueOption<long?> _maxRate = ValueOption.Size(
        "--max-rate", "Most bytes that the guest gets in a second. [default: no limit]");

    private readonly SwitchOption _inOrder = InOrderOption.Create();

    private readonly SwitchOption _inband = InbandOption.Create();

    private readonly SwitchOption _verbose = new("--verbose", "Log more.");

    private readonly SwitchOption _quiet = new("--quiet", "Log warnings and errors only.");

    public void AddTo(Command command)
    {
        Option[] all =
        [
            _socketPath, _connect, _descriptor, _vfioUserPath, _capabilities, _source, _maxRate,
            _inOrder, _inband, _verbose, _quiet,
        ];
        foreach (Option option in all)
        {
            command.Add(option);
        }
    }

    public RngSettings Read(ParseResult result)
    {
        if (_verbose.Read(result) && _quiet.Read(result))
        {
            throw new CommandLineException("--verbose and --quiet exclude each other: give one of them");
        }

        return new RngSettings(
            _socketPath.Read(result),
            _connect.Read(result),
            _descriptor.Read(result),
            _vfioUserPath.Read(result),
            _source.Read(result),
            _maxRate.Read(result) ?? 0,
            _inOrder.Read(result),
            _inband.Read(result),
            _verbose.Read(result) ? LogLevel.Debug : _quiet.Read(result) ? LogLevel.Warning : LogLevel.Information);
    }
}
