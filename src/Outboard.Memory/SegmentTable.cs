// Storage for the translated buffers of every descriptor chain in flight on one queue: one slot for each chain.
//
// A slot holds InlineCapacity segments in one slab (one cache line: a block request has three). A longer chain moves to
// a block of its own, which is kept for the next long chain in that slot unless it is very large or much is kept
// already. Nothing is allocated for a chain that fits. A guest decides how long chains are, so the bytes of all blocks
// are counted: a queue stops taking chains while OverflowBytes exceeds its budget.
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Outboard.Linux;

namespace Outboard.Memory;

/// <summary>Segments of all chains in flight on a queue. Used by that queue's thread only.</summary>
public sealed class SegmentTable : IDisposable
{
    /// <summary>Segments of a chain that needs no block of its own: 64 bytes, one cache line.</summary>
    public const int InlineCapacity = 4;

    /// <summary>
    /// Most segments that one chain may have: the longest chain of the largest queue, with an indirect table, whose
    /// every buffer lies across two regions.
    /// </summary>
    public const int MaxSegments = 4 * 32768;

    /// <summary>Largest block (in segments) that a slot keeps after use.</summary>
    private const int KeptCapacity = 256;

    /// <summary>Bytes that all idle slots may keep: a small part of what a queue may use.</summary>
    private const long KeptBytes = 2 << 20;

    private const int CacheLineBytes = 64;

    private readonly Block[] _blocks;
    private nuint _slab;

    /// <summary>Creates a table of <paramref name="slots"/> slots.</summary>
    // SAFETY: allocates native memory of a size computed here; freed in Dispose.
    public unsafe SegmentTable(int slots)
    {
        _blocks = new Block[slots];
        _slab = (nuint)NativeMemory.AlignedAlloc(
            (nuint)slots * InlineCapacity * (nuint)sizeof(IoSegment), CacheLineBytes);
        for (int slot = 0; slot < slots; slot++)
        {
            _blocks[slot] = PartOfSlab(slot);
        }
    }

    /// <summary>Bytes of blocks beyond the slab.</summary>
    public long OverflowBytes { get; private set; }

    /// <summary>
    /// The segments <paramref name="start"/> .. start + count of a slot. Valid until the slot is used again.
    /// </summary>
    // SAFETY: the range is checked against the slot's capacity; slot memory lives as long as this table.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public unsafe Span<IoSegment> Segments(int slot, int start, int count)
    {
        ref readonly Block block = ref _blocks[slot];
        if ((uint)start > (uint)block.Capacity || (uint)count > (uint)(block.Capacity - start))
        {
            ThrowOutside();
        }

        return new Span<IoSegment>((IoSegment*)block.Address + start, count);
    }

    /// <summary>Appends a segment to a slot that has <paramref name="count"/> of them.</summary>
    // SAFETY: count is below the slot's capacity after the growth check; the slot's memory has that capacity.
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal unsafe void Append(int slot, ref int count, IoSegment segment)
    {
        ref Block block = ref _blocks[slot];
        if ((uint)count >= (uint)block.Capacity)
        {
            Grow(ref block);
        }

        ((IoSegment*)block.Address)[count] = segment;
        count++;
    }

    /// <summary>Tells that a slot's chain is done, so that a block of its own can be given back.</summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public void Release(int slot)
    {
        int capacity = _blocks[slot].Capacity;
        if (capacity > InlineCapacity && (capacity > KeptCapacity || OverflowBytes > KeptBytes))
        {
            Free(slot);
        }
    }

    /// <summary>Frees all memory.</summary>
    // SAFETY: each address was allocated by this object and is freed once.
    public unsafe void Dispose()
    {
        for (int i = 0; i < _blocks.Length; i++)
        {
            Free(i);
        }

        NativeMemory.AlignedFree((void*)_slab);
        _slab = 0;
    }

    // SAFETY: an address inside the slab, which has InlineCapacity segments for each slot.
    private unsafe Block PartOfSlab(int slot) => new()
    {
        Address = (nuint)((IoSegment*)_slab + ((nint)slot * InlineCapacity)),
        Capacity = InlineCapacity,
    };

    // SAFETY: copies the slot's segments into a larger allocation before the old one is freed.
    [MethodImpl(MethodImplOptions.NoInlining)]
    private unsafe void Grow(ref Block block)
    {
        int larger = block.Capacity * 4;
        IoSegment* memory = (IoSegment*)NativeMemory.Alloc((nuint)larger * (nuint)sizeof(IoSegment));
        new Span<IoSegment>((void*)block.Address, block.Capacity).CopyTo(new Span<IoSegment>(memory, larger));
        FreeBlock(in block);
        block = new Block { Address = (nuint)memory, Capacity = larger };
        OverflowBytes += (long)larger * sizeof(IoSegment);
    }

    private void Free(int slot)
    {
        FreeBlock(in _blocks[slot]);
        _blocks[slot] = PartOfSlab(slot);
    }

    // SAFETY: an address beyond the slab was allocated by Grow; the caller forgets it.
    private unsafe void FreeBlock(in Block block)
    {
        if (block.Capacity > InlineCapacity)
        {
            OverflowBytes -= (long)block.Capacity * sizeof(IoSegment);
            NativeMemory.Free((void*)block.Address);
        }
    }

    private static void ThrowOutside() => throw new InvalidOperationException("segment range outside its slot");

    /// <summary>Where a slot's segments are: its part of the slab, or memory of its own.</summary>
    private struct Block
    {
        internal nuint Address;
        internal int Capacity;
    }
}
