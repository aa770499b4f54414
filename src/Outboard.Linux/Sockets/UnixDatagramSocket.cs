// A UNIX datagram socket between two paths. It binds its own, and connects to the peer's as soon as that is there, and
// again after the peer came back: connected, the kernel tells when a full peer has room again.
// Nothing on the way of a packet throws or allocates.
using System.Text;
using Outboard.Linux.Native;

namespace Outboard.Linux.Sockets;

/// <summary>A UNIX datagram socket. One reader and one writer at a time.</summary>
public sealed class UnixDatagramSocket : IDisposable
{
    /// <summary>sizeof(sun_path).</summary>
    private const int PathBytes = 108;

    private const int NotConnected = 107;
    private const int DestinationRequired = 89;

    private readonly string _path;
    private readonly byte[] _peer;

    private UnixDatagramSocket(PacketDescriptor packets, string path, byte[] peer)
    {
        Packets = packets;
        _path = path;
        _peer = peer;
    }

    /// <summary>The socket itself, owned by this object: for receiving, and for waiting.</summary>
    public PacketDescriptor Packets { get; }

    /// <summary>Binds to a path; a socket that a dead process left there is replaced.</summary>
    /// <param name="path">This side's path.</param>
    /// <param name="peerPath">The other side's; nobody need be there yet.</param>
    /// <exception cref="LinuxException">The path cannot be bound.</exception>
    public static UnixDatagramSocket Bind(string path, string peerPath)
    {
        byte[] address = AddressOf(path);
        byte[] peer = AddressOf(peerPath);
        if (Libc.StatPath(path) is { } stat)
        {
            if ((stat.Mode & Libc.S_IFMT) != Libc.S_IFSOCK)
            {
                throw new LinuxException("bind", Errno.AddressInUse, $"{path} exists and is no socket: remove it");
            }

            using FileDescriptor probe = Open();
            if (Connect(probe.Number, address) == 0)
            {
                throw new LinuxException("bind", Errno.AddressInUse, $"another process uses {path}: end it");
            }

            File.Delete(path);
        }

        FileDescriptor descriptor = Open();
        try
        {
            BindTo(descriptor, address, path);
            return new UnixDatagramSocket(new PacketDescriptor(descriptor), path, peer);
        }
        catch
        {
            descriptor.Dispose();
            throw;
        }
    }

    /// <summary>Two sockets connected to each other, without paths.</summary>
    public static (PacketDescriptor First, PacketDescriptor Second) CreatePair()
    {
        (FileDescriptor first, FileDescriptor second) = DescriptorPassing.CreatePair(Libc.SOCK_DGRAM);
        return (new PacketDescriptor(first), new PacketDescriptor(second));
    }

    /// <summary>Sends a datagram that lies in pieces.</summary>
    /// <returns>Bytes, or a negative errno: TryAgain when the peer is full, others when nobody is there.</returns>
    public int TrySend(ReadOnlySpan<IoSegment> segments)
    {
        int result = Packets.TryWrite(segments);
        if (result is -Errno.ConnectionRefused or -NotConnected or -DestinationRequired
            && Connect(Packets.Descriptor.Number, _peer) == 0)
        {
            result = Packets.TryWrite(segments);
        }

        return result;
    }

    /// <summary>Closes the socket and removes its file.</summary>
    public void Dispose()
    {
        Packets.Dispose();
        File.Delete(_path);
    }

    private static FileDescriptor Open()
    {
        int number = Libc.socket(Libc.AF_UNIX, Libc.SOCK_DGRAM | Libc.SOCK_CLOEXEC | Libc.SOCK_NONBLOCK, 0);
        int errno = Libc.LastError();
        return number >= 0 ? new FileDescriptor(number) : throw new LinuxException("socket", errno);
    }

    /// <summary>struct sockaddr_un: 0 family (u16), 2 path.</summary>
    private static byte[] AddressOf(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        int length = Encoding.UTF8.GetByteCount(path);
        if (length >= PathBytes)
        {
            throw new LinuxException("bind", Errno.NameTooLong, $"{path} has {length} bytes: choose a shorter path");
        }

        byte[] address = new byte[2 + PathBytes];
        address[0] = Libc.AF_UNIX;
        Encoding.UTF8.GetBytes(path, address.AsSpan(2));
        return address;
    }

    // SAFETY: the kernel reads the fixed array, whose length it is told.
    private static unsafe int Connect(int number, byte[] address)
    {
        fixed (byte* bytes = address)
        {
            return Libc.connect(number, bytes, (uint)address.Length);
        }
    }

    // SAFETY: as Connect.
    private static unsafe void BindTo(FileDescriptor descriptor, byte[] address, string path)
    {
        fixed (byte* bytes = address)
        {
            int result = Libc.bind(descriptor.Number, bytes, (uint)address.Length);
            int errno = Libc.LastError();
            if (result < 0)
            {
                throw new LinuxException("bind", errno, path);
            }
        }
    }
}
