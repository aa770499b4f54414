// An epoll instance, edge-triggered: one wake-up for each signal, with no read of the eventfd.
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Outboard.Linux.Native;

namespace Outboard.Linux.Events;

/// <summary>What a descriptor is waited for.</summary>
public enum Readiness
{
    /// <summary>A read would not block.</summary>
    Readable,

    /// <summary>A write would not block.</summary>
    Writable,

    /// <summary>The other end of a stream socket sends no more. Bytes that come are not told.</summary>
    Ended,
}

/// <summary>An edge-triggered wait for descriptors. One thread waits; any thread may add and remove.</summary>
public sealed class Epoll : IDisposable
{
    /// <summary>Events taken in one call; more are taken by the next.</summary>
    private const int Capacity = 32;

    private static readonly int s_eventBytes = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 12 : 16;
    private static readonly int s_dataOffset = RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 4 : 8;

    private readonly FileDescriptor _descriptor;
    private readonly int _number;
    private readonly byte[] _events = new byte[Capacity * s_eventBytes];

    /// <summary>Creates the instance.</summary>
    public Epoll()
    {
        _number = Libc.epoll_create1(Libc.EPOLL_CLOEXEC);
        int errno = Libc.LastError();
        _descriptor = _number >= 0 ? new FileDescriptor(_number) : throw new LinuxException("epoll_create1", errno);
    }

    /// <summary>Watches <paramref name="descriptor"/>; <paramref name="tag"/> comes back from
    /// <see cref="Wait"/>.</summary>
    /// <remarks>A descriptor that is ready when it is added is reported once.</remarks>
    public void Add(FileDescriptor descriptor, ulong tag, Readiness readiness = Readiness.Readable)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        uint events = readiness switch
        {
            Readiness.Readable => Libc.EPOLLIN,
            Readiness.Writable => Libc.EPOLLOUT,
            _ => Libc.EPOLLRDHUP,
        };
        Control(Libc.EPOLL_CTL_ADD, descriptor.Number, events | Libc.EPOLLET, tag);
    }

    /// <summary>Stops watching <paramref name="descriptor"/>. To be called before it is closed.</summary>
    public void Remove(FileDescriptor descriptor)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        Control(Libc.EPOLL_CTL_DEL, descriptor.Number, 0, 0);
    }

    /// <summary>Waits for events.</summary>
    /// <param name="tags">Receives the tags of what became ready.</param>
    /// <param name="timeoutMs">-1 waits without limit, 0 only looks.</param>
    /// <returns>How many tags were written.</returns>
    // SAFETY: the kernel writes at most Capacity events into a fixed buffer of that size.
    public unsafe int Wait(Span<ulong> tags, int timeoutMs)
    {
        int capacity = Math.Min(Capacity, tags.Length);
        int count;
        fixed (byte* events = _events)
        {
            count = Libc.epoll_wait(_number, events, capacity, timeoutMs);
        }

        if (count < 0)
        {
            int errno = Libc.LastError();
            return errno == Errno.Interrupted ? 0 : throw new LinuxException("epoll_wait", errno);
        }

        for (int i = 0; i < count; i++)
        {
            tags[i] = BinaryPrimitives.ReadUInt64LittleEndian(_events.AsSpan((i * s_eventBytes) + s_dataOffset));
        }

        return count;
    }

    /// <summary>Closes the instance.</summary>
    public void Dispose() => _descriptor.Dispose();

    // SAFETY: the kernel reads one epoll_event from the stack.
    private unsafe void Control(int operation, int number, uint events, ulong tag)
    {
        byte* ev = stackalloc byte[16];
        *(uint*)ev = events;
        *(ulong*)(ev + s_dataOffset) = tag;
        int result = Libc.epoll_ctl(_number, operation, number, ev);
        int errno = Libc.LastError();
        if (result < 0)
        {
            throw new LinuxException("epoll_ctl", errno);
        }
    }
}
