// A listening UNIX stream socket: bound to a path by us, or inherited from the program that started this one.
using System.Net.Sockets;
using System.Text;
using Outboard.Linux.Native;

namespace Outboard.Linux.Sockets;

/// <summary>A listening UNIX stream socket.</summary>
public sealed class UnixListener : IDisposable
{
    /// <summary>Connections that may wait to be accepted; front-ends connect once, so this is generous.</summary>
    private const int Backlog = 16;

    /// <summary>Longest path of a socket: sizeof(sun_path) less the terminating zero.</summary>
    private const int MaxPathBytes = 107;

    private readonly Socket _socket;
    private readonly string? _path;

    private UnixListener(Socket socket, string? path)
    {
        _socket = socket;
        _path = path;
    }

    /// <summary>Binds to <paramref name="path"/> and listens. A socket that a dead process left there is
    /// replaced.</summary>
    /// <exception cref="LinuxException">Another process listens there, or the path cannot be bound.</exception>
    public static UnixListener Bind(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        int length = Encoding.UTF8.GetByteCount(path);
        if (length > MaxPathBytes)
        {
            string subject = $"{path} has {length} bytes, and the kernel takes {MaxPathBytes}: choose a shorter path";
            throw new LinuxException("bind", Errno.NameTooLong, subject);
        }

        if (Libc.StatPath(Path.GetDirectoryName(Path.GetFullPath(path)) ?? "/") is null)
        {
            throw new LinuxException("bind", Errno.NoEntry, $"the directory of {path} does not exist: create it first");
        }

        RemoveStaleSocket(path);
        Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            socket.Bind(new UnixDomainSocketEndPoint(path));
            socket.Listen(Backlog);
            return new UnixListener(socket, path);
        }
        catch (SocketException error)
        {
            socket.Dispose();
            throw new LinuxException("bind", error.NativeErrorCode, DescribeRefusal(path, error.NativeErrorCode));
        }
    }

    /// <summary>Uses an inherited socket that already listens.</summary>
    public static UnixListener FromInherited(FileDescriptor descriptor)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        return new UnixListener(new Socket(new SafeSocketHandle(descriptor.Release(), ownsHandle: true)), path: null);
    }

    /// <summary>Whether an inherited socket listens (true) or is connected (false).</summary>
    public static bool IsListening(FileDescriptor descriptor)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        return DescriptorPassing.GetOption(descriptor, Libc.SO_ACCEPTCONN) != 0;
    }

    /// <summary>Waits for the next connection.</summary>
    public async Task<UnixSocket> AcceptAsync(CancellationToken cancellation = default)
    {
        using Socket accepted = await _socket.AcceptAsync(cancellation).ConfigureAwait(false);
        return UnixSocket.FromSocket(accepted);
    }

    /// <summary>Stops listening and removes the socket file that <see cref="Bind"/> made.</summary>
    public void Dispose()
    {
        _socket.Dispose();
        if (_path is not null)
        {
            File.Delete(_path);
        }
    }

    private static void RemoveStaleSocket(string path)
    {
        // A connect to what is no socket is refused as well, so this is asked first: a file is never deleted.
        if (Libc.StatPath(path) is not { } stat)
        {
            return;
        }

        if ((stat.Mode & Libc.S_IFMT) != Libc.S_IFSOCK)
        {
            string subject = $"{path} exists and is no socket: remove it or choose another path";
            throw new LinuxException("bind", Errno.AddressInUse, subject);
        }

        using Socket probe = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            probe.Connect(new UnixDomainSocketEndPoint(path));
        }
        catch (SocketException error) when (error.NativeErrorCode == Errno.ConnectionRefused)
        {
            File.Delete(path);
            return;
        }
        catch (SocketException error)
        {
            throw new LinuxException("bind", error.NativeErrorCode, DescribeRefusal(path, error.NativeErrorCode));
        }

        string inUse = $"another process listens on {path}: end it or choose another path";
        throw new LinuxException("bind", Errno.AddressInUse, inUse);
    }

    private static string DescribeRefusal(string path, int errno) => errno switch
    {
        Errno.AccessDenied or Errno.NotPermitted => $"this user may not create or replace {path}: choose another path",
        Errno.ReadOnlyFileSystem => $"{path} is on a read-only file system: choose another path",
        _ => path,
    };
}
