// A stream socket as the other side: each packet behind its length, 4 bytes, big-endian. It is what QEMU's "-netdev
// stream" and "-netdev socket" speak. We connect, or listen for one peer at a time; when the peer goes away, packets
// are dropped and the link is down until it is back (or another comes).
//
//   StreamConnector   a thread: waits for the end of the connection, gets the next one, hands it to both halves
//   StreamReceiver    on the receive queue's thread; goes over to the next connection when the queue is told (Renew)
//   StreamSender      on the send queue's thread; likewise
//
// A half that no queue uses keeps the newest connection for later.
using System.Net.Sockets;
using Outboard.Linux;
using Outboard.Linux.Sockets;

namespace Outboard.Devices.Net.Backends;

/// <summary>A peer at the other end of a stream.</summary>
public sealed class StreamBackend : NetBackend
{
    /// <summary>Bytes of the length before a packet.</summary>
    internal const int LengthBytes = 4;

    private readonly StreamReceiver _receiver = new();
    private readonly StreamSender _sender = new();
    private readonly StreamConnector _connector;
    private readonly string _name;
    private volatile bool _isConnected;
    private bool _isDisposed;

    /// <summary>Takes ownership of a connected UNIX stream socket; when that ends, nothing follows.</summary>
    /// <param name="descriptor">The socket.</param>
    /// <param name="name">What it is, for logs.</param>
    public StreamBackend(FileDescriptor descriptor, string name)
        : this(name, new UnixSocket(descriptor), null, null)
    {
    }

    private StreamBackend(string name, UnixSocket? first, string? path, UnixListener? listener)
    {
        _name = name;
        _connector = new StreamConnector(Use, Lose, path, listener);
        _connector.Start(first);
    }

    /// <inheritdoc/>
    public override string Description => _name;

    /// <inheritdoc/>
    public override bool IsConnected => _isConnected;

    /// <summary>Connects to a UNIX socket; again whenever the peer has gone away.</summary>
    /// <exception cref="LinuxException">Nobody listens there.</exception>
    public static async Task<StreamBackend> ConnectAsync(string path, CancellationToken cancellation = default)
    {
        try
        {
            UnixSocket socket = await UnixSocket.ConnectAsync(path, cancellation).ConfigureAwait(false);
            return new StreamBackend($"stream to {path}", socket, path, null);
        }
        catch (SocketException error)
        {
            throw new LinuxException("connect", error.NativeErrorCode, $"{path}: start the peer first");
        }
    }

    /// <summary>
    /// Listens at a path for peers, of which one at a time is served. The path is removed at the end.
    /// </summary>
    /// <exception cref="LinuxException">The path cannot be bound.</exception>
    public static StreamBackend Listen(string path) =>
        new($"stream, listening on {path}", null, null, UnixListener.Bind(path));

    /// <inheritdoc/>
    public override PacketReceiver Receiver(int pair) => _receiver;

    /// <inheritdoc/>
    public override PacketSender Sender(int pair) => _sender;

    /// <inheritdoc/>
    public override void Dispose()
    {
        if (_isDisposed)
        {
            return;
        }

        _isDisposed = true;
        _connector.Dispose();
        _receiver.Dispose();
        _sender.Dispose();
    }

    private void Use(StreamConnection connection)
    {
        _receiver.Offer(connection);
        _sender.Offer(connection);
        _isConnected = true;
        TellConnectionChanged();
    }

    private void Lose()
    {
        _isConnected = false;
        TellConnectionChanged();
    }
}
