// Page-aligned memory outside the garbage collector's heap: bounce buffers, tables that the kernel reads.
// Not here: memory that a peer shares; see MemoryMapping.
using Outboard.Linux.Native;

namespace Outboard.Linux.Memory;

/// <summary>Owned, zeroed, page-aligned memory that never moves; freed on disposal.</summary>
/// <remarks>Pages are taken from the system when they are touched first. Spans and segments of it end with
/// it.</remarks>
public sealed class AlignedBuffer : IDisposable
{
    private readonly nuint _mappedLength;
    private int _disposed;

    /// <summary>Takes <paramref name="sizeBytes"/> bytes of zeroes.</summary>
    /// <exception cref="LinuxException">The system has no memory.</exception>
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice touches no memory of this process.
    public unsafe AlignedBuffer(long sizeBytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(sizeBytes);
        nuint page = (nuint)Environment.SystemPageSize;
        _mappedLength = checked((nuint)sizeBytes + page - 1) / page * page;
        const int flags = Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS | Libc.MAP_NORESERVE;
        void* address = Libc.mmap(null, _mappedLength, Libc.PROT_READ | Libc.PROT_WRITE, flags, -1, 0);
        int errno = Libc.LastError();
        if ((nint)address == -1)
        {
            throw new LinuxException("mmap", errno, $"{sizeBytes} bytes of anonymous memory");
        }

        Address = (nuint)address;
        SizeBytes = sizeBytes;
    }

    /// <summary>Bytes that were asked for.</summary>
    public long SizeBytes { get; }

    /// <summary>The whole buffer as one segment.</summary>
    public IoSegment Segment
    {
        get
        {
            ObjectDisposedException.ThrowIf(Volatile.Read(ref _disposed) != 0, this);
            return new IoSegment(Address, (nuint)SizeBytes);
        }
    }

    /// <summary>The whole buffer as bytes; at most 2 GiB.</summary>
    public Span<byte> Span => Segment.Span;

    internal nuint Address { get; }

    /// <summary>Frees the memory. Nobody, and no request in flight, may use it any more.</summary>
    // SAFETY: the range is exactly what mmap returned, and it is unmapped once.
    public unsafe void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 0)
        {
            _ = Libc.munmap((void*)Address, _mappedLength);
        }
    }
}
