// The operations of one engine: a fixed number of slots in native memory, each with room for its segment list, and a
// stack of those that are free. One mapping, made at the start; nothing is allocated afterwards.
// Not here: who runs an operation.
using System.Runtime.InteropServices;
using Outboard.Linux.Memory;

namespace Outboard.Linux.Files;

/// <summary>
/// One operation: 0 tag, 8 offset, 16 the only segment (or the length of an allocation), 32 descriptor, 36 flags,
/// 40 segments, 44 operation, 48 result, 52 next, 56 state; 64 bytes, a cache line of its own.
/// </summary>
[StructLayout(LayoutKind.Sequential, Size = 64)]
internal struct OperationSlot
{
    internal ulong Tag;
    internal long Offset;
    internal IoSegment Single;
    internal int Descriptor;

    /// <summary>RWF_ flags of a read or write, the mode of an allocation.</summary>
    internal int Flags;
    internal int SegmentCount;
    internal FileOperation Operation;
    internal int Result;
    internal int Next;
    internal SlotState State;
}

/// <summary>What a slot is used for.</summary>
internal enum SlotState
{
    Free,
    InFlight,

    /// <summary>In flight, and its early end was asked for.</summary>
    Cancelled,
}

/// <summary>The slots. Taken and given back by the engine's one calling thread.</summary>
// SAFETY: every pointer stays inside _storage, which holds Count slots, Count segment lists of MaxSegments and
// Count stack entries; indices come from Take and are below Count.
internal sealed unsafe class OperationSlots : IDisposable
{
    /// <summary>IOV_MAX: the kernel takes no longer list in one call.</summary>
    internal const int MaxSegments = 1024;

    private readonly AlignedBuffer _storage;
    private readonly OperationSlot* _slots;
    private readonly IoSegment* _segments;
    private readonly int* _free;
    private int _freeCount;

    internal OperationSlots(int count)
    {
        long segmentBytes = (long)MaxSegments * sizeof(IoSegment);
        _storage = new AlignedBuffer(count * (segmentBytes + sizeof(OperationSlot) + sizeof(int)));
        _segments = (IoSegment*)_storage.Address;
        _slots = (OperationSlot*)(_segments + ((long)count * MaxSegments));
        _free = (int*)(_slots + count);
        Count = count;
        for (int i = count - 1; i >= 0; i--)
        {
            GiveBack(i);
        }
    }

    internal int Count { get; }

    internal int FreeCount => _freeCount;

    internal OperationSlot* this[int index] => _slots + index;

    /// <summary>The segment list of a slot; for one segment, the slot's own.</summary>
    internal IoSegment* SegmentsOf(int index) =>
        _slots[index].SegmentCount == 1 ? &_slots[index].Single : ListOf(index);

    /// <summary>A free slot, or -1.</summary>
    internal int Take()
    {
        if (_freeCount == 0)
        {
            return -1;
        }

        int index = _free[--_freeCount];
        _slots[index].State = SlotState.InFlight;
        return index;
    }

    internal void GiveBack(int index)
    {
        _slots[index].State = SlotState.Free;
        _free[_freeCount++] = index;
    }

    internal void SetSegments(int index, ReadOnlySpan<IoSegment> segments)
    {
        OperationSlot* slot = _slots + index;
        slot->SegmentCount = segments.Length;
        if (segments.Length == 1)
        {
            slot->Single = segments[0];
        }
        else
        {
            segments.CopyTo(new Span<IoSegment>(ListOf(index), MaxSegments));
        }
    }

    public void Dispose() => _storage.Dispose();

    private IoSegment* ListOf(int index) => _segments + ((long)index * MaxSegments);
}
