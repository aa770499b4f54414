// A split ring written byte by byte, as the specification lays it out, and as no well-behaved driver would: every field
// can be set to anything. It shares no code with the rings of the product.
using System.Buffers.Binary;
using Outboard.Memory;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.Tests.Virtio.Rig;

internal sealed class RawRing : IDisposable
{
    internal const ushort Next = 1;
    internal const ushort Write = 2;
    internal const ushort Indirect = 4;
    internal const ulong FeatureIndirect = 1UL << 28;
    internal const ulong FeatureEventIndex = 1UL << 29;
    internal const ulong FeatureVersion1 = 1UL << 32;
    internal const ulong FeaturePacked = 1UL << 34;
    internal const ulong FeatureInOrder = 1UL << 35;

    private readonly DriverBuffer _table;
    private readonly DriverBuffer _available;
    private readonly DriverBuffer _used;

    internal RawRing(int size, ulong features = FeatureVersion1 | FeatureIndirect, ulong memoryBytes = 4 << 20)
    {
        Size = size;
        Features = features;
        Memory = new DriverMemory(memoryBytes);
        _table = Memory.Allocate(16 * (uint)size, 16);
        _available = Memory.Allocate(6 + (2 * (uint)size), 2);
        _used = Memory.Allocate(6 + (8 * (uint)size), 4);
    }

    internal int Size { get; }

    internal ulong Features { get; }

    internal DriverMemory Memory { get; }

    internal ushort AvailableFlags
    {
        get => Get16(_available, 0);
        set => Set16(_available, 0, value);
    }

    internal ushort AvailableIndex
    {
        get => Get16(_available, 2);
        set => Set16(_available, 2, value);
    }

    internal ushort UsedEvent
    {
        get => Get16(_available, 4 + (2 * Size));
        set => Set16(_available, 4 + (2 * Size), value);
    }

    internal ushort UsedFlags
    {
        get => Get16(_used, 0);
        set => Set16(_used, 0, value);
    }

    internal ushort UsedIndex
    {
        get => Get16(_used, 2);
        set => Set16(_used, 2, value);
    }

    internal ushort AvailableEvent
    {
        get => Get16(_used, 4 + (8 * Size));
        set => Set16(_used, 4 + (8 * Size), value);
    }

    public void Dispose() => Memory.Dispose();

    internal VringSetup Setup(ushort availableIndex = 0, GuestMemory? memory = null) => new()
    {
        Index = 0,
        Size = Size,
        Addresses = new VringAddresses(_table.GuestAddress, _available.GuestAddress, _used.GuestAddress),
        Base = availableIndex,
        Features = Features,
        Memory = memory ?? Memory.Memory,
    };

    internal Virtqueue Open(ushort availableIndex = 0, GuestMemory? memory = null) =>
        Virtqueue.Create(Setup(availableIndex, memory));

    internal void Describe(int index, ulong address, uint length, ushort flags = 0, ushort next = 0) =>
        Describe(_table, index, address, length, flags, next);

    internal void Describe(int index, DriverBuffer buffer, ushort flags = 0, ushort next = 0) =>
        Describe(index, buffer.GuestAddress, buffer.Length, flags, next);

    /// <summary>Writes a descriptor of an indirect table.</summary>
    internal static void Describe(
        DriverBuffer table, int index, ulong address, uint length, ushort flags = 0, ushort next = 0)
    {
        Span<byte> bytes = table.Span.Slice(16 * index, 16);
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, address);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes[8..], length);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[12..], flags);
        BinaryPrimitives.WriteUInt16LittleEndian(bytes[14..], next);
    }

    /// <summary>Writes an available entry and moves the index on.</summary>
    internal void Offer(ushort head)
    {
        ushort index = AvailableIndex;
        Set16(_available, 4 + (2 * (index % Size)), head);
        AvailableIndex = (ushort)(index + 1);
    }

    /// <summary>Offers a chain of one descriptor.</summary>
    internal void OfferOne(ushort head, DriverBuffer buffer, ushort flags = 0)
    {
        Describe(head, buffer, flags);
        Offer(head);
    }

    internal (uint Id, uint Length) Used(int index)
    {
        Span<byte> bytes = _used.Span.Slice(4 + (8 * (index % Size)), 8);
        return (BinaryPrimitives.ReadUInt32LittleEndian(bytes), BinaryPrimitives.ReadUInt32LittleEndian(bytes[4..]));
    }

    private static ushort Get16(DriverBuffer buffer, int offset) =>
        BinaryPrimitives.ReadUInt16LittleEndian(buffer.Span[offset..]);

    private static void Set16(DriverBuffer buffer, int offset, ushort value) =>
        BinaryPrimitives.WriteUInt16LittleEndian(buffer.Span[offset..], value);
}
