// The options of "outboard console", in the order in which --help shows them, and what they say.
using System.CommandLine;
using System.Globalization;
using System.Text;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.Devices.Console;

namespace Outboard.Cli.Terminal;

/// <summary>The settings of the console. Null means that nothing was said.</summary>
internal sealed record ConsoleSettings
{
    public required ServingSettings Serving { get; init; }

    public required StateSettings State { get; init; }

    public string? LogPath { get; init; }

    public bool UsesPseudoTerminal { get; init; }

    public bool UsesStandardStreams { get; init; }

    public string? TerminalPath { get; init; }

    public (ushort Columns, ushort Rows)? Size { get; init; }

    /// <summary>A further port, and its log.</summary>
    public (string Name, string LogPath)? Port { get; init; }

    /// <summary>Checks what belongs together.</summary>
    /// <exception cref="CommandLineException">It does not fit.</exception>
    public void Check()
    {
        string[] terminals =
        [
            .. UsesPseudoTerminal ? (string[])["--pty"] : [],
            .. UsesStandardStreams ? (string[])["--stdio"] : [],
            .. TerminalPath is null ? (string[])[] : [$"--terminal-socket={TerminalPath}"],
        ];
        if (terminals.Length > 1)
        {
            throw new CommandLineException($"{string.Join(" and ", terminals)} exclude each other: give one of them");
        }

        if (terminals.Length == 0 && LogPath is null)
        {
            throw new CommandLineException(
                "nowhere to write to: give --log=FILE, --pty, --stdio or --terminal-socket=PATH");
        }

        if (State.IsGiven && LogPath is null && Port is null)
        {
            throw new CommandLineException(
                "--state-file: there is no log; leave it out, or give --log=FILE: what a terminal shows is not kept");
        }
    }
}

/// <summary>The options, and how they become <see cref="ConsoleSettings"/>.</summary>
internal sealed class ConsoleOptions
{
    private readonly ServingOptions _serving = new();
    private readonly StateOptions _state = new();

    private readonly ValueOption<string> _log = ValueOption.Text(
        "--log", "FILE", "Append the guest's output to FILE; with --state-file each byte exactly once, whatever is "
        + "killed.");

    private readonly SwitchOption _pty = new(
        "--pty", "Make a pseudo terminal, whose path is told on standard error, for programs such as screen.");

    private readonly SwitchOption _stdio = new("--stdio", "Connect the guest to standard input and output.");

    private readonly ValueOption<string> _socket = ValueOption.Text(
        "--terminal-socket", "PATH", "Listen on a UNIX socket at PATH for one peer at a time (socat, for instance).");

    private readonly ValueOption<(ushort Columns, ushort Rows)?> _size = new(
        "--size", "COLUMNSxROWS", "The terminal's size to tell the guest.", "give a size such as 80x25", ParseSize);

    private readonly ValueOption<(string Name, string LogPath)?> _port = new(
        "--port", "NAME,FILE",
        "Have a second port, /dev/virtio-ports/NAME in a Linux guest, whose output is appended to FILE.",
        $"give a name of up to {ConsolePort.MaxNameBytes} ASCII characters, a comma, and a file", ParsePort);

    public void AddTo(Command command)
    {
        Option[] all =
        [
            .. _serving.Sockets, _log, _pty, _stdio, _socket, _size, _port, .. _state.All, .. _serving.Last,
        ];
        foreach (Option option in all)
        {
            command.Add(option);
        }
    }

    public ConsoleSettings Read(ParseResult result) => new()
    {
        Serving = _serving.Read(result),
        State = _state.Read(result),
        LogPath = _log.Read(result),
        UsesPseudoTerminal = _pty.Read(result),
        UsesStandardStreams = _stdio.Read(result),
        TerminalPath = _socket.Read(result),
        Size = _size.Read(result),
        Port = _port.Read(result),
    };

    private static (ushort Columns, ushort Rows)? ParseSize(string text) =>
        text.Split('x') is [var columns, var rows]
            && ushort.TryParse(columns, NumberStyles.None, CultureInfo.InvariantCulture, out ushort width)
            && ushort.TryParse(rows, NumberStyles.None, CultureInfo.InvariantCulture, out ushort height)
            && width > 0 && height > 0
            ? (width, height) : null;

    private static (string Name, string LogPath)? ParsePort(string text) =>
        text.Split(',', 2) is [{ Length: > 0 and <= ConsolePort.MaxNameBytes } name, { Length: > 0 } path]
            && Ascii.IsValid(name)
            ? (name, path) : null;
}
