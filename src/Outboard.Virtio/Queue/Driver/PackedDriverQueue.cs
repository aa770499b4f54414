// The driver's side of a packed virtqueue, virtio-v1.3 "2.8.21 Supplying Buffers to The Device" and
// "2.8.22 Receiving Used Buffers From The Device". The mirror of PackedVirtqueue; its ordering comments apply with the
// roles exchanged: of a batch of chains, the first descriptor is stored last, its flags with release.
//
// A chain's buffer id is also the index of its entry here, and of its indirect table. What was written into the ring is
// kept, so that it can be written again for a device that lost it.
using System.Runtime.InteropServices;
using Outboard.Memory;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Queue.Driver;

/// <summary>The driver's side of a packed virtqueue. Used by one thread.</summary>
public sealed partial class PackedDriverQueue : DriverQueue
{
    private const int NoBatch = -1;

    private readonly MemoryWindow _ring;
    private readonly MemoryWindow _driverEvent;
    private readonly MemoryWindow _deviceEvent;
    private readonly bool _hasEventIndex;
    private readonly Held[] _held;
    private readonly ushort[] _freeIds;
    private readonly PackedDescriptor[] _written;
    private int _freeIdCount;

    private PackedPosition _available = PackedPosition.Start;
    private PackedPosition _used = PackedPosition.Start;
    private PackedPosition _batchStart;
    private PackedDescriptor _batchFirst;
    private bool _hasBatch;
    private PackedPosition _published = PackedPosition.Start;
    private int _unpublished;
    private int _sinceKick;

    private ushort _nextId;
    private ushort _oldestId;
    private int _batchLast = NoBatch;
    private uint _batchWritten;

    /// <summary>Lays a queue out in driver memory; see <see cref="DriverQueue.Create"/>.</summary>
    public PackedDriverQueue(int index, int size, DriverMemory memory, ulong features, int indirectEntries = 0)
        : base(index, size, memory, features, indirectEntries)
    {
        ArgumentNullException.ThrowIfNull(memory);
        ArgumentOutOfRangeException.ThrowIfLessThan(size, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(size, SplitRing.MaxSize);
        DriverBuffer ring = memory.Allocate((uint)size * PackedRing.DescriptorBytes, 64);
        DriverBuffer driverEvent = memory.Allocate(PackedRing.EventBytes, 64);
        DriverBuffer deviceEvent = memory.Allocate(PackedRing.EventBytes, 64);
        Addresses = new VringAddresses(ring.GuestAddress, driverEvent.GuestAddress, deviceEvent.GuestAddress);
        memory.Memory.TryGetWindow(ring.GuestAddress, ring.Length, out _ring);
        memory.Memory.TryGetWindow(driverEvent.GuestAddress, driverEvent.Length, out _driverEvent);
        memory.Memory.TryGetWindow(deviceEvent.GuestAddress, deviceEvent.Length, out _deviceEvent);
        _hasEventIndex = (features & VirtioFeatures.EventIndex) != 0;
        _held = new Held[size];
        _written = new PackedDescriptor[size];
        _freeIds = [.. Enumerable.Range(0, size).Select(id => (ushort)(size - 1 - id))];
        _freeIdCount = size;
    }

    /// <inheritdoc/>
    public override uint InitialBase => PackedPosition.StartOfBoth;

    /// <inheritdoc/>
    public override uint UsedBase => _used.Packed | ((uint)_used.Packed << 16);

    /// <inheritdoc/>
    public override bool TryAdd(ReadOnlySpan<DriverBuffer> readable, ReadOnlySpan<DriverBuffer> writable, uint token)
    {
        int count = readable.Length + writable.Length;
        bool isIndirect = count > 1 && count <= IndirectEntries;
        int descriptors = isIndirect ? 1 : count;
        if (count == 0 || FreeDescriptors < descriptors || _freeIdCount == 0)
        {
            return false;
        }

        ushort id = IsInOrder ? _nextId : _freeIds[_freeIdCount - 1];
        _freeIdCount--;
        PackedPosition start = _available;
        if (isIndirect)
        {
            FillIndirect(Indirect[id].Span, readable, writable);
            Put(Indirect[id].GuestAddress, (uint)count * PackedRing.DescriptorBytes, id, SplitRing.Indirect);
        }
        else
        {
            for (int i = 0; i < count; i++)
            {
                bool isWritable = i >= readable.Length;
                DriverBuffer buffer = isWritable ? writable[i - readable.Length] : readable[i];
                int flags = (isWritable ? SplitRing.Write : 0) | (i + 1 < count ? SplitRing.Next : 0);
                Put(buffer.GuestAddress, buffer.Length, id, flags);
            }
        }

        _held[id] = new Held(token, (ushort)descriptors, true, start);
        if (IsInOrder)
        {
            NoteWritable(id, writable);
            _nextId = After(_nextId);
        }

        _unpublished += descriptors;
        FreeDescriptors -= descriptors;
        InFlight++;
        return true;
    }

    /// <inheritdoc/>
    public override void Publish()
    {
        if (_hasBatch)
        {
            uint offset = Offset(_batchStart);
            _ring.Write(offset, _batchFirst.Address);
            _ring.WriteRelease64(
                offset + PackedRing.LengthOffset,
                PackedRing.SecondHalf(_batchFirst.Length, _batchFirst.Id, _batchFirst.Flags));
            _hasBatch = false;
            _published = _available;
            _sinceKick += _unpublished;
            _unpublished = 0;
        }
    }

    /// <inheritdoc/>
    public override bool ShouldKick()
    {
        int count = _sinceKick;
        if (count == 0)
        {
            return false;
        }

        _sinceKick = 0;
        Interlocked.MemoryBarrier();
        ushort flags = _deviceEvent.Read<ushort>(PackedRing.EventFlagsOffset);
        ushort wanted = _deviceEvent.Read<ushort>(0);
        return PackedRing.WantsEvent(flags, wanted, _hasEventIndex, _published, count, Size);
    }

    /// <inheritdoc/>
    public override bool TryCollect(out uint token, out uint written)
    {
        token = 0;
        written = 0;
        if (IsInOrder)
        {
            return TryCollectOldest(out token, out written);
        }

        if (!HasUsed)
        {
            return false;
        }

        PackedDescriptor descriptor = _ring.Read<PackedDescriptor>(Offset(_used));
        if (descriptor.Id >= Size || !_held[descriptor.Id].IsInFlight)
        {
            throw new InvalidDataException(
                $"queue {Index}: the device returned buffer {descriptor.Id}, which it does not hold");
        }

        ref Held held = ref _held[descriptor.Id];
        token = held.Token;
        written = (descriptor.Flags & SplitRing.Write) != 0 ? descriptor.Length : 0;
        _used = _used.Advance(held.Descriptors, Size);
        FreeDescriptors += held.Descriptors;
        held = default;
        _freeIds[_freeIdCount++] = descriptor.Id;
        InFlight--;
        return true;
    }

    /// <inheritdoc/>
    public override bool ArmCalls()
    {
        if (_hasEventIndex)
        {
            _driverEvent.Write(0, _used.Packed);
            _driverEvent.WriteRelease16(PackedRing.EventFlagsOffset, PackedRing.EventDescriptor);
        }
        else
        {
            _driverEvent.Write(PackedRing.EventFlagsOffset, PackedRing.EventEnable);
        }

        Interlocked.MemoryBarrier();
        return _batchLast != NoBatch || HasUsed;
    }

    /// <inheritdoc/>
    public override void SuppressCalls() => _driverEvent.Write(PackedRing.EventFlagsOffset, PackedRing.EventDisable);

    /// <inheritdoc/>
    /// <remarks>
    /// A device overwrites descriptors with used ones, so what is in flight is written anew: from where its used
    /// side stands, chain after chain in the order of their addition, up to where the driver stands.
    /// </remarks>
    public override uint ResubmitInFlight()
    {
        if (HasUsed || _hasBatch || _batchLast != NoBatch)
        {
            throw new InvalidOperationException($"queue {Index}: used chains have not been collected");
        }

        (int Id, PackedDescriptor[] Descriptors)[] chains =
        [
            .. Enumerable.Range(0, Size).Where(id => _held[id].IsInFlight)
                .OrderBy(id => Distance(_held[id].Start)).Select(id => (id, DescriptorsOf(id))),
        ];
        PackedPosition begin = _used;
        _available = begin;
        foreach ((int id, PackedDescriptor[] descriptors) in chains)
        {
            _held[id] = _held[id] with { Start = _available };
            foreach (PackedDescriptor descriptor in descriptors)
            {
                int flags = descriptor.Flags & ~(PackedRing.Available | PackedRing.Used);
                Put(descriptor.Address, descriptor.Length, descriptor.Id, flags);
            }
        }

        Publish();
        return begin.Packed | ((uint)begin.Packed << 16);
    }

    private bool HasUsed => _used.IsUsed(_ring.ReadAcquire16(Offset(_used) + PackedRing.FlagsOffset));

    private static uint Offset(PackedPosition position) => position.Index * PackedRing.DescriptorBytes;

    /// <summary>How far back a place lies that the driver passed.</summary>
    private int Distance(PackedPosition place) => place.Wrap == _available.Wrap
        ? place.Index - _available.Index
        : place.Index - Size - _available.Index;

    private PackedDescriptor[] DescriptorsOf(int id)
    {
        Held held = _held[id];
        return [.. Enumerable.Range(0, held.Descriptors).Select(i => _written[held.Start.Advance(i, Size).Index])];
    }

    private void Put(ulong address, uint length, ushort id, int flags)
    {
        PackedDescriptor descriptor = new(address, length, id, (ushort)(flags | _available.AvailableFlags));
        uint offset = Offset(_available);
        _written[_available.Index] = descriptor;
        if (_hasBatch)
        {
            _ring.Write(offset, descriptor);
        }
        else
        {
            _hasBatch = true;
            _batchStart = _available;
            _batchFirst = descriptor;
        }

        _available = _available.Advance(1, Size);
    }

    private static void FillIndirect(
        Span<byte> table, ReadOnlySpan<DriverBuffer> readable, ReadOnlySpan<DriverBuffer> writable)
    {
        Span<PackedDescriptor> entries = MemoryMarshal.Cast<byte, PackedDescriptor>(table);
        for (int i = 0; i < readable.Length + writable.Length; i++)
        {
            bool isWritable = i >= readable.Length;
            DriverBuffer buffer = isWritable ? writable[i - readable.Length] : readable[i];
            ushort flags = isWritable ? SplitRing.Write : (ushort)0;
            entries[i] = new PackedDescriptor(buffer.GuestAddress, buffer.Length, 0, flags);
        }
    }

    private readonly record struct Held(uint Token, ushort Descriptors, bool IsInFlight, PackedPosition Start);
}
