// "outboard relay": a device of another process, served once more: over vfio-user, say, where that process speaks
// vhost-user. That process may die and be started again: the relay's guest waits meanwhile.
using System.CommandLine;
using System.Net.Sockets;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Frontend.Relay;
using Outboard.VhostUser.Protocol;

namespace Outboard.Cli.Relay;

internal static class RelayCommand
{
    public const string Name = "relay";

    private const double DefaultLimit = 60;
    private const double LongestLimit = 86_400;

    /// <param name="programName">The name that the program was called by, for the log.</param>
    public static Command Create(string programName)
    {
        Command command = new(
            Name, "Serve a device of another process once more, over vfio-user or vhost-user. Ends on SIGTERM.");
        ValueOption<string> from = ValueOption.Text(
            "--from", "PATH", "The socket of the device: a back-end that was started with --life-cycle.");
        ValueOption<double?> reconnect = ValueOption.Seconds(
            "--reconnect", "Wait so long for the device when it is gone; 0 ends at once. [default: 60]", LongestLimit);
        ServingOptions serving = new();
        foreach (Option option in (Option[])[.. serving.Sockets, from, reconnect, .. serving.Threads, .. serving.Last])
        {
            command.Add(option);
        }

        command.SetAction(result => Run(
            from.Read(result) ?? throw new CommandLineException("--from is missing: give the device's socket"),
            TimeSpan.FromSeconds(reconnect.Read(result) ?? DefaultLimit),
            serving.Read(result),
            programName));
        return command;
    }

    private static int Run(string from, TimeSpan limit, ServingSettings settings, string programName)
    {
        StandardErrorLog log = new(programName, settings.LogLevel);
        using EndSignals signals = new();
        using ChannelSource source = ChannelSource.Connect(from);
        RelayedDevice device = Connect(source, from, limit);
        device.Away += () => log.LogWarning("{From}: the device is gone; its guest waits", from);
        device.Returned += () => log.LogInformation("{From}: the device is back", from);
        try
        {
            using CancellationTokenSource ending =
                CancellationTokenSource.CreateLinkedTokenSource(signals.Requested);
            using ServedSocket socket = settings.OpenSocket();
            log.LogInformation("serving the {Device} device of {From} on {Socket}", device.Id, from, socket.Name);
            _ = device.Lost.ContinueWith(
                _ => ending.Cancel(), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
            bool wasClean = DeviceServer.Serve(device, socket, settings.ToBackendOptions(log), ending.Token);
            if (!signals.Requested.IsCancellationRequested)
            {
                log.LogError("{From}: the device is gone for good: {Reason}", from, device.LostReason);
                return 1;
            }

            return wasClean ? 0 : 1;
        }
        finally
        {
            device.DisposeAsync().AsTask().GetAwaiter().GetResult();
        }
    }

    private static RelayedDevice Connect(ChannelSource source, string from, TimeSpan limit)
    {
        try
        {
            ReconnectOptions reconnect = new() { ConnectLimit = TimeSpan.Zero, Limit = limit };
            return RelayedDevice.ConnectAsync(source, reconnect).GetAwaiter().GetResult();
        }
        catch (Exception error) when (error is SocketException or ProtocolException)
        {
            throw new IOException($"--from={from}: {error.Message}", error);
        }
    }
}
