// "outboard rng": random numbers for a guest, as a vhost-user back-end.
using System.CommandLine;
using Microsoft.Extensions.Logging;
using Outboard.Cli.Serving;
using Outboard.Cli.Text;
using Outboard.Devices.Rng;
using Outboard.Linux;
using Outboard.VhostUser.Backend;

namespace Outboard.Cli.Rng;

internal static class RngCommand
{
    public const string Name = "rng";

    /// <param name="programName">The name that the program was called by, for the log.</param>
    public static Command Create(string programName)
    {
        Command command = new(
            Name,
            "Serve random numbers: a vhost-user back-end, or a vfio-user server, of the type rng. Ends on SIGTERM.");
        RngOptions options = new();
        options.AddTo(command);
        command.SetAction(result => Run(options.Read(result), programName));
        return command;
    }

    private static int Run(RngSettings settings, string programName)
    {
        StandardErrorLog log = new(programName, settings.LogLevel);
        using EndSignals signals = new();
        using EntropySource source = OpenSource(settings);
        RngDevice device = new(source, new RngDeviceOptions { MaxBytesPerSecond = settings.MaxBytesPerSecond });
        device.SourceExhausted += result => log.LogWarning(
            "{Source} {Outcome}: requests stay unanswered from now on",
            source.Description,
            result == 0 ? "has ended" : $"failed with errno {-result}");
        using ServedSocket socket = ServedSocket.Open(
            settings.SocketPath, settings.PeerPath, settings.DescriptorNumber, settings.VfioUserPath);
        log.LogInformation("serving {Source} on {Socket}", source.Description, socket.Name);
        VhostUserBackendOptions options = new()
        {
            Logger = log,
            WorkerCount = 1,
            AdditionalFeatures = InOrderOption.Features(settings.IsInOrder),
            AdditionalProtocolFeatures = InbandOption.Features(settings.OffersInbandNotifications),
        };
        return DeviceServer.Serve(device, socket, options, signals.Requested) ? 0 : 1;
    }

    private static EntropySource OpenSource(RngSettings settings)
    {
        if (settings.SourcePath is null)
        {
            return EntropySource.System;
        }

        try
        {
            return EntropySource.Open(settings.SourcePath);
        }
        catch (LinuxException error)
        {
            throw new IOException($"--source={settings.SourcePath}: {error.Message}", error);
        }
    }
}
