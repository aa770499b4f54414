// An eventfd: the counter by which a driver kicks and a device calls.
using Outboard.Linux.Native;

namespace Outboard.Linux.Events;

/// <summary>An owned eventfd.</summary>
/// <remarks>
/// Flags of a descriptor that a peer passed are shared with that peer, so they are never changed here. Reads ask the
/// kernel not to wait; signals to a descriptor that may block look first whether the counter has room, so that a peer
/// who fills it cannot hold us up. (A peer who, besides, takes that room in the moment between harms its own queue.)
/// </remarks>
public sealed class EventFd : IDisposable
{
    private readonly int _number;
    private readonly bool _mayBlock;

    /// <summary>Creates a new eventfd with counter 0, close-on-exec and non-blocking.</summary>
    public EventFd()
    {
        int number = Libc.eventfd(0, Libc.EFD_CLOEXEC | Libc.EFD_NONBLOCK);
        int errno = Libc.LastError();
        Descriptor = number >= 0 ? new FileDescriptor(number) : throw new LinuxException("eventfd", errno);
        _number = number;
    }

    /// <summary>Takes ownership of a descriptor that a peer passed.</summary>
    public EventFd(FileDescriptor descriptor)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        Descriptor = descriptor;
        _number = descriptor.Number;
        _mayBlock = (Libc.fcntl(_number, Libc.F_GETFL, 0) & Libc.O_NONBLOCK) == 0;
    }

    /// <summary>The descriptor, owned by this object.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>Adds 1 to the counter, waking whoever waits. A counter that is full already wakes; nothing is
    /// lost.</summary>
    /// <returns>False when the write failed for another reason (the descriptor is not writable).</returns>
    // SAFETY: the kernel reads 8 bytes from a local.
    public unsafe bool Signal()
    {
        if (_mayBlock && !Poll.IsWritable(_number))
        {
            return true;
        }

        ulong one = 1;
        while (Libc.write(_number, &one, sizeof(ulong)) < 0)
        {
            int errno = Libc.LastError();
            if (errno != Errno.Interrupted)
            {
                return errno == Errno.TryAgain;
            }
        }

        return true;
    }

    /// <summary>Takes the counter's value and resets it, without waiting.</summary>
    /// <returns>The value; 0 when nobody signalled.</returns>
    // SAFETY: the kernel writes at most 8 bytes into a local.
    public unsafe ulong Take()
    {
        ulong value = 0;
        IoSegment segment = new((nuint)(&value), sizeof(ulong));
        nint result = Libc.preadv2(_number, &segment, 1, Libc.CurrentPosition, Libc.RWF_NOWAIT);
        int errno = Libc.LastError();
        if (result < 0 && errno == Errno.NotSupported && Poll.IsReadable(_number, timeoutMs: 0))
        {
            // A kernel older than 5.8: here a peer that reads its own eventfd could make us wait for its next signal.
            result = Libc.read(_number, &value, sizeof(ulong));
        }

        return result == sizeof(ulong) ? value : 0;
    }

    /// <summary>Waits until the counter is not 0, then takes it.</summary>
    /// <returns>The value; 0 when the time ran out.</returns>
    public ulong Wait(int timeoutMs) => Poll.IsReadable(_number, timeoutMs) ? Take() : 0;

    /// <summary>Closes the descriptor. Nobody may signal or wait any more.</summary>
    public void Dispose() => Descriptor.Dispose();
}
