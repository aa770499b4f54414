// A bounds-checked window onto shared memory with the ordered accesses that a vring needs.
//
// Everything behind a window may be changed by the peer between any two instructions. Each method reads or writes its
// bytes once; what is read is a copy, to be validated and then used (law 6).
// Offsets are this program's own arithmetic: one that leaves the window is a bug here, and throws.
using System.Runtime.CompilerServices;
using Outboard.Linux;
using Outboard.Linux.Memory;

namespace Outboard.Memory;

/// <summary>A window onto shared memory.</summary>
public readonly struct MemoryWindow
{
    private readonly nuint _address;
    private readonly uint _length;

    internal MemoryWindow(nuint address, uint length)
    {
        _address = address;
        _length = length;
    }

    /// <summary>Bytes in the window.</summary>
    public uint Length => _length;

    /// <summary>The window as a segment.</summary>
    public IoSegment Segment => new(_address, _length);

    /// <summary>A window onto a mapping, which its maker keeps alive.</summary>
    public static MemoryWindow Of(MemoryMapping mapping)
    {
        ArgumentNullException.ThrowIfNull(mapping);
        return new MemoryWindow(mapping.Segment.Address, checked((uint)mapping.Length));
    }

    /// <summary>A window onto a piece of a mapping, which its maker keeps alive.</summary>
    public static MemoryWindow Of(IoSegment segment) => new(segment.Address, checked((uint)segment.Length));

    /// <summary>A part of this window.</summary>
    public MemoryWindow Slice(uint offset, uint length) =>
        (ulong)offset + length <= _length
            ? new MemoryWindow(_address + offset, length)
            : throw new ArgumentOutOfRangeException(
                nameof(offset), $"{length} bytes at {offset} leave a window of {_length}");

    /// <summary>Whether the first byte is aligned to <paramref name="bytes"/>, a power of two.</summary>
    public bool IsAligned(uint bytes) => (_address & (bytes - 1)) == 0;

    /// <summary>The bytes of the window.</summary>
    // SAFETY: the window was made from a mapping that outlives its users (see GuestMemory), with this length.
    public unsafe Span<byte> Span => new((void*)_address, checked((int)_length));

    /// <summary>A copy of the value at <paramref name="offset"/>.</summary>
    // SAFETY: At checked the bounds; the read is unaligned-tolerant.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public unsafe T Read<T>(uint offset)
        where T : unmanaged => Unsafe.ReadUnaligned<T>(At(offset, (uint)sizeof(T)));

    /// <summary>Writes <paramref name="value"/> at <paramref name="offset"/>.</summary>
    // SAFETY: At checked the bounds; the write is unaligned-tolerant.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public unsafe void Write<T>(uint offset, in T value)
        where T : unmanaged => Unsafe.WriteUnaligned(AtStore(offset, (uint)sizeof(T), isRelease: false), value);

    /// <summary>Reads 16 bits; no later access moves before this one.</summary>
    // SAFETY: At checked the bounds; rings are aligned (checked when a queue is set up), so the access is single.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public unsafe ushort ReadAcquire16(uint offset) => Volatile.Read(ref *(ushort*)At(offset, sizeof(ushort)));

    /// <summary>Writes 16 bits; no earlier access moves behind this one.</summary>
    // SAFETY: as ReadAcquire16.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public unsafe void WriteRelease16(uint offset, ushort value) =>
        Volatile.Write(ref *(ushort*)AtStore(offset, sizeof(ushort), isRelease: true), value);

    /// <summary>Writes a byte; no earlier access moves behind this one.</summary>
    // SAFETY: At checked the bounds.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public unsafe void WriteRelease8(uint offset, byte value) =>
        Volatile.Write(ref *AtStore(offset, sizeof(byte), isRelease: true), value);

    /// <summary>Writes 32 bits; no earlier access moves behind this one.</summary>
    // SAFETY: as ReadAcquire16.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public unsafe void WriteRelease32(uint offset, uint value) =>
        Volatile.Write(ref *(uint*)AtStore(offset, sizeof(uint), isRelease: true), value);

    /// <summary>Writes 64 bits; no earlier access moves behind this one.</summary>
    // SAFETY: as ReadAcquire16.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public unsafe void WriteRelease64(uint offset, ulong value) =>
        Volatile.Write(ref *(ulong*)AtStore(offset, sizeof(ulong), isRelease: true), value);

    // SAFETY: as At; a journal, if a test keeps one, reads the bytes.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private unsafe byte* AtStore(uint offset, uint size, bool isRelease)
    {
        byte* address = At(offset, size);
        if (StoreJournal.IsOn)
        {
            StoreJournal.Tell(address, (int)size, isRelease);
        }

        return address;
    }

    // SAFETY: the range lies inside the window, as the check shows.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private unsafe byte* At(uint offset, uint size)
    {
        if ((ulong)offset + size > _length)
        {
            ThrowOutside(offset, size);
        }

        return (byte*)_address + offset;
    }

    private void ThrowOutside(uint offset, uint size) =>
        throw new ArgumentOutOfRangeException(nameof(offset), $"{size} bytes at {offset} leave a window of {_length}");
}
