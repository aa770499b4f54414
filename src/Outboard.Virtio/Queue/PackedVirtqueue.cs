// The device's side of a packed virtqueue, virtio-v1.3 "2.8 Packed Virtqueues".
//
// The algorithm, with the order that each step needs. D is the device (this code), G the guest's driver.
//
//   Take      T1  D reads the flags of the next descriptor             acquire: T2 sees what G wrote before the flags
//             T2  D copies the chain's descriptors, 16 bytes each      once; only the copies are used
//   Return    R1  D writes buffers, then the used descriptors (length, id, flags: one store each), but for the first
//             R2  D writes the first of the batch (Publish)            release: G reads used descriptors in order, so
//                                                                      it sees none of the batch before this store
//   Call      C1  full fence                                           R2 before C2, or a call could be lost
//             C2  D reads the driver event area
//   Sleep     S1  D writes offset, then flags of the device event area
//             S2  full fence                                           S1 before S3, or a kick could be lost
//             S3  D looks at the next descriptor's flags; if it is available, do not sleep
//
// A used descriptor stands for its whole chain and is written at the device's own position, which moves on by the
// chain's number of descriptors. A chain's slot is its buffer id. The first of a batch is kept back whole, since a
// driver that looks at its flags all the time would fetch its cache line again after each store.
using System.Runtime.CompilerServices;
using Outboard.Memory;
using Outboard.Virtio.Queue.Inflight;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Queue;

/// <summary>The device's side of a packed virtqueue.</summary>
internal sealed partial class PackedVirtqueue : Virtqueue
{
    private readonly bool _hasEventIndex;
    private readonly bool _hasIndirect;
    private readonly PackedDescriptor[] _chain;
    private readonly ushort[] _ringCounts;
    private readonly MemoryWindow? _record;
    private readonly Dictionary<int, PackedDescriptor[]> _takenAgain = [];
    private readonly Stack<PackedDescriptor[]> _resubmitted = new();

    private PackedInflight? _inflight;
    private MemoryWindow _ring;
    private MemoryWindow _driverEvent;
    private MemoryWindow _deviceEvent;

    private PackedPosition _available;
    private PackedPosition _used;
    private PackedPosition _batchStart;
    private ulong _batchFirst;
    private bool _hasBatch;
    private int _sinceCall;
    private int _heldDescriptors;
    private int _regionHint;
    private bool _kicksSuppressed;
    private uint _lastUsedOffset;
    private PackedPosition _lastUsed;

    internal PackedVirtqueue(VringSetup setup)
        : base(setup)
    {
        _hasEventIndex = (setup.Features & VirtioFeatures.EventIndex) != 0;
        _hasIndirect = (setup.Features & VirtioFeatures.IndirectDescriptors) != 0;
        _chain = new PackedDescriptor[setup.Size];
        _ringCounts = new ushort[setup.Size];
        _available = new PackedPosition((ushort)setup.Base);
        _used = new PackedPosition((ushort)(setup.Base >> 16));
        if (setup.Base >> 16 == 0 && _available == PackedPosition.Start)
        {
            // DPDK tells the lower half only, and means both.
            _used = _available;
        }

        if (_available.Index >= Size || _used.Index >= Size)
        {
            Dispose();
            throw new VringSetupException("base", $"0x{setup.Base:x} lies outside a ring of {Size}");
        }

        _record = setup.Inflight;
        OpenAtStart(
            $"desc 0x{Addresses.Descriptors:x}, driver 0x{Addresses.Available:x}, device 0x{Addresses.Used:x}");
    }

    public override uint Base => _available.Packed | ((uint)_used.Packed << 16);

    public override ushort Position => _available.Packed;

    internal override bool IsTracked => _inflight is not null;

    internal override ushort UsedPosition => _used.Packed;

    public override bool HasUnpublished => _hasBatch;

    internal override bool IsHalfDone => IsBlocked
        || _sinceCall >= Size
        || !AvailableAfter(_sinceCall);

    public override bool OwesCall => _sinceCall > 0;

    public override bool HasAvailable =>
        !IsBlocked && !IsOverBudget
        && (_resubmitted.Count > 0 || _available.IsAvailable(FlagsAt(_available.Index)));

    public override bool TryTake(out DescriptorChain chain)
    {
        chain = default;
        if (!HasAvailable)
        {
            return false;
        }

        if (_resubmitted.Count > 0)
        {
            return TryTakeAgain(out chain);
        }

        VirtqueueFault fault = CopyChain(out int count, out int slot);
        if (fault == VirtqueueFault.None)
        {
            fault = Translate(count, slot, out int readable, out int total);
            if (fault == VirtqueueFault.None)
            {
                ushort position = Position;
                _available = _available.Advance(count, Size);
                _ringCounts[slot] = (ushort)count;
                _heldDescriptors += count;
                _inflight?.Take(slot, _chain.AsSpan(0, count));
                chain = Hold(slot, readable, total, position);
                return true;
            }
        }

        Refuse(fault);
        return false;
    }

    public override void Publish()
    {
        if (_hasBatch)
        {
            _inflight?.Publishing();
            uint offset = (_batchStart.Index * PackedRing.DescriptorBytes) + PackedRing.LengthOffset;
            _ring.WriteRelease64(offset, _batchFirst);
            _hasBatch = false;
            if (Dirty is { } dirty)
            {
                DirtyLog.Fence();
                dirty.MarkWindow(in _ring, offset, sizeof(ulong));
                dirty.Tell();
            }

            _inflight?.Published();
        }
    }

    public override bool ShouldCall()
    {
        int count = _sinceCall;
        if (count == 0)
        {
            return false;
        }

        _sinceCall = 0;
        Interlocked.MemoryBarrier();
        ushort flags = _driverEvent.Read<ushort>(PackedRing.EventFlagsOffset);
        ushort wanted = _driverEvent.Read<ushort>(0);
        return PackedRing.WantsEvent(flags, wanted, _hasEventIndex, _used, count, Size);
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
            _deviceEvent.Write(0, _available.Packed);
            _deviceEvent.WriteRelease16(PackedRing.EventFlagsOffset, PackedRing.EventDescriptor);
        }
        else
        {
            _deviceEvent.Write(PackedRing.EventFlagsOffset, PackedRing.EventEnable);
        }

        Interlocked.MemoryBarrier();
        if (Dirty is { } dirty)
        {
            MarkEvent(dirty);
        }

        return HasAvailable;
    }

    public override void SuppressKicks()
    {
        if (!_kicksSuppressed && !IsBlocked)
        {
            _deviceEvent.Write(PackedRing.EventFlagsOffset, PackedRing.EventDisable);
            _kicksSuppressed = true;
            if (Dirty is { } dirty)
            {
                DirtyLog.Fence();
                MarkEvent(dirty);
            }
        }
    }

    internal override bool WillBeTakenAgain(int slot) => _resubmitted.Any(chain => chain[^1].Id == slot);

    private protected override bool TryMapRings()
    {
        uint ringBytes = (uint)Size * PackedRing.DescriptorBytes;
        bool isMapped = TryMap(Addresses.Descriptors, ringBytes, MemoryAccess.ReadWrite, out _ring)
            & TryMap(Addresses.Available, PackedRing.EventBytes, MemoryAccess.Read, out _driverEvent)
            & TryMap(Addresses.Used, PackedRing.EventBytes, MemoryAccess.ReadWrite, out _deviceEvent);
        return isMapped && _ring.IsAligned(16) && _driverEvent.IsAligned(4) && _deviceEvent.IsAligned(4);
    }

    private protected override ushort PositionAfter(int slot, ushort position) =>
        new PackedPosition(position).Advance(_ringCounts[slot], Size).Packed;

    private protected override void Begin()
    {
        if (_record is { } window)
        {
            _inflight = OpenInflight(window);
        }

        BeginOrder(_resubmitted.Count > 0 ? _used.Packed : _available.Packed);
    }

    private protected override void Rewind(int slot, ushort position)
    {
        _available = new PackedPosition(position);
        _heldDescriptors -= _ringCounts[slot];
        _inflight?.PutBack(slot);
    }

    private protected override void Requeue(int slot) => _resubmitted.Push(_takenAgain[slot]);

    private protected override void PutUsed(int slot, uint written)
    {
        uint offset = _used.Index * PackedRing.DescriptorBytes;
        ushort flags = (ushort)(_used.UsedFlags | (written > 0 ? SplitRing.Write : 0));

        ulong half = PackedRing.SecondHalf(written, (ushort)slot, flags);
        _lastUsedOffset = offset;
        if (_hasBatch)
        {
            // With release: the descriptor that is overwritten here was copied into the in-flight record before.
            _ring.WriteRelease64(offset + PackedRing.LengthOffset, half);
        }
        else
        {
            _hasBatch = true;
            _batchStart = _used;
            _batchFirst = half;
        }

        PassUsed(slot);
    }

    private protected override void PutUsedInOrder(int slot, uint written, bool isOver)
    {
        if (!isOver)
        {
            _lastUsed = _used;
            PutUsed(slot, written);
            return;
        }

        // The entry before stands for this chain, too; the batch's first is kept back.
        ushort flags = (ushort)(_lastUsed.UsedFlags | (written > 0 ? SplitRing.Write : 0));
        ulong half = PackedRing.SecondHalf(written, (ushort)slot, flags);
        if (_lastUsed == _batchStart)
        {
            _batchFirst = half;
        }
        else
        {
            _ring.WriteRelease64(_lastUsedOffset + PackedRing.LengthOffset, half);
        }

        PassUsed(slot);
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private void PassUsed(int slot)
    {
        int count = _ringCounts[slot];
        _used = _used.Advance(count, Size);
        _sinceCall += count;
        _heldDescriptors -= count;
        _inflight?.Return(slot, _used);
    }

    private protected override void MarkUsedEntry(DirtyTracker dirty) =>
        dirty.MarkWindow(in _ring, _lastUsedOffset, PackedRing.DescriptorBytes);

    private protected override void MarkWholeRing(DirtyTracker dirty)
    {
        dirty.MarkWindow(in _ring, 0, _ring.Length);
        MarkEvent(dirty);
    }

    private void MarkEvent(DirtyTracker dirty) => dirty.MarkUsedArea(in _deviceEvent, 0, PackedRing.EventBytes);

    private void Refuse(VirtqueueFault fault)
    {
        if (fault == VirtqueueFault.Untranslated)
        {
            Wait();
        }
        else
        {
            Fault = fault;
        }
    }

    /// <summary>Whether more than so many descriptors are available: a driver adds them in order.</summary>
    private bool AvailableAfter(int count)
    {
        PackedPosition place = _available.Advance(count, Size);
        return place.IsAvailable(FlagsAt(place.Index));
    }

    private ushort FlagsAt(ushort index) =>
        _ring.ReadAcquire16((index * PackedRing.DescriptorBytes) + PackedRing.FlagsOffset);

    /// <summary>Copies the descriptors of the next chain; the last one's id is the slot.</summary>
    private VirtqueueFault CopyChain(out int count, out int slot)
    {
        uint index = _available.Index;
        slot = 0;
        for (count = 0; count < Size - _heldDescriptors;)
        {
            PackedDescriptor descriptor = _ring.Read<PackedDescriptor>(index * PackedRing.DescriptorBytes);
            _chain[count++] = descriptor;
            if ((descriptor.Flags & SplitRing.Next) == 0)
            {
                slot = descriptor.Id;
                return slot >= Size ? VirtqueueFault.HeadOutOfRange
                    : IsHeld(slot) ? VirtqueueFault.HeadInFlight
                    : VirtqueueFault.None;
            }

            index = index + 1 == (uint)Size ? 0 : index + 1;
        }

        return VirtqueueFault.ChainTooLong;
    }

    private VirtqueueFault Translate(int count, int slot, out int readable, out int total)
    {
        Walk walk = new() { Slot = slot, Hint = _regionHint, Readable = -1 };
        VirtqueueFault fault = VirtqueueFault.None;
        foreach (ref readonly PackedDescriptor descriptor in _chain.AsSpan(0, count))
        {
            fault = (descriptor.Flags & SplitRing.Indirect) != 0
                ? TranslateIndirect(in descriptor, ref walk)
                : Append(in descriptor, ref walk);
            if (fault != VirtqueueFault.None)
            {
                break;
            }
        }

        _regionHint = walk.Hint;
        total = walk.Count;
        readable = walk.Readable < 0 ? total : walk.Readable;
        return fault == VirtqueueFault.None && walk.IsUntranslated ? VirtqueueFault.Untranslated : fault;
    }

    /// <summary>An indirect table: all its entries belong to the chain, in order; NEXT has no meaning there.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private VirtqueueFault TranslateIndirect(in PackedDescriptor descriptor, ref Walk walk)
    {
        if (!_hasIndirect)
        {
            return VirtqueueFault.IndirectNotNegotiated;
        }

        if ((descriptor.Flags & SplitRing.Next) != 0)
        {
            return VirtqueueFault.IndirectMisplaced;
        }

        uint entries = descriptor.Length / PackedRing.DescriptorBytes;
        if (entries == 0 || entries > Math.Max(Size, MaxIndirectDescriptors)
            || descriptor.Length % PackedRing.DescriptorBytes != 0)
        {
            return VirtqueueFault.IndirectTableSize;
        }

        VirtqueueFault fault = OpenTable(descriptor.Address, descriptor.Length, out MemoryWindow table);
        for (uint i = 0; i < entries && fault == VirtqueueFault.None; i++)
        {
            PackedDescriptor entry = table.Read<PackedDescriptor>(i * PackedRing.DescriptorBytes);
            fault = (entry.Flags & SplitRing.Indirect) != 0
                ? VirtqueueFault.IndirectMisplaced
                : Append(in entry, ref walk);
        }

        return fault;
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private VirtqueueFault Append(in PackedDescriptor descriptor, ref Walk walk)
    {
        if ((descriptor.Flags & SplitRing.Write) != 0)
        {
            walk.Readable = walk.Readable < 0 ? walk.Count : walk.Readable;
        }
        else if (walk.Readable >= 0)
        {
            return VirtqueueFault.ReadableAfterWritable;
        }

        if (!TryAppendBuffer(
            Memory, walk.Slot, descriptor.Address, descriptor.Length, ref walk.Count, ref walk.Hint))
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
        return walk.Bytes <= MaxChainBytes ? VirtqueueFault.None : VirtqueueFault.ChainTooLong;
    }
}
