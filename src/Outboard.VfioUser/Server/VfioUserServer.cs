// Serving a function over vfio-user: listen, accept, serve, and again. One client at a time has the function; the next
// one may connect meanwhile and gets its turn. The function's state survives between them.
using Microsoft.Extensions.Logging;
using Outboard.Linux.Sockets;
using Outboard.Pci;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Server;

/// <summary>Serves PCI functions over vfio-user. Any number of functions in one process: one call for each.</summary>
public static class VfioUserServer
{
    /// <summary>Serves <paramref name="function"/> on a socket until cancelled.</summary>
    /// <param name="function">The function.</param>
    /// <param name="socketPath">Where to listen. A dead process's socket there is replaced; it is removed at the
    /// end.</param>
    /// <param name="options">How to serve.</param>
    /// <param name="cancellation">Ends serving, also with a client connected.</param>
    /// <exception cref="IOException">The socket cannot be bound.</exception>
    public static async Task ServeAsync(
        PciFunction function,
        string socketPath,
        VfioUserServerOptions? options = null,
        CancellationToken cancellation = default)
    {
        using UnixListener listener = UnixListener.Bind(socketPath);
        await ServeAsync(function, listener, options, cancellation).ConfigureAwait(false);
    }

    /// <summary>Serves <paramref name="function"/> on a socket that listens already.</summary>
    public static async Task ServeAsync(
        PciFunction function,
        UnixListener listener,
        VfioUserServerOptions? options = null,
        CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(listener);
        options ??= new VfioUserServerOptions();
        options.OnListening?.Invoke();
        try
        {
            while (!cancellation.IsCancellationRequested)
            {
                UnixSocket socket = await listener.AcceptAsync(cancellation).ConfigureAwait(false);
                await ServeConnectionAsync(
                    function, new SocketChannel(socket), options, cancellation).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // Asked to end.
        }
    }

    /// <summary>
    /// Serves one client on a channel, until it goes away. Its mistakes are logged, and end its connection only.
    /// </summary>
    public static async Task ServeConnectionAsync(
        PciFunction function,
        SocketChannel channel,
        VfioUserServerOptions? options = null,
        CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(function);
        ArgumentNullException.ThrowIfNull(channel);
        options ??= new VfioUserServerOptions();
        ILogger log = options.Logger;
        log.LogInformation("a client connected");
        ServerSession session = new(function, channel, options);
        await using (session.ConfigureAwait(false))
        {
            try
            {
                await session.RunAsync(cancellation).ConfigureAwait(false);
                log.LogInformation("the client disconnected");
            }
            catch (IOException error)
            {
                log.LogWarning("the connection failed: {Reason}", error.Message);
            }
            catch (Exception error) when (error is not OperationCanceledException)
            {
                log.LogCritical(error, "this program failed; the session ends");
            }
        }
    }
}
