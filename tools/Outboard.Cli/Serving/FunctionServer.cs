// Serves a PCI function until asked to end. As DeviceServer: a client or a device that is stuck does not hold the
// program for longer than the grace period.
using Microsoft.Extensions.Logging;
using Outboard.Linux.Sockets;
using Outboard.Pci;
using Outboard.VfioUser.Server;

namespace Outboard.Cli.Serving;

internal static class FunctionServer
{
    /// <summary>Time for what is in flight, once asked to end.</summary>
    private static readonly TimeSpan s_grace = TimeSpan.FromMilliseconds(700);

    /// <summary>Binds the socket that an option names.</summary>
    /// <exception cref="IOException">It cannot be bound.</exception>
    public static UnixListener Bind(string path)
    {
        try
        {
            return UnixListener.Bind(path);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new IOException($"--vfio-user-socket={path}: {error.Message}", error);
        }
    }

    /// <summary>Serves.</summary>
    /// <returns>False when it was given up with requests in flight.</returns>
    public static bool Serve(
        PciFunction function, UnixListener listener, VfioUserServerOptions options, CancellationToken ending)
    {
        Task serving = VfioUserServer.ServeAsync(function, listener, options, ending);
        using ManualResetEventSlim wake = new();
        _ = serving.ContinueWith(
            _ => wake.Set(), CancellationToken.None, TaskContinuationOptions.None, TaskScheduler.Default);
        using CancellationTokenRegistration registration = ending.Register(wake.Set);
        wake.Wait(CancellationToken.None);
        if (ending.IsCancellationRequested && !serving.Wait(s_grace, CancellationToken.None))
        {
            options.Logger.LogError(
                "the device is still at work {Grace} ms after the signal; it is given up", s_grace.TotalMilliseconds);
            return false;
        }

        serving.GetAwaiter().GetResult();
        return true;
    }
}
