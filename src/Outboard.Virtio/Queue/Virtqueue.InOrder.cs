// IN_ORDER, virtio-v1.3 "2.7.9 In-order use of descriptors" and "2.8.8 In-order use of descriptors": chains go back to
// the driver in the order in which they were made available, however the device completes them.
//
//   Complete   a chain that is not the oldest waits at its place in the ring: still the device's for the driver, but
//              nothing of it is used any more, its buffers are let go of
//              the oldest is returned, and with it all that wait right behind it
//
// A chain's place is where it was taken, so taking one costs nothing more; a queue without the feature does not come
// here at all. What a stop with holes means: chains that wait are in flight as well. One that suspends requests leaves
// both the hole and what waits behind it in the record; whoever serves the ring next does them again, in their order.
// One that drains waits for the holes, and returns everything.
//
// One used entry may stand for a batch (its last chain): the driver takes it that the ones before were read and written
// completely. So only a chain is skipped whose writable buffers the device filled (or that has none); and not one that
// has nothing but writable buffers: drivers want to know how much of each came (DPDK's in-order receive reads every
// entry).
using System.Runtime.CompilerServices;
using Outboard.Linux;
using Outboard.Memory;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Queue;

public abstract partial class Virtqueue
{
    private InOrderReturns? _order;

    /// <summary>Chains that the device completed, and that wait for an older one.</summary>
    internal int WaitingForTurn => _order?.Waiting ?? 0;

    private protected bool IsInOrder => _order is not null;

    /// <summary>Whether a chain in this slot was taken and is not returned.</summary>
    internal bool Keeps(int slot) => IsHeld(slot);

    /// <summary>
    /// Writes a used entry, not yet visible, or writes over the one before it in the same batch, which then stands for
    /// both.
    /// </summary>
    private protected abstract void PutUsedInOrder(int slot, uint written, bool isOver);

    /// <summary>Says where the oldest chain lies that is not returned.</summary>
    private protected void BeginOrder(ushort oldest) => _order?.Begin(oldest);

    /// <summary>Notes a chain that was just taken as one that an earlier process held.</summary>
    private protected void NoteTakenAgain(int slot)
    {
        _slots[slot].State |= ChainState.Again;
        if (_order is { } order)
        {
            ushort place = order.NextAgain;
            order.NextAgain = PositionAfter(slot, place);
            order.AgainAt[slot] = place;
        }
    }

    private void UndoTakenAgain(int slot)
    {
        if (_order is { } order)
        {
            order.NextAgain = order.AgainAt[slot];
        }
    }

    private void CreateOrder()
    {
        if ((Features & VirtioFeatures.InOrder) != 0)
        {
            _order = new InOrderReturns(Size, (Features & VirtioFeatures.RingPacked) != 0);
        }
    }

    /// <summary>Returns a chain, and what waited for it; or lets it wait.</summary>
    private void ReturnInOrder(InOrderReturns order, int slot, uint written, bool isAgain)
    {
        ref ChainSlot info = ref _slots[slot];
        ushort place = isAgain ? order.AgainAt[slot] : info.Position;
        info.State = ChainState.Waiting;
        order.Put(place, slot, written, CanBeSkipped(in info, slot, written));
        while (order.IsNextDone(out OrderedReturn oldest))
        {
            order.Advance(PositionAfter(oldest.Slot, order.Next));
            bool isOver = order.CanWriteOver && HasUnpublished;
            order.CanWriteOver = oldest.CanBeSkipped;
            _slots[oldest.Slot].State = ChainState.Free;
            PutUsedInOrder(oldest.Slot, oldest.Written, isOver);
            if (Dirty is { } dirty)
            {
                DirtyLog.Fence();
                MarkUsedEntry(dirty);
            }
        }
    }

    private bool CanBeSkipped(in ChainSlot info, int slot, uint written)
    {
        bool hasReadable = info.WritableStart > 0;
        long writable = info.Trailer.Length;
        foreach (ref readonly IoSegment segment in
            _segments.Segments(slot, info.WritableStart, info.WritableCount))
        {
            writable += segment.Length;
        }

        return hasReadable && writable == written;
    }

    /// <summary>A chain that the device completed.</summary>
    private readonly record struct OrderedReturn(int Slot, uint Written, bool CanBeSkipped);

    /// <summary>What waits for its turn, by place in the ring: arrays of the ring's size.</summary>
    private sealed class InOrderReturns(int size, bool isPacked)
    {
        private const int PackedIndexMask = 0x7FFF;

        private readonly int _mask = isPacked ? PackedIndexMask : size - 1;
        private readonly OrderedReturn[] _returns = new OrderedReturn[size];
        private readonly bool[] _isDone = new bool[size];

        internal int Waiting { get; private set; }

        /// <summary>Where the oldest chain lies that is not returned.</summary>
        internal ushort Next { get; private set; }

        /// <summary>Where the next chain lies that an earlier process held.</summary>
        internal ushort NextAgain { get; set; }

        /// <summary>For the chain of a slot that an earlier process held, where it lies.</summary>
        internal ushort[] AgainAt { get; } = new ushort[size];

        /// <summary>Whether the last used entry may be written over while it is not published.</summary>
        internal bool CanWriteOver { get; set; }

        internal void Begin(ushort oldest)
        {
            Next = oldest;
            NextAgain = oldest;
        }

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        internal void Put(ushort place, int slot, uint written, bool canBeSkipped)
        {
            int index = place & _mask;
            _returns[index] = new OrderedReturn(slot, written, canBeSkipped);
            _isDone[index] = true;
            Waiting++;
        }

        [MethodImpl(MethodImplOptions.AggressiveInlining)]
        internal bool IsNextDone(out OrderedReturn oldest)
        {
            int index = Next & _mask;
            oldest = _returns[index];
            return _isDone[index];
        }

        internal void Advance(ushort next)
        {
            _isDone[Next & _mask] = false;
            Next = next;
            Waiting--;
        }
    }
}
