// The other sides of a console's ports, opened as the command line says.
using Outboard.Cli.Serving;
using Outboard.Devices.Console;
using Outboard.Devices.Console.Backends;
using Outboard.Linux.Files;

namespace Outboard.Cli.Terminal;

/// <summary>What is open: a terminal, logs.</summary>
internal sealed class ConsoleSides : IDisposable
{
    private readonly List<string> _descriptions = [];
    private ConsoleTerminal? _terminal;
    private ConsoleLog? _log;
    private ConsoleLog? _portLog;

    /// <summary>What they are, for the log.</summary>
    public string Description => string.Join(", ", _descriptions);

    /// <summary>Opens them.</summary>
    /// <exception cref="IOException">One cannot be opened.</exception>
    public static ConsoleSides Open(ConsoleSettings settings)
    {
        ConsoleSides sides = new();
        try
        {
            sides._terminal = OpenTerminal(settings);
            sides._log = settings.LogPath is { } path ? OpenLog("--log", path) : null;
            sides._portLog = settings.Port is { } port ? OpenLog("--port", port.LogPath) : null;
            sides.Describe(settings);
            return sides;
        }
        catch
        {
            sides.Dispose();
            throw;
        }
    }

    /// <summary>The device on them.</summary>
    public ConsoleDeviceOptions ToDeviceOptions(ConsoleSettings settings)
    {
        ConsolePort console = new() { Terminal = _terminal, Log = _log };
        return new ConsoleDeviceOptions
        {
            Columns = settings.Size?.Columns ?? 0,
            Rows = settings.Size?.Rows ?? 0,
            Ports = settings.Port is { } port
                ? [console, new ConsolePort { Name = port.Name, Log = _portLog }]
                : [console],
        };
    }

    public void Dispose()
    {
        _terminal?.Dispose();
        _log?.Dispose();
        _portLog?.Dispose();
    }

    private static ConsoleTerminal? OpenTerminal(ConsoleSettings settings)
    {
        if (settings.UsesPseudoTerminal)
        {
            return new StreamTerminal(TerminalStream.CreatePseudoTerminal());
        }

        if (settings.UsesStandardStreams)
        {
            return new StreamTerminal(TerminalStream.OfStandardStreams());
        }

        return settings.TerminalPath is { } path
            ? new SocketTerminal(ServedSocket.Bind("--terminal-socket", path), path) : null;
    }

    private static ConsoleLog OpenLog(string option, string path)
    {
        try
        {
            return ConsoleLog.Open(path);
        }
        catch (IOException error)
        {
            throw new IOException($"{option}={path}: {error.Message}", error);
        }
    }

    private void Describe(ConsoleSettings settings)
    {
        if (_terminal is not null)
        {
            _descriptions.Add($"terminal {_terminal.Description}");
        }

        if (_log is not null)
        {
            _descriptions.Add($"log {_log.Name}");
        }

        if (_portLog is not null)
        {
            _descriptions.Add($"port {settings.Port?.Name} to {_portLog.Name}");
        }
    }
}
