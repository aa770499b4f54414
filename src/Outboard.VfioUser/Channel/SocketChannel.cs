// A channel on a UNIX stream socket. One side's replies and its own commands go out through the same channel, from
// different tasks: each message is sent whole, in turn. Nobody can call one back that has begun: a part of a message
// would be the end of the stream's order.
//
// A socket that is closed with bytes unread resets the connection, and QEMU 11.1.3 ends itself when it reads such a
// reset (it takes the end of the stream well). So what has come is read before the socket is closed.
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Linux.Sockets;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Channel;

/// <summary>Messages on a UNIX stream socket; attachments are file descriptors.</summary>
/// <remarks>One reader; any number of writers.</remarks>
public sealed class SocketChannel : IAsyncDisposable
{
    /// <summary>Read at once of what nobody wants any more; a socket's buffer holds a few of these.</summary>
    private const int DrainBytes = 64 << 10;

    private readonly UnixSocket _socket;
    private readonly MessageFramer _framer = new();
    private readonly List<FileDescriptor> _arrived = [];
    private readonly SemaphoreSlim _sending = new(1);

    /// <summary>Takes ownership of a connected socket.</summary>
    public SocketChannel(UnixSocket socket) => _socket = socket;

    /// <summary>Two channels connected to each other; the second as an attachment, to be sent away.</summary>
    public static (SocketChannel Own, Attachment Other) CreatePair()
    {
        (UnixSocket first, UnixSocket second) = UnixSocket.CreatePair();
        using (second)
        {
            return (new SocketChannel(first), new Attachment(second.DuplicateDescriptor()));
        }
    }

    /// <summary>Waits for the next message.</summary>
    /// <returns>The message, to be disposed by the caller; null when the peer has closed the channel.</returns>
    /// <exception cref="IOException">The channel failed.</exception>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    public async ValueTask<VfioUserMessage?> ReceiveAsync(CancellationToken cancellation = default)
    {
        while (true)
        {
            int count;
            try
            {
                count = await _socket.ReceiveAsync(_framer.Next, _arrived, cancellation).ConfigureAwait(false);
            }
            catch (LinuxException error) when (error.Errno == Errno.ConnectionReset)
            {
                count = 0;
            }

            if (count == 0)
            {
                return null;
            }

            VfioUserMessage? message = _framer.Advance(count, _arrived);
            if (message is not null)
            {
                return message;
            }
        }
    }

    /// <summary>Waits until it is this task's turn to send; to be followed by <see cref="EndSending"/>.</summary>
    /// <remarks>What a message says may be decided in between, when its place in the order is known.</remarks>
    public Task BeginSendingAsync(CancellationToken cancellation = default) => _sending.WaitAsync(cancellation);

    /// <summary>Lets the next task send.</summary>
    public void EndSending() => _sending.Release();

    /// <summary>Sends a message, header included, between Begin and EndSending. Attachments stay the
    /// caller's.</summary>
    /// <exception cref="IOException">The channel failed.</exception>
    public ValueTask SendAsync(ReadOnlyMemory<byte> message, ReadOnlySpan<Attachment> attachments = default)
    {
        FileDescriptor[] descriptors = attachments.IsEmpty ? [] : new FileDescriptor[attachments.Length];
        for (int i = 0; i < descriptors.Length; i++)
        {
            descriptors[i] = attachments[i].Lend();
        }

        return _socket.SendAsync(message, descriptors, CancellationToken.None);
    }

    /// <summary>
    /// Sends a message of which the payload is at hand, in its turn; only waiting for the turn can be cancelled.
    /// </summary>
    /// <exception cref="IOException">The channel failed.</exception>
    public async ValueTask SendAsync(
        ushort id, VfioUserCommand command, MessageFlags flags, ReadOnlyMemory<byte> payload,
        Attachment[]? attachments = null, CancellationToken cancellation = default)
    {
        byte[] message = new byte[MessageHeader.Bytes + payload.Length];
        WriteHeader(message, new MessageHeader(id, command, (uint)message.Length, flags, 0));
        payload.Span.CopyTo(message.AsSpan(MessageHeader.Bytes));
        await BeginSendingAsync(cancellation).ConfigureAwait(false);
        try
        {
            await SendAsync(message, attachments).ConfigureAwait(false);
        }
        finally
        {
            EndSending();
        }
    }

    /// <summary>Writes a header into the first 16 bytes.</summary>
    public static void WriteHeader(Span<byte> message, in MessageHeader header) =>
        MemoryMarshal.Write(message, header);

    /// <summary>Ends the channel, so that a pending receive returns null. May be called from any thread.</summary>
    public void Close() => _socket.Shutdown();

    /// <inheritdoc/>
    public ValueTask DisposeAsync()
    {
        Drain();
        _framer.Abandon();
        _socket.Dispose();
        _sending.Dispose();
        return ValueTask.CompletedTask;
    }

    /// <summary>Ends the stream, so that nothing more comes, and throws away what has come.</summary>
    private void Drain()
    {
        _socket.Shutdown();
        byte[] rest = new byte[DrainBytes];
        try
        {
            while (_socket.TryReceive(rest, _arrived) > 0)
            {
                Forget();
            }
        }
        catch (Exception error) when (error is LinuxException or ObjectDisposedException)
        {
            // The peer was faster, or this was done before; nothing is there any more.
        }

        Forget();
    }

    private void Forget()
    {
        foreach (FileDescriptor descriptor in _arrived)
        {
            descriptor.Dispose();
        }

        _arrived.Clear();
    }
}
