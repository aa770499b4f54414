// A descriptor that carries packets or a stream of them, used without waiting: a queue of a tap, a connected socket.
// Nothing here throws for what the kernel or a peer does: results are counts or negative error numbers.
using Outboard.Linux.Native;

namespace Outboard.Linux;

/// <summary>An owned descriptor that is read and written without waiting.</summary>
/// <remarks>One reader and one writer at a time, on any threads.</remarks>
public sealed class PacketDescriptor : IDisposable
{
    /// <summary>Most segments of one write (IOV_MAX).</summary>
    public const int MaxSegments = 1024;

    private readonly int _number;

    /// <summary>Takes ownership of a descriptor, and makes it non-blocking.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public PacketDescriptor(FileDescriptor descriptor)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        Descriptor = descriptor;
        _number = descriptor.Number;
        int flags = Libc.fcntl(_number, Libc.F_GETFL, 0);
        int result = flags < 0 ? flags : Libc.fcntl(_number, Libc.F_SETFL, flags | Libc.O_NONBLOCK);
        int errno = Libc.LastError();
        if (result < 0)
        {
            throw new LinuxException("fcntl(F_SETFL)", errno);
        }
    }

    /// <summary>The descriptor, owned by this object; for waiting.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>Reads a packet, or what is there of a stream.</summary>
    /// <param name="destination">Receives it.</param>
    /// <returns>Bytes; 0 at the end of a stream (and for an empty datagram); a negative errno.</returns>
    // SAFETY: the kernel writes at most the span's length into the fixed span.
    public unsafe int TryRead(Span<byte> destination)
    {
        fixed (byte* bytes = destination)
        {
            while (true)
            {
                nint result = Libc.read(_number, bytes, (nuint)destination.Length);
                int errno = Libc.LastError();
                if (result >= 0 || errno != Errno.Interrupted)
                {
                    return result >= 0 ? (int)result : -errno;
                }
            }
        }
    }

    /// <summary>Writes a packet that lies in pieces, or a part of a stream.</summary>
    /// <param name="segments">The pieces, at most <see cref="MaxSegments"/>.</param>
    /// <returns>Bytes, which may be fewer on a stream; a negative errno.</returns>
    // SAFETY: the kernel reads the fixed array, and the memory that the segments name, which their makers keep mapped.
    public unsafe int TryWrite(ReadOnlySpan<IoSegment> segments)
    {
        fixed (IoSegment* first = segments)
        {
            while (true)
            {
                nint result = Libc.pwritev2(_number, first, segments.Length, Libc.CurrentPosition, 0);
                int errno = Libc.LastError();
                if (result >= 0 || errno != Errno.Interrupted)
                {
                    return result >= 0 ? (int)result : -errno;
                }
            }
        }
    }

    /// <summary>Closes the descriptor.</summary>
    public void Dispose() => Descriptor.Dispose();
}
