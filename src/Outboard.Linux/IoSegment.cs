// One contiguous piece of memory for scatter/gather I/O, laid out as the kernel's iovec so that arrays of it go to
// preadv2, pwritev2 and io_uring as they are.
using System.Runtime.InteropServices;
using System.Runtime.Intrinsics.X86;

namespace Outboard.Linux;

/// <summary>A piece of mapped memory: <c>struct iovec</c> (0 base, 8 length; 16 bytes).</summary>
/// <remarks>
/// Only the unsafe islands create non-empty segments, always from a mapping that they hold. A segment that was handed
/// out is valid until the request it belongs to is completed.
/// </remarks>
[StructLayout(LayoutKind.Sequential)]
public readonly struct IoSegment
{
    private readonly nuint _address;
    private readonly nuint _length;

    internal IoSegment(nuint address, nuint length)
    {
        _address = address;
        _length = length;
    }

    /// <summary>Bytes in this segment.</summary>
    public long Length => (long)_length;

    /// <summary>Host address; for alignment checks.</summary>
    public nuint Address => _address;

    /// <summary>The bytes of this segment. Shared with the peer, who may change them at any time: copy before
    /// checking.</summary>
    public Span<byte> Span
    {
        get
        {
            // SAFETY: segments are made from live mappings only and are not used after their request is completed.
            unsafe
            {
                return new Span<byte>((void*)_address, checked((int)_length));
            }
        }
    }

    /// <summary>Tells the processor that the first bytes will be read soon. A hint: nothing is read.</summary>
    public void Prefetch()
    {
        if (Sse.IsSupported)
        {
            // SAFETY: a prefetch reads nothing and never faults, whatever the address.
            unsafe
            {
                Sse.Prefetch0((void*)_address);
            }
        }
    }

    /// <summary>The part of this segment from <paramref name="offset"/> on, <paramref name="length"/> bytes.</summary>
    public IoSegment Slice(long offset, long length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, Length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(length, Length - offset);
        return new IoSegment(_address + (nuint)offset, (nuint)length);
    }
}
