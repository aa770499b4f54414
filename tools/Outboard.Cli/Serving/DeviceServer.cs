// Serves a device until there is nothing left to serve, or until asked to end. Ending means: no more connections, rings
// stopped, what is in flight completed. A front-end or a storage that is stuck does not hold the program for longer
// than the grace period, since management software kills what does not end.
using Microsoft.Extensions.Logging;
using Outboard.VfioUser.Server;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.Virtio;
using Outboard.Virtio.Pci;

namespace Outboard.Cli.Serving;

internal static class DeviceServer
{
    /// <summary>Time for what is in flight, once asked to end.</summary>
    private static readonly TimeSpan s_grace = TimeSpan.FromMilliseconds(700);

    /// <summary>Serves.</summary>
    /// <returns>False when it was given up with requests in flight.</returns>
    public static bool Serve(
        VirtioDevice device, ServedSocket socket, VhostUserBackendOptions options, CancellationToken ending)
    {
        Task serving = ServeAsync(device, socket, options, ending);
        using ManualResetEventSlim wake = new();
        _ = serving.ContinueWith(
            _ => wake.Set(), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        using CancellationTokenRegistration registration = ending.Register(wake.Set);
        wake.Wait(CancellationToken.None);
        if (ending.IsCancellationRequested && !serving.Wait(s_grace, CancellationToken.None))
        {
            options.Logger.LogError(
                "requests are still in flight {Grace} ms after the signal; they are given up",
                s_grace.TotalMilliseconds);
            return false;
        }

        serving.GetAwaiter().GetResult();
        return true;
    }

    private static async Task ServeAsync(
        VirtioDevice device, ServedSocket socket, VhostUserBackendOptions options, CancellationToken ending)
    {
        try
        {
            if (socket.IsVfioUser)
            {
                await ServeAsFunctionAsync(device, socket, options, ending);
            }
            else if (socket.Connection is { } connection)
            {
                await VhostUserBackend.ServeConnectionAsync(device, new SocketChannel(connection), options, ending);
            }
            else
            {
                await VhostUserBackend.ServeAsync(device, socket.Source!, options, ending);
            }
        }
        catch (OperationCanceledException) when (ending.IsCancellationRequested)
        {
            // Asked to end.
        }
    }

    private static async Task ServeAsFunctionAsync(
        VirtioDevice device, ServedSocket socket, VhostUserBackendOptions options, CancellationToken ending)
    {
        VirtioPciOptions pci = new()
        {
            Logger = options.Logger,
            Worker = options.Worker,
            WorkerCount = options.WorkerCount,
            WithheldFeatures = options.WithheldFeatures,
            AdditionalFeatures = options.AdditionalFeatures,
        };
        await using VirtioPciFunction function = new(device, pci);
        VfioUserServerOptions server = new() { Logger = options.Logger };
        await VfioUserServer.ServeAsync(function, socket.Listener!, server, ending);
    }
}
