// The driver's side of a split virtqueue, virtio-v1.3 "2.7.13 Supplying Buffers to The Device" and
// "2.7.14 Receiving Used Buffers From The Device". The mirror of SplitVirtqueue; its ordering comments apply with the
// roles exchanged: the available index is stored with release, used.idx is read with acquire, and a full fence stands
// between publishing and asking whether a kick is wanted.
//
// The device is not trusted either: a used entry that names no chain in flight is an error, not an index.
using System.Runtime.InteropServices;
using Outboard.Memory;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Queue.Driver;

/// <summary>The driver's side of a split virtqueue. Used by one thread.</summary>
public sealed class SplitDriverQueue
{
    private const ushort None = 0xFFFF;

    private readonly MemoryWindow _table;
    private readonly MemoryWindow _available;
    private readonly MemoryWindow _used;
    private readonly bool _hasEventIndex;
    private readonly uint _mask;
    private readonly ushort[] _next;
    private readonly Held[] _held;
    private readonly DriverBuffer[] _indirect;

    private ushort _freeHead;
    private ushort _nextAvailable;
    private ushort _kickedAvailable;
    private ushort _nextUsed;

    /// <summary>Lays a queue out in driver memory.</summary>
    /// <param name="index">The queue's index in the device.</param>
    /// <param name="size">Descriptors: a power of two up to 32768.</param>
    /// <param name="memory">Where rings (and indirect tables) are allocated.</param>
    /// <param name="features">Negotiated features; EVENT_IDX is honoured.</param>
    /// <param name="indirectEntries">Entries of the indirect table that each chain may use; 0 uses none.</param>
    public SplitDriverQueue(int index, int size, DriverMemory memory, ulong features, int indirectEntries = 0)
    {
        ArgumentNullException.ThrowIfNull(memory);
        if (size is < 1 or > SplitRing.MaxSize || (size & (size - 1)) != 0)
        {
            throw new ArgumentOutOfRangeException(nameof(size), size, "a power of two up to 32768");
        }

        Index = index;
        Size = size;
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

        FreeDescriptors = size;
        _indirect = new DriverBuffer[indirectEntries > 0 ? size : 0];
        for (int i = 0; i < _indirect.Length; i++)
        {
            _indirect[i] = memory.Allocate((uint)indirectEntries * SplitRing.DescriptorBytes, 16);
        }
    }

    /// <summary>The queue's index in the device.</summary>
    public int Index { get; }

    /// <summary>Descriptors.</summary>
    public int Size { get; }

    /// <summary>Where the ring lies.</summary>
    public VringAddresses Addresses { get; }

    /// <summary>Descriptors that are free.</summary>
    public int FreeDescriptors { get; private set; }

    /// <summary>Chains made available and not collected.</summary>
    public int InFlight { get; private set; }

    /// <summary>The next available index, as it is told to a device that starts the ring.</summary>
    public ushort AvailableIndex => _nextAvailable;

    /// <summary>Adds a chain; visible to the device after <see cref="Publish"/>.</summary>
    /// <param name="readable">Buffers that the device reads.</param>
    /// <param name="writable">Buffers that the device writes.</param>
    /// <param name="token">Comes back from <see cref="TryCollect"/>.</param>
    /// <returns>False when too few descriptors are free.</returns>
    public bool TryAdd(ReadOnlySpan<DriverBuffer> readable, ReadOnlySpan<DriverBuffer> writable, uint token)
    {
        int count = readable.Length + writable.Length;
        bool isIndirect = _indirect.Length > 0 && count > 1;
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

        _held[head] = new Held(token, (ushort)(isIndirect ? 1 : count), true);
        _available.Write(SplitRing.EntriesOffset + (2 * (_nextAvailable & _mask)), head);
        _nextAvailable++;
        InFlight++;
        return true;
    }

    /// <summary>Makes added chains visible to the device.</summary>
    public void Publish() => _available.WriteRelease16(SplitRing.IndexOffset, _nextAvailable);

    /// <summary>Whether the device wants a kick for what was published since the last time this was asked.</summary>
    public bool ShouldKick()
    {
        ushort old = _kickedAvailable;
        if (old == _nextAvailable)
        {
            return false;
        }

        _kickedAvailable = _nextAvailable;
        Interlocked.MemoryBarrier();
        return _hasEventIndex
            ? SplitRing.Passes(_used.Read<ushort>(SplitRing.AvailableEventOffset(Size)), _nextAvailable, old)
            : (_used.Read<ushort>(SplitRing.FlagsOffset) & SplitRing.NoNotify) == 0;
    }

    /// <summary>Takes the next used chain.</summary>
    /// <param name="token">The chain's token.</param>
    /// <param name="written">Bytes that the device says it wrote.</param>
    /// <returns>False when there is none.</returns>
    /// <exception cref="InvalidDataException">The device returned a chain that it does not hold.</exception>
    public bool TryCollect(out uint token, out uint written)
    {
        token = 0;
        written = 0;
        if (_used.ReadAcquire16(SplitRing.IndexOffset) == _nextUsed)
        {
            return false;
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

    /// <summary>Asks the device for a call at the next used chain, before waiting.</summary>
    /// <returns>True when one is there already: do not wait.</returns>
    public bool ArmCalls()
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

    /// <summary>Tells the device that no call is needed.</summary>
    public void SuppressCalls()
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
            SplitDescriptor descriptor = new(
                buffer.GuestAddress, buffer.Length, (ushort)flags, left > 0 ? next : (ushort)0);
            _table.Write(index * SplitRing.DescriptorBytes, descriptor);
            index = next;
        }

        _freeHead = index;
        FreeDescriptors -= readable.Length + writable.Length;
    }

    private void AddIndirect(ushort head, ReadOnlySpan<DriverBuffer> readable, ReadOnlySpan<DriverBuffer> writable)
    {
        int count = readable.Length + writable.Length;
        DriverBuffer table = _indirect[head];
        Span<SplitDescriptor> entries = MemoryMarshal.Cast<byte, SplitDescriptor>(table.Span);
        for (int i = 0; i < count; i++)
        {
            bool isWritable = i >= readable.Length;
            DriverBuffer buffer = isWritable ? writable[i - readable.Length] : readable[i];
            int flags = (isWritable ? SplitRing.Write : 0) | (i + 1 < count ? SplitRing.Next : 0);
            entries[i] = new SplitDescriptor(
                buffer.GuestAddress, buffer.Length, (ushort)flags, (ushort)(i + 1 < count ? i + 1 : 0));
        }

        uint bytes = (uint)count * SplitRing.DescriptorBytes;
        _table.Write(
            head * SplitRing.DescriptorBytes, new SplitDescriptor(table.GuestAddress, bytes, SplitRing.Indirect, 0));
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

    private readonly record struct Held(uint Token, ushort Descriptors, bool IsInFlight);
}
