// The device's side of a split virtqueue, virtio-v1.3 "2.7 Split Virtqueues".
//
// The algorithm, with the order that each step needs. D is the device (this code), G the guest's driver.
//
//   Take      T1  D reads avail.idx                                    acquire: T2, T3 see what G wrote before idx
//             T2  D reads avail.ring[next], the head                   once
//             T3  D reads each descriptor, 16 bytes                    once, into a local; only the local is used
//   Return    R1  D writes the buffers, then used.ring[used] = head    plain
//             R2  D writes used.idx (Publish)                          release: G sees R1 if it sees R2
//   Call      C1  full fence                                           R2 before C2, or a call could be lost:
//             C2  D reads used_event (or avail.flags)                    G writes used_event, fences, reads used.idx
//   Sleep     S1  D writes avail_event = next (or used.flags = 0)
//             S2  full fence                                           S1 before S3, or a kick could be lost:
//             S3  D reads avail.idx; if it moved, do not sleep           G writes avail.idx, fences, reads avail_event
//
// On x64 the acquire and the release cost nothing; C1 and S2 cost one locked instruction for each batch, not for each
// request. Everything the guest wrote is read once and checked before use: a fault parks the queue.
using System.Runtime.CompilerServices;
using Outboard.Memory;
using Outboard.Virtio.Queue.Inflight;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Queue;

/// <summary>The device's side of a split virtqueue.</summary>
internal sealed class SplitVirtqueue : Virtqueue
{
    private readonly bool _hasEventIndex;
    private readonly bool _hasIndirect;
    private readonly uint _mask;
    private readonly MemoryWindow? _record;
    private readonly Stack<ushort> _resubmitted = new();

    private SplitInflight? _inflight;
    private MemoryWindow _table;
    private MemoryWindow _available;
    private MemoryWindow _used;

    private ushort _nextAvailable;
    private ushort _seenAvailable;
    private ushort _nextUsed;
    private ushort _publishedUsed;
    private ushort _calledUsed;
    private ushort _lastEntry;
    private int _regionHint;
    private bool _kicksSuppressed;

    internal SplitVirtqueue(VringSetup setup)
        : base(setup)
    {
        if ((setup.Size & (setup.Size - 1)) != 0)
        {
            Dispose();
            throw new VringSetupException("num", $"queue size {setup.Size} is no power of two");
        }

        _mask = (uint)setup.Size - 1;
        _hasEventIndex = (setup.Features & VirtioFeatures.EventIndex) != 0;
        _hasIndirect = (setup.Features & VirtioFeatures.IndirectDescriptors) != 0;
        _nextAvailable = (ushort)setup.Base;
        _seenAvailable = (ushort)setup.Base;
        _record = setup.Inflight;
        OpenAtStart($"desc 0x{Addresses.Descriptors:x}, avail 0x{Addresses.Available:x}, used 0x{Addresses.Used:x}");
    }

    public override uint Base => _nextAvailable;

    public override ushort Position => _nextAvailable;

    internal override bool IsTracked => _inflight is not null;

    internal override ushort UsedPosition => _nextUsed;

    public override bool HasUnpublished => _nextUsed != _publishedUsed;

    public override bool OwesCall => _publishedUsed != _calledUsed;

    internal override bool IsHalfDone => IsBlocked
        || (ushort)(_publishedUsed - _calledUsed)
            >= (ushort)(_available.ReadAcquire16(SplitRing.IndexOffset) - _nextAvailable);

    public override bool HasAvailable =>
        !IsBlocked
        && !IsOverBudget
        && (_resubmitted.Count > 0
            || _nextAvailable != _seenAvailable
            || _available.ReadAcquire16(SplitRing.IndexOffset) != _nextAvailable);

    public override bool TryTake(out DescriptorChain chain)
    {
        chain = default;
        if (_resubmitted.Count > 0)
        {
            return TryTakeAgain(out chain);
        }

        if (_nextAvailable == _seenAvailable && !LookForMore())
        {
            return false;
        }

        if (IsOverBudget || IsBlocked)
        {
            return false;
        }

        uint head = _available.Read<ushort>(SplitRing.EntriesOffset + (2 * (_nextAvailable & _mask)));
        if (head > _mask)
        {
            return Refuse(VirtqueueFault.HeadOutOfRange);
        }

        if (IsHeld((int)head))
        {
            return Refuse(VirtqueueFault.HeadInFlight);
        }

        Walk walk = new() { Slot = (int)head, Hint = _regionHint, Readable = -1 };
        VirtqueueFault fault = Follow(_table, head, _mask + 1, isIndirect: false, ref walk);
        if (fault != VirtqueueFault.None)
        {
            return Refuse(fault);
        }

        _regionHint = walk.Hint;
        ushort position = _nextAvailable++;
        _inflight?.Take(walk.Slot);
        chain = Hold(walk.Slot, walk.Readable < 0 ? walk.Count : walk.Readable, walk.Count, position);
        return true;
    }

    public override void Publish()
    {
        _used.WriteRelease16(SplitRing.IndexOffset, _nextUsed);
        if (Dirty is { } dirty)
        {
            MarkUsed(dirty, SplitRing.IndexOffset);
            dirty.Tell();
        }

        _inflight?.Published(_nextUsed, (ushort)(_nextUsed - _publishedUsed));
        _publishedUsed = _nextUsed;
    }

    public override bool ShouldCall()
    {
        ushort old = _calledUsed;
        ushort now = _publishedUsed;
        if (old == now)
        {
            return false;
        }

        _calledUsed = now;
        Interlocked.MemoryBarrier();
        return _hasEventIndex
            ? SplitRing.Passes(_available.Read<ushort>(SplitRing.UsedEventOffset(Size)), now, old)
            : (_available.Read<ushort>(SplitRing.FlagsOffset) & SplitRing.NoInterrupt) == 0;
    }

    public override bool ArmKicks()
    {
        if (IsBlocked)
        {
            return false;
        }

        _kicksSuppressed = false;
        if (_hasEventIndex)
        {
            _used.Write(SplitRing.AvailableEventOffset(Size), _nextAvailable);
        }
        else
        {
            _used.Write<ushort>(SplitRing.FlagsOffset, 0);
        }

        Interlocked.MemoryBarrier();
        if (Dirty is { } dirty)
        {
            uint offset = _hasEventIndex ? SplitRing.AvailableEventOffset(Size) : SplitRing.FlagsOffset;
            dirty.MarkUsedArea(in _used, offset, sizeof(ushort));
        }

        return HasAvailable;
    }

    public override void SuppressKicks()
    {
        // With the event index a stale avail_event is suppression enough: the driver kicks once in 65536 entries.
        if (!_hasEventIndex && !_kicksSuppressed && !IsBlocked)
        {
            _used.Write(SplitRing.FlagsOffset, SplitRing.NoNotify);
            _kicksSuppressed = true;
            if (Dirty is { } dirty)
            {
                MarkUsed(dirty, SplitRing.FlagsOffset);
            }
        }
    }

    internal override bool WillBeTakenAgain(int slot) => _resubmitted.Contains((ushort)slot);

    private protected override bool TryMapRings()
    {
        bool isMapped =
            TryMap(Addresses.Descriptors, SplitRing.TableBytes(Size), MemoryAccess.Read, out _table)
            & TryMap(Addresses.Available, SplitRing.AvailableBytes(Size), MemoryAccess.Read, out _available)
            & TryMap(Addresses.Used, SplitRing.UsedBytes(Size), MemoryAccess.ReadWrite, out _used);
        return isMapped && _table.IsAligned(16) && _available.IsAligned(2) && _used.IsAligned(4);
    }

    private protected override ushort PositionAfter(int slot, ushort position) => (ushort)(position + 1);

    private protected override void Begin()
    {
        _nextUsed = _used.ReadAcquire16(SplitRing.IndexOffset);
        _publishedUsed = _nextUsed;
        _calledUsed = _nextUsed;
        if (_record is { } window)
        {
            _inflight = OpenInflight(window);
        }

        BeginOrder((ushort)(_nextAvailable - _resubmitted.Count));
    }

    private protected override void Rewind(int slot, ushort position)
    {
        _nextAvailable = position;
        _inflight?.PutBack(slot);
    }

    private protected override void Requeue(int slot) => _resubmitted.Push((ushort)slot);

    private protected override void PutUsed(int slot, uint written)
    {
        _used.Write(SplitRing.EntriesOffset + (8 * (_nextUsed & _mask)), new SplitUsedElement((uint)slot, written));
        _nextUsed++;
        _inflight?.Return(slot);
    }

    private protected override void PutUsedInOrder(int slot, uint written, bool isOver)
    {
        _lastEntry = isOver ? _lastEntry : _nextUsed;
        _used.Write(SplitRing.EntriesOffset + (8 * (_lastEntry & _mask)), new SplitUsedElement((uint)slot, written));
        _nextUsed++;
        _inflight?.Return(slot);
    }

    private protected override void MarkUsedEntry(DirtyTracker dirty)
    {
        uint entry = IsInOrder ? _lastEntry : (ushort)(_nextUsed - 1);
        dirty.MarkUsedArea(in _used, SplitRing.EntriesOffset + (8 * (entry & _mask)), 8);
    }

    private protected override void MarkWholeRing(DirtyTracker dirty) =>
        dirty.MarkUsedArea(in _used, 0, SplitRing.UsedBytes(Size));

    private void MarkUsed(DirtyTracker dirty, uint offset)
    {
        DirtyLog.Fence();
        dirty.MarkUsedArea(in _used, offset, sizeof(ushort));
    }

    /// <summary>
    /// Finds what an earlier process held; the next available entry follows what was used or is held.
    /// </summary>
    private SplitInflight OpenInflight(MemoryWindow window)
    {
        try
        {
            SplitInflight inflight = SplitInflight.Open(window, Size, _nextUsed, out ushort[]? held);
            if (held is not null)
            {
                IsTakenOver = true;
                _nextAvailable = (ushort)(_nextUsed + held.Length);
                _seenAvailable = _nextAvailable;
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

    /// <summary>Takes a chain that an earlier process held. It is recorded as held already.</summary>
    private bool TryTakeAgain(out DescriptorChain chain)
    {
        chain = default;
        if (IsBlocked || IsOverBudget)
        {
            return false;
        }

        ushort head = _resubmitted.Peek();
        Walk walk = new() { Slot = head, Hint = _regionHint, Readable = -1 };
        VirtqueueFault fault = Follow(_table, head, _mask + 1, isIndirect: false, ref walk);
        if (fault != VirtqueueFault.None)
        {
            return Refuse(fault);
        }

        _resubmitted.Pop();
        chain = Hold(head, walk.Readable < 0 ? walk.Count : walk.Readable, walk.Count, Position);
        NoteTakenAgain(head);
        return true;
    }

    private bool LookForMore()
    {
        if (IsBlocked)
        {
            return false;
        }

        ushort now = _available.ReadAcquire16(SplitRing.IndexOffset);
        uint fresh = (ushort)(now - _nextAvailable);
        if (fresh > _mask + 1)
        {
            return Refuse(VirtqueueFault.AvailableIndexJumped);
        }

        _seenAvailable = now;
        return fresh != 0;
    }

    private bool Refuse(VirtqueueFault fault)
    {
        if (fault == VirtqueueFault.Untranslated)
        {
            Wait();
            return false;
        }

        Fault = fault;
        _seenAvailable = _nextAvailable;
        return false;
    }

    /// <summary>Follows a chain through one table, translating each buffer into the walk's slot.</summary>
    private VirtqueueFault Follow(MemoryWindow table, uint index, uint limit, bool isIndirect, ref Walk walk)
    {
        GuestMemory memory = Memory;
        uint entries = table.Length / SplitRing.DescriptorBytes;
        for (uint length = 0; length < limit; length++)
        {
            SplitDescriptor descriptor = table.Read<SplitDescriptor>(index * SplitRing.DescriptorBytes);
            if ((descriptor.Flags & SplitRing.Indirect) != 0)
            {
                return isIndirect ? VirtqueueFault.IndirectMisplaced : FollowIndirect(in descriptor, ref walk);
            }

            if ((descriptor.Flags & SplitRing.Write) != 0)
            {
                walk.Readable = walk.Readable < 0 ? walk.Count : walk.Readable;
            }
            else if (walk.Readable >= 0)
            {
                return VirtqueueFault.ReadableAfterWritable;
            }

            if (!TryAppendBuffer(
                memory, walk.Slot, descriptor.Address, descriptor.Length, ref walk.Count, ref walk.Hint))
            {
                VirtqueueFault fault = Translate(
                    walk.Slot, descriptor.Address, descriptor.Length, walk.Readable >= 0, ref walk.Count,
                    ref walk.IsUntranslated);
                if (fault != VirtqueueFault.None)
                {
                    return fault;
                }
            }

            walk.Bytes += descriptor.Length;
            if (walk.Bytes > MaxChainBytes)
            {
                return VirtqueueFault.ChainTooLong;
            }

            if ((descriptor.Flags & SplitRing.Next) == 0)
            {
                return walk.IsUntranslated ? VirtqueueFault.Untranslated : VirtqueueFault.None;
            }

            index = descriptor.Next;
            if (index >= entries)
            {
                return VirtqueueFault.NextOutOfRange;
            }
        }

        return VirtqueueFault.ChainTooLong;
    }

    [MethodImpl(MethodImplOptions.NoInlining)]
    private VirtqueueFault FollowIndirect(in SplitDescriptor descriptor, ref Walk walk)
    {
        if (!_hasIndirect)
        {
            return VirtqueueFault.IndirectNotNegotiated;
        }

        if ((descriptor.Flags & SplitRing.Next) != 0)
        {
            return VirtqueueFault.IndirectMisplaced;
        }

        uint entries = descriptor.Length / SplitRing.DescriptorBytes;
        uint limit = Math.Max(_mask + 1, MaxIndirectDescriptors);
        if (entries == 0 || entries > limit || descriptor.Length % SplitRing.DescriptorBytes != 0)
        {
            return VirtqueueFault.IndirectTableSize;
        }

        VirtqueueFault fault = OpenTable(descriptor.Address, descriptor.Length, out MemoryWindow table);
        return fault == VirtqueueFault.None ? Follow(table, 0, entries, isIndirect: true, ref walk) : fault;
    }
}
