// "outboard trace": stands between front-ends and a back-end, or between vfio-user clients and a server, and prints
// what they say. Any number of connections, side by side; each gets its own connection to the back-end. Ends on SIGTERM
// or SIGINT, or with the connection by --once.
using System.CommandLine;
using System.Net.Sockets;
using Outboard.Cli.Inspect;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.Linux.Sockets;
using Outboard.VfioUser.Tracing;
using Outboard.VhostUser.Tracing;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Trace;

internal static class TraceCommand
{
    private const string Name = "trace";

    private delegate Task Relay(UnixSocket asker, UnixSocket asked, CancellationToken ending);

    public static Command Create()
    {
        ValueOption<string> listen = ValueOption.Text("--listen", "PATH", "Listen here, in the back-end's place.");
        listen.Required = true;
        ValueOption<string> connect = ValueOption.Text("--connect", "PATH", "Where the back-end listens.");
        connect.Required = true;
        SwitchOption vfioUser = new(
            "--vfio-user", "What is relayed is vfio-user: a client comes to --listen, and --connect is the server's.");
        ValueOption<VirtioDeviceId?> type = InspectCommand.TypeOption();
        SwitchOption json = new("--json", "Print a JSON object on each line.");
        SwitchOption reverse = new(
            "--reverse", "The back-end connects to --listen, and the front-end listens at --connect.");
        SwitchOption once = new("--once", "End with the first connection.");
        ValueOption<string> output = ValueOption.Text(
            "--output", "FILE", "Append to a file instead of printing.");
        Command command = new(
            Name,
            "Relay vhost-user or vfio-user connections with their descriptors and print every message, as it is. Ends "
            + "on SIGTERM.")
        {
            listen, connect, vfioUser, type, json, reverse, once, output,
        };
        command.SetAction(result => Run(new TraceSettings(
            listen.Read(result)!,
            connect.Read(result)!,
            vfioUser.Read(result),
            type.Read(result),
            json.Read(result),
            reverse.Read(result),
            once.Read(result),
            output.Read(result))));
        return command;
    }

    private static int Run(TraceSettings settings)
    {
        using EndSignals signals = new();
        using Stream output = settings.OutputPath is { } path
            ? new FileStream(path, FileMode.Append, FileAccess.Write, FileShare.ReadWrite)
            : Console.OpenStandardOutput();
        using UnixListener listener = Bind(settings.ListenPath);
        return ServeAsync(settings, listener, RelayTo(output, settings), signals.Requested).GetAwaiter().GetResult()
            ? 0 : 1;
    }

    private static Relay RelayTo(Stream output, TraceSettings settings)
    {
        TraceLineWriter lines = new(new LineOutput(output), settings.IsJson);
        return settings.IsVfioUser
            ? new CommandTraceRelay(entry => lines.Write(VfioUserTraceLine.Of(entry))).RelayAsync
            : new TraceRelay(entry => lines.Write(VhostUserTraceLine.Of(entry)), settings.Device).RelayAsync;
    }

    private static UnixListener Bind(string path)
    {
        try
        {
            return UnixListener.Bind(path);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new IOException($"--listen={path}: {error.Message}", error);
        }
    }

    /// <summary>Relays until asked to end.</summary>
    /// <returns>False when the only connection could not be relayed.</returns>
    private static async Task<bool> ServeAsync(
        TraceSettings settings, UnixListener listener, Relay relay, CancellationToken ending)
    {
        List<Task<bool>> connections = [];
        try
        {
            while (true)
            {
                UnixSocket accepted = await listener.AcceptAsync(ending);
                Task<bool> connection = RelayAsync(settings, accepted, relay, ending);
                if (settings.IsOnce)
                {
                    return await connection;
                }

                connections.RemoveAll(task => task.IsCompleted);
                connections.Add(connection);
            }
        }
        catch (OperationCanceledException) when (ending.IsCancellationRequested)
        {
            await Task.WhenAll(connections);
            return true;
        }
    }

    private static async Task<bool> RelayAsync(
        TraceSettings settings, UnixSocket accepted, Relay relay, CancellationToken ending)
    {
        UnixSocket connected;
        try
        {
            connected = await UnixSocket.ConnectAsync(settings.ConnectPath, ending);
        }
        catch (Exception error) when (error is SocketException or ArgumentOutOfRangeException)
        {
            // As if nobody listened here, either; the next one may find somebody.
            accepted.Dispose();
            ErrorLine.Write($"outboard trace: error: --connect={settings.ConnectPath}: {error.Message}");
            return false;
        }

        await (settings.IsReverse
            ? relay(connected, accepted, ending)
            : relay(accepted, connected, ending));
        return true;
    }
}

/// <summary>The settings of a trace.</summary>
internal sealed record TraceSettings(
    string ListenPath,
    string ConnectPath,
    bool IsVfioUser,
    VirtioDeviceId? Device,
    bool IsJson,
    bool IsReverse,
    bool IsOnce,
    string? OutputPath);
