// A connected UNIX stream socket that carries file descriptors. Readiness comes from the runtime's own socket engine
// (so that a waiting connection costs no thread); bytes and descriptors move by recvmsg and sendmsg.
// Not here: message framing. Datagram and sequenced-packet sockets.
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using Outboard.Linux.Events;
using Outboard.Linux.Native;

namespace Outboard.Linux.Sockets;

/// <summary>A connected UNIX stream socket with descriptor passing (SCM_RIGHTS).</summary>
/// <remarks>One reader and one writer at a time.</remarks>
public sealed class UnixSocket : IDisposable
{
    /// <summary>How long a send that carries descriptors waits before it tries a full socket again.</summary>
    private const int FullSocketRetryMs = 2;

    /// <summary>How long bytes are left to their reader before the end of a stream is looked for again.</summary>
    private const int HangUpRetryMs = 5;

    private readonly FileDescriptor _descriptor;
    private readonly Socket _readiness;

    /// <summary>Takes ownership of a connected UNIX stream socket.</summary>
    /// <exception cref="LinuxException">The descriptor is not a UNIX stream socket.</exception>
    public UnixSocket(FileDescriptor descriptor)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        if (!IsUnixStream(descriptor))
        {
            throw new LinuxException("getsockopt", Errno.Protocol, "not a UNIX stream socket");
        }

        _descriptor = descriptor;
        _readiness = new Socket(new SafeSocketHandle(descriptor.Duplicate().Release(), ownsHandle: true));
    }

    /// <summary>Connects to the socket at <paramref name="path"/>.</summary>
    /// <exception cref="SocketException">Nobody listens there.</exception>
    public static async Task<UnixSocket> ConnectAsync(string path, CancellationToken cancellation = default)
    {
        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancellation).ConfigureAwait(false);
        return FromSocket(socket);
    }

    /// <summary>Two sockets connected to each other.</summary>
    public static (UnixSocket First, UnixSocket Second) CreatePair()
    {
        (FileDescriptor first, FileDescriptor second) = DescriptorPassing.CreatePair();
        return (new UnixSocket(first), new UnixSocket(second));
    }

    /// <summary>Whether the descriptor is a UNIX stream socket.</summary>
    public static bool IsUnixStream(FileDescriptor descriptor)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        return descriptor.Kind == FileKind.Socket
            && DescriptorPassing.GetOption(descriptor, Libc.SO_DOMAIN) == Libc.AF_UNIX
            && DescriptorPassing.GetOption(descriptor, Libc.SO_TYPE) == Libc.SOCK_STREAM;
    }

    /// <summary>A duplicate of the descriptor, for passing this end to another process.</summary>
    public FileDescriptor DuplicateDescriptor() => _descriptor.Duplicate();

    /// <summary>Waits for bytes and receives them; descriptors that came with them are appended to the list.</summary>
    /// <returns>Bytes received; 0 at the end of the stream.</returns>
    /// <exception cref="LinuxException">The connection failed, or descriptors were lost on the way.</exception>
    /// <remarks>Waiting allocates nothing, as a rule: each message of a peer that sends one at a time is waited for.
    /// </remarks>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    public async ValueTask<int> ReceiveAsync(
        Memory<byte> buffer, List<FileDescriptor> descriptors, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(descriptors);
        while (true)
        {
            int received = DescriptorPassing.TryReceive(_descriptor, buffer.Span, descriptors);
            if (received >= 0)
            {
                return received;
            }

            try
            {
                // A receive of no bytes completes when the socket is readable, and takes nothing.
                await _readiness.ReceiveAsync(Memory<byte>.Empty, SocketFlags.None, cancellation).ConfigureAwait(false);
            }
            catch (SocketException error)
            {
                throw new LinuxException("recvmsg", error.NativeErrorCode);
            }
        }
    }

    /// <summary>Waits until the peer has closed the connection. Takes nothing that arrives.</summary>
    public async Task WaitForHangUpAsync(CancellationToken cancellation = default)
    {
        try
        {
            while (!Poll.HasEnded(_descriptor.Number))
            {
                // Completes when the socket is readable: at the end, or for bytes that somebody else is about to take.
                await _readiness.ReceiveAsync(Memory<byte>.Empty, SocketFlags.None, cancellation).ConfigureAwait(false);
                if (!Poll.HasEnded(_descriptor.Number))
                {
                    await Task.Delay(HangUpRetryMs, cancellation).ConfigureAwait(false);
                }
            }
        }
        catch (Exception error) when (error is SocketException or ObjectDisposedException)
        {
            // The connection is down.
        }
    }

    /// <summary>As <see cref="ReceiveAsync"/>, but waits for nothing.</summary>
    /// <returns>Bytes received, 0 at the end of the stream, -1 when nothing is there now.</returns>
    /// <exception cref="LinuxException">The connection failed, or descriptors were lost on the way.</exception>
    public int TryReceive(Span<byte> buffer, List<FileDescriptor> descriptors) =>
        DescriptorPassing.TryReceive(_descriptor, buffer, descriptors);

    /// <summary>Sends all bytes, with the descriptors on the first of them. The descriptors stay the
    /// caller's.</summary>
    /// <exception cref="LinuxException">The connection failed.</exception>
    public async ValueTask SendAsync(
        ReadOnlyMemory<byte> buffer,
        ReadOnlyMemory<FileDescriptor> descriptors,
        CancellationToken cancellation = default)
    {
        int sent = DescriptorPassing.TrySend(_descriptor, buffer.Span, descriptors.Span);
        while (sent < 0 && !descriptors.IsEmpty)
        {
            await Task.Delay(FullSocketRetryMs, cancellation).ConfigureAwait(false);
            sent = DescriptorPassing.TrySend(_descriptor, buffer.Span, descriptors.Span);
        }

        ReadOnlyMemory<byte> rest = buffer[Math.Max(sent, 0)..];
        try
        {
            while (!rest.IsEmpty)
            {
                int more = await _readiness.SendAsync(rest, SocketFlags.None, cancellation).ConfigureAwait(false);
                rest = rest[more..];
            }
        }
        catch (SocketException error)
        {
            throw new LinuxException("sendmsg", error.NativeErrorCode);
        }
    }

    /// <summary>Whether the peer sends no more; what it sent before may still be there.</summary>
    public bool HasEnded => _descriptor.IsClosed || Poll.HasEnded(_descriptor.Number);

    /// <summary>Ends both directions, so that a pending receive of either side completes.</summary>
    public void Shutdown() => Shutdown(SocketShutdown.Both);

    /// <summary>Ends one direction: the peer sees the end of the stream, or can send no more.</summary>
    public void Shutdown(SocketShutdown direction)
    {
        try
        {
            _readiness.Shutdown(direction);
        }
        catch (SocketException)
        {
            // The peer was faster; the connection is down either way.
        }
        catch (ObjectDisposedException)
        {
            // Likewise.
        }
    }

    /// <summary>Closes the socket.</summary>
    public void Dispose()
    {
        _readiness.Dispose();
        _descriptor.Dispose();
    }

    internal static UnixSocket FromSocket(Socket socket)
    {
        int number = Libc.fcntl((int)socket.Handle, Libc.F_DUPFD_CLOEXEC, 0);
        int errno = Libc.LastError();
        return number >= 0
            ? new UnixSocket(new FileDescriptor(number))
            : throw new LinuxException("fcntl(F_DUPFD_CLOEXEC)", errno);
    }
}
