// "outboard net": a network card as a vhost-user back-end.
using System.CommandLine;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.Devices.Net;
using Outboard.Devices.Net.Backends;

namespace Outboard.Cli.Net;

internal static class NetCommand
{
    public const string Name = "net";

    /// <param name="programName">The name that the program was called by, for the log.</param>
    public static Command Create(string programName)
    {
        Command command = new(
            Name,
            "Serve a network card: a vhost-user back-end, or a vfio-user server, of the type net. Ends on SIGTERM.");
        NetOptions options = new();
        options.AddTo(command);
        command.SetAction(result => Run(options.Read(result), programName));
        return command;
    }

    private static int Run(NetSettings settings, string programName)
    {
        settings.Check();
        StandardErrorLog log = new(programName, settings.Serving.LogLevel);
        using EndSignals signals = new();
        using NetBackend backend = settings.OpenBackend();
        NetDevice device = settings.CreateDevice(backend);
        backend.ConnectionChanged += () => LogConnection(backend, log);
        using ServedSocket socket = settings.Serving.OpenSocket();
        log.LogInformation("serving {Network} on {Socket}", backend.Description, socket.Name);
        bool wasClean = DeviceServer.Serve(device, socket, settings.Serving.ToBackendOptions(log), signals.Requested);
        LogCounters(device, log);
        return wasClean ? 0 : 1;
    }

    private static void LogConnection(NetBackend backend, StandardErrorLog log)
    {
        if (backend.IsConnected)
        {
            log.LogInformation("{Network}: the peer is there", backend.Description);
        }
        else
        {
            log.LogWarning("{Network}: the peer went away; packets are dropped until it is back", backend.Description);
        }
    }

    private static void LogCounters(NetDevice device, StandardErrorLog log)
    {
        for (int queue = 0; queue < device.Counters.Count; queue++)
        {
            NetCounters counters = device.Counters[queue];
            log.LogInformation(
                "queue {Queue}: {Verb} {Packets} packets, {Bytes} bytes; dropped {Refused} refused, "
                + "{Malformed} malformed, {Oversize} too long",
                queue, queue % 2 == 0 ? "received" : "sent", counters.Packets, counters.Bytes, counters.Refused,
                counters.Malformed, counters.Oversize);
        }
    }
}
