// Serves a device until there is nothing left to serve, or until asked to end. Ending means: no more connections, rings
// stopped, what is in flight completed. A front-end or a storage that is stuck does not hold the program for longer
// than the grace period.
using Outboard.VfioUser.Server;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.Virtio;
using Outboard.Virtio.Pci;

namespace Outboard.Cli.Serving;

internal static class DeviceServer
{
    /// <summary>Serves.</summary>
    /// <returns>False when it was given up with requests in flight.</returns>
    public static bool Serve(
        VirtioDevice device, ServedSocket socket, VhostUserBackendOptions options, CancellationToken ending) =>
        GracePeriod.Wait(
            ServeAsync(device, socket, options, ending), options.Logger, "requests are still in flight", ending);

    private static Task ServeAsync(
        VirtioDevice device, ServedSocket socket, VhostUserBackendOptions options, CancellationToken ending) =>
        socket switch
        {
            { IsVfioUser: true } => ServeAsFunctionAsync(device, socket, options, ending),
            { Connection: { } connection } =>
                VhostUserBackend.ServeConnectionAsync(device, new SocketChannel(connection), options, ending),
            _ => VhostUserBackend.ServeAsync(device, socket.Source!, options, ending),
        };

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
            HasMsix = socket.HasMsix,
        };
        await using VirtioPciFunction function = new(device, pci);
        VfioUserServerOptions server = new() { Logger = options.Logger };
        await VfioUserServer.ServeAsync(function, socket.Listener!, server, ending);
    }
}
