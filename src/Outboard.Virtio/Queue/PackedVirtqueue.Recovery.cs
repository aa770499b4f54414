// What a packed queue keeps in the in-flight record, and how it takes over from an earlier process (PackedInflight).
using Outboard.Memory;
using Outboard.Virtio.Queue.Inflight;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Queue;

internal sealed partial class PackedVirtqueue
{
    /// <summary>
    /// Finds what an earlier process held; the next available descriptor follows what was used or is held.
    /// </summary>
    private PackedInflight OpenInflight(MemoryWindow window)
    {
        try
        {
            PackedInflight inflight = PackedInflight.Open(window, _ring, Size, _used, out PackedDescriptor[][]? held);
            if (held is not null)
            {
                IsTakenOver = true;
                int count = held.Sum(chain => chain.Length);
                _used = inflight.Used;
                _available = _used.Advance(count, Size);
                _heldDescriptors = count;
                TakeUsedFlagsBack(count);
                Array.Reverse(held);
                Array.ForEach(held, _resubmitted.Push);
            }

            return inflight;
        }
        catch (VringSetupException)
        {
            Dispose();
            throw;
        }
    }

    /// <summary>
    /// Of a batch that was not published the flags of all but the first descriptor may be in the ring: a driver that
    /// sees the next first one would take them for used, too.
    /// </summary>
    private void TakeUsedFlagsBack(int count)
    {
        for (int i = 0; i < count; i++)
        {
            PackedPosition place = _used.Advance(i, Size);
            ushort flags = FlagsAt(place.Index);
            if (place.IsUsed(flags))
            {
                uint offset = (place.Index * PackedRing.DescriptorBytes) + PackedRing.FlagsOffset;
                _ring.WriteRelease16(offset, (ushort)(flags ^ PackedRing.Used));
            }
        }
    }

    /// <summary>Takes a chain that an earlier process held, from the record's copy.</summary>
    private bool TryTakeAgain(out DescriptorChain chain)
    {
        chain = default;
        PackedDescriptor[] held = _resubmitted.Peek();
        held.CopyTo(_chain, 0);
        int slot = held[^1].Id;
        VirtqueueFault fault = IsHeld(slot) ? VirtqueueFault.HeadInFlight : VirtqueueFault.None;
        int readable = 0;
        int total = 0;
        fault = fault == VirtqueueFault.None ? Translate(held.Length, slot, out readable, out total) : fault;
        if (fault != VirtqueueFault.None)
        {
            Refuse(fault);
            return false;
        }

        _resubmitted.Pop();
        _ringCounts[slot] = (ushort)held.Length;
        _takenAgain[slot] = held;
        chain = Hold(slot, readable, total, Position);
        NoteTakenAgain(slot);
        return true;
    }
}
