// The driver's side of a split virtqueue, virtio-v1.3 "2.7.13 Supplying Buffers to The Device" and
// "2.7.14 Receiving Used Buffers From The Device". The mirror of SplitVirtqueue; its ordering comments apply with the
// roles exchanged: the available index is stored with release, used.idx is read with acquire, and a full fence stands
// between publishing and asking whether a kick is wanted.
//
// The device is not trusted either: a used entry that names no chain in flight is an error, not an index.
using Outboard.Memory;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Queue.Driver;

/// <summary>The driver's side of a split virtqueue. Used by one thread.</summary>
public sealed partial class SplitDriverQueue : DriverQueue
{
    private const ushort None = 0xFFFF;
    private const int NoBatch = -1;

    private readonly MemoryWindow _table;
    private readonly MemoryWindow _available;
    private readonly MemoryWindow _used;
    private readonly bool _hasEventIndex;
    private readonly uint _mask;
    private readonly ushort[] _next;
    private readonly Held[] _held;

    private ushort _freeHead;
    private ushort _nextAvailable;
    private ushort _publishedAvailable;
    private ushort _kickedAvailable;
    private ushort _nextUsed;
    private ushort _seenUsed;
    private ulong _added;

    private ushort _oldest;
    private int _batchLast = NoBatch;
    private uint _batchWritten;

    /// <summary>Lays a queue out in driver memory.</summary>
    /// <param name="index">The queue's index in the device.</param>
    /// <param name="size">Descriptors: a power of two up to 32768.</param>
    /// <param name="memory">Where rings (and indirect tables) are allocated.</param>
    /// <param name="features">Negotiated features; EVENT_IDX and IN_ORDER are honoured.</param>
    /// <param name="indirectEntries">Entries of the indirect table that each chain may use; 0 uses none.</param>
    public SplitDriverQueue(int index, int size, DriverMemory memory, ulong features, int indirectEntries = 0)
        : base(index, size, memory, features, indirectEntries)
    {
        ArgumentNullException.ThrowIfNull(memory);
        if (size is < 1 or > SplitRing.MaxSize || (size & (size - 1)) != 0)
        {
            throw new ArgumentOutOfRangeException(nameof(size), size, "a power of two up to 32768");
        }

        DriverBuffer table = memory.Allocate(SplitRing.TableBytes(size), 16);
        DriverBuffer available = memory.Allocate(SplitRing.AvailableBytes(size), 64);
        DriverBuffer used = memory.Allocate(SplitRing.UsedBytes(size), 64);
        Addresses = new VringAddresses(table.GuestAddress, available.GuestAddress, used.GuestAddress);
        memory.Memory.TryGetWindow(table.GuestAddress, table.Length, out _table);
        memory.Memory.TryGetWindow(available.GuestAddress, available.Length, out _available);
        memory.Memory.TryGetWindow(used.GuestAddress, used.Length, out _used);
        _mask = (uint)size - 1;
        _hasEventIndex = (features & VirtioFeatures.EventIndex) != 0;
        _next = new ushort[size];
        _held = new Held[size];
        for (int i = 0; i < size; i++)
        {
            _next[i] = i + 1 == size ? None : (ushort)(i + 1);
        }

        if (IsInOrder)
        {
            // A circle that is never cut: what is free are the FreeDescriptors from _freeHead on.
            _next[size - 1] = 0;
        }
    }

    /// <inheritdoc/>
    public override uint InitialBase => 0;

    /// <inheritdoc/>
    public override uint UsedBase => _used.ReadAcquire16(SplitRing.IndexOffset);

    /// <summary>Begins at another index than 0, as a ring in the middle of its life; before its first use.</summary>
    internal void StartAt(ushort index)
    {
        (_nextAvailable, _publishedAvailable, _kickedAvailable) = (index, index, index);
        (_nextUsed, _seenUsed) = (index, index);
        _available.Write(SplitRing.IndexOffset, index);
        _used.Write(SplitRing.IndexOffset, index);
    }

    /// <inheritdoc/>
    public override bool TryAdd(ReadOnlySpan<DriverBuffer> readable, ReadOnlySpan<DriverBuffer> writable, uint token)
    {
        int count = readable.Length + writable.Length;
        bool isIndirect = count > 1 && count <= IndirectEntries;
        if (count == 0 || FreeDescriptors < (isIndirect ? 1 : count))
        {
            return false;
        }

        ushort head = _freeHead;
        if (isIndirect)
        {
            AddIndirect(head, readable, writable);
        }
        else
        {
            AddDirect(head, readable, writable);
        }

        _held[head] = new Held(token, (ushort)(isIndirect ? 1 : count), true, _added++);
        if (IsInOrder)
        {
            NoteWritable(head, writable);
        }

        _available.Write(SplitRing.EntriesOffset + (2 * (_nextAvailable & _mask)), head);
        _nextAvailable++;
        InFlight++;
        return true;
    }

    /// <inheritdoc/>
    public override void Publish()
    {
        _available.WriteRelease16(SplitRing.IndexOffset, _nextAvailable);
        _publishedAvailable = _nextAvailable;
    }

    /// <inheritdoc/>
    public override bool ShouldKick()
    {
        ushort old = _kickedAvailable;
        ushort now = _publishedAvailable;
        if (old == now)
        {
            return false;
        }

        _kickedAvailable = now;
        Interlocked.MemoryBarrier();
        return _hasEventIndex
            ? SplitRing.Passes(_used.Read<ushort>(SplitRing.AvailableEventOffset(Size)), now, old)
            : (_used.Read<ushort>(SplitRing.FlagsOffset) & SplitRing.NoNotify) == 0;
    }

    /// <inheritdoc/>
    public override bool TryCollect(out uint token, out uint written)
    {
        token = 0;
        written = 0;
        if (_nextUsed == _seenUsed)
        {
            _seenUsed = _used.ReadAcquire16(SplitRing.IndexOffset);
            if (_nextUsed == _seenUsed)
            {
                return false;
            }
        }

        if (IsInOrder)
        {
            CollectOldest(out token, out written);
            return true;
        }

        SplitUsedElement element = _used.Read<SplitUsedElement>(SplitRing.EntriesOffset + (8 * (_nextUsed & _mask)));
        if (element.Id > _mask || !_held[element.Id].IsInFlight)
        {
            throw new InvalidDataException(
                $"queue {Index}: the device returned chain {element.Id}, which it does not hold");
        }

        _nextUsed++;
        ref Held held = ref _held[element.Id];
        token = held.Token;
        written = element.Length;
        Free((ushort)element.Id, held.Descriptors);
        held = default;
        InFlight--;
        return true;
    }

    /// <inheritdoc/>
    public override bool ArmCalls()
    {
        if (_hasEventIndex)
        {
            _available.Write(SplitRing.UsedEventOffset(Size), _nextUsed);
        }
        else
        {
            _available.Write<ushort>(SplitRing.FlagsOffset, 0);
        }

        Interlocked.MemoryBarrier();
        return _used.ReadAcquire16(SplitRing.IndexOffset) != _nextUsed;
    }

    /// <inheritdoc/>
    public override void SuppressCalls()
    {
        if (_hasEventIndex)
        {
            // An index that was just passed is passed again after 65535 chains only.
            _available.Write(SplitRing.UsedEventOffset(Size), (ushort)(_nextUsed - 1));
        }
        else
        {
            _available.Write(SplitRing.FlagsOffset, SplitRing.NoInterrupt);
        }
    }

    /// <inheritdoc/>
    public override uint ResubmitInFlight()
    {
        if (_used.ReadAcquire16(SplitRing.IndexOffset) != _nextUsed)
        {
            throw new InvalidOperationException($"queue {Index}: used chains have not been collected");
        }

        // Every chain has one entry in each ring: as many are in flight as entries lie between the two indices.
        ushort position = _nextUsed;
        for (ulong order = 0; position != _nextAvailable; position++)
        {
            int head = OldestInFlight(order);
            order = _held[head].Order + 1;
            _available.Write(SplitRing.EntriesOffset + (2 * (position & _mask)), (ushort)head);
        }

        Publish();
        return _nextUsed;
    }

    private int OldestInFlight(ulong from)
    {
        int oldest = -1;
        for (int i = 0; i < Size; i++)
        {
            ref readonly Held held = ref _held[i];
            if (held.IsInFlight && held.Order >= from && (oldest < 0 || held.Order < _held[oldest].Order))
            {
                oldest = i;
            }
        }

        return oldest;
    }

    private void AddDirect(ushort head, ReadOnlySpan<DriverBuffer> readable, ReadOnlySpan<DriverBuffer> writable)
    {
        ushort index = head;
        int left = readable.Length + writable.Length;
        for (int i = 0; i < readable.Length + writable.Length; i++)
        {
            bool isWritable = i >= readable.Length;
            DriverBuffer buffer = isWritable ? writable[i - readable.Length] : readable[i];
            ushort next = _next[index];
            int flags = (isWritable ? SplitRing.Write : 0) | (--left > 0 ? SplitRing.Next : 0);
            SplitDescriptor descriptor =
                new(buffer.GuestAddress, buffer.Length, (ushort)flags, left > 0 ? next : (ushort)0);
            _table.Write(index * SplitRing.DescriptorBytes, descriptor);
            index = next;
        }

        _freeHead = index;
        FreeDescriptors -= readable.Length + writable.Length;
    }

    private void AddIndirect(ushort head, ReadOnlySpan<DriverBuffer> readable, ReadOnlySpan<DriverBuffer> writable)
    {
        int count = readable.Length + writable.Length;
        DriverBuffer table = Indirect[head];
        Span<SplitDescriptor> entries =
            System.Runtime.InteropServices.MemoryMarshal.Cast<byte, SplitDescriptor>(table.Span);
        for (int i = 0; i < count; i++)
        {
            bool isWritable = i >= readable.Length;
            DriverBuffer buffer = isWritable ? writable[i - readable.Length] : readable[i];
            int flags = (isWritable ? SplitRing.Write : 0) | (i + 1 < count ? SplitRing.Next : 0);
            ushort next = (ushort)(i + 1 < count ? i + 1 : 0);
            entries[i] = new SplitDescriptor(buffer.GuestAddress, buffer.Length, (ushort)flags, next);
        }

        uint bytes = (uint)count * SplitRing.DescriptorBytes;
        SplitDescriptor descriptor = new(table.GuestAddress, bytes, SplitRing.Indirect, 0);
        _table.Write(head * SplitRing.DescriptorBytes, descriptor);
        _freeHead = _next[head];
        FreeDescriptors--;
    }

    private void Free(ushort head, int count)
    {
        ushort last = head;
        for (int i = 1; i < count; i++)
        {
            last = _next[last];
        }

        _next[last] = _freeHead;
        _freeHead = head;
        FreeDescriptors += count;
    }

    private readonly record struct Held(uint Token, ushort Descriptors, bool IsInFlight, ulong Order);
}
