// Serving a device over vhost-user: listen, accept, serve, and again. One front-end at a time has the device; the next
// one may connect while the first is being served and gets its turn.
using Microsoft.Extensions.Logging;
using Outboard.Linux.Sockets;
using Outboard.Virtio;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

/// <summary>Serves devices over vhost-user. Any number of devices in one process: one call for each.</summary>
public static class VhostUserBackend
{
    /// <summary>Serves <paramref name="device"/> on a socket until cancelled.</summary>
    /// <param name="device">The device.</param>
    /// <param name="socketPath">Where to listen. A dead process's socket there is replaced; it is removed at the
    /// end.</param>
    /// <param name="options">How to serve.</param>
    /// <param name="cancellation">Ends serving: rings are stopped, what is in flight is completed.</param>
    /// <exception cref="IOException">The socket cannot be bound.</exception>
    public static async Task ServeAsync(
        VirtioDevice device,
        string socketPath,
        VhostUserBackendOptions? options = null,
        CancellationToken cancellation = default)
    {
        using UnixListener listener = UnixListener.Bind(socketPath);
        await ServeAsync(device, listener, options, cancellation).ConfigureAwait(false);
    }

    /// <summary>Serves <paramref name="device"/> on a socket that listens already.</summary>
    public static async Task ServeAsync(
        VirtioDevice device,
        UnixListener listener,
        VhostUserBackendOptions? options = null,
        CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(listener);
        using ChannelSource source = ChannelSource.Accept(listener);
        await ServeAsync(device, source, options, cancellation).ConfigureAwait(false);
    }

    /// <summary>
    /// Serves <paramref name="device"/> on one connection after another until cancelled, whichever side listens.
    /// </summary>
    /// <param name="device">The device.</param>
    /// <param name="source">Where connections come from; stays the caller's.</param>
    /// <param name="options">How to serve.</param>
    /// <param name="cancellation">Ends serving: rings are stopped, what is in flight is completed.</param>
    /// <exception cref="IOException">The source cannot be used.</exception>
    public static async Task ServeAsync(
        VirtioDevice device,
        ChannelSource source,
        VhostUserBackendOptions? options = null,
        CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(source);
        options ??= new VhostUserBackendOptions();
        options.OnListening?.Invoke();
        try
        {
            while (!cancellation.IsCancellationRequested)
            {
                VhostUserChannel channel = await source
                    .NextAsync(Timeout.InfiniteTimeSpan, cancellation).ConfigureAwait(false);
                await ServeConnectionAsync(device, channel, options, cancellation).ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException) when (cancellation.IsCancellationRequested)
        {
            // Asked to end.
        }
    }

    /// <summary>
    /// Serves one front-end on a channel, until it goes away. Its mistakes are logged, and end its connection only.
    /// </summary>
    public static async Task ServeConnectionAsync(
        VirtioDevice device,
        VhostUserChannel channel,
        VhostUserBackendOptions? options = null,
        CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentNullException.ThrowIfNull(channel);
        options ??= new VhostUserBackendOptions();
        ILogger log = options.Logger;
        log.LogInformation("a front-end connected");
        BackendSession session = new(device, channel, options);
        await using (session.ConfigureAwait(false))
        {
            try
            {
                await session.RunAsync(cancellation).ConfigureAwait(false);
                log.LogInformation("the front-end disconnected");
            }
            catch (ProtocolException)
            {
                // Logged where it was found, with request, field and value.
                channel.Close();
            }
            catch (IOException error)
            {
                log.LogWarning("the connection failed: {Reason}", error.Message);
                channel.Close();
            }
            catch (Exception error) when (error is not OperationCanceledException)
            {
                // A bug of this program or of its device ends this session. The next front-end gets a fresh one.
                log.LogCritical(error, "this program failed; the session ends");
                channel.Close();
            }
        }
    }
}
