// Payload layouts, vhost-user "Message Specification": C structures in the host's byte order, naturally aligned.
using System.Runtime.InteropServices;

namespace Outboard.VhostUser.Protocol;

/// <summary>Vring state: 0 index u32, 4 num u32.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct VringStatePayload(uint Index, uint Num);

/// <summary>Vring address: 0 index u32, 4 flags u32 (bit 0: log), 8 descriptor u64, 16 used u64, 24 available u64, 32 log u64.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct VringAddressPayload(
    uint Index, uint Flags, ulong Descriptor, ulong Used, ulong Available, ulong Log)
{
    /// <summary>VHOST_VRING_F_LOG: writes to the used ring are logged, at <see cref="Log"/>.</summary>
    public const uint LogFlag = 1;
}

/// <summary>Device state: 0 direction u32, 4 phase u32; answered by a u64, whose low byte tells of an error.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct DeviceStatePayload(uint Direction, uint Phase)
{
    /// <summary>The back-end saves.</summary>
    public const uint Save = 0;

    /// <summary>The back-end loads.</summary>
    public const uint Load = 1;

    /// <summary>The only phase: the device is stopped.</summary>
    public const uint Stopped = 0;

    /// <summary>In a reply: the front-end's descriptor is used, none comes back.</summary>
    public const ulong NoDescriptor = 0x100;

    /// <summary>In a reply: an error, if not 0.</summary>
    public const ulong ErrorMask = 0xFF;

    /// <summary>In a reply: an error of no particular kind.</summary>
    public const ulong Error = 1;
}

/// <summary>Log: 0 size u64, 8 offset u64.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct LogPayload(ulong SizeBytes, ulong Offset);

/// <summary>Memory region: 0 guest address u64, 8 size u64, 16 user address u64, 24 mmap offset u64.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct MemoryRegionPayload(ulong GuestAddress, ulong SizeBytes, ulong UserAddress, ulong MmapOffset)
{
    /// <summary>Bytes of a region.</summary>
    public const int Bytes = 32;
}

/// <summary>Single memory region: 0 padding u64, 8 region.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct SingleMemoryRegionPayload(ulong Padding, MemoryRegionPayload Region);

/// <summary>Head of a memory table: 0 number of regions u32, 4 padding u32; then the regions.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct MemoryTablePayload(uint Count, uint Padding)
{
    /// <summary>Most regions of a table.</summary>
    public const int MaxRegions = 8;

    /// <summary>Bytes of the head.</summary>
    public const int Bytes = 8;
}

/// <summary>Head of a configuration message: 0 offset u32, 4 size u32, 8 flags u32; then the bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct ConfigPayload(uint Offset, uint SizeBytes, uint Flags)
{
    /// <summary>Bytes of the head.</summary>
    public const int Bytes = 12;

    /// <summary>Flag of SET_CONFIG: the front-end restores the space after a migration.</summary>
    public const uint Migration = 1;
}

/// <summary>In-flight region: 0 mmap size u64, 8 mmap offset u64, 16 queues u16, 18 queue size u16, 20 padding u32.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct InflightPayload(ulong MmapSizeBytes, ulong MmapOffset, ushort QueueCount, ushort QueueSize, uint Padding)
{
    /// <summary>Bytes of the layout.</summary>
    public const int Bytes = 24;
}

/// <summary>The u64 of SET_VRING_KICK, CALL and ERR: bits 0 to 7 the index, bit 8 no descriptor.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct VringDescriptorPayload(ulong Value)
{
    private const ulong NoDescriptorBit = 1 << 8;

    /// <summary>Builds the value.</summary>
    public VringDescriptorPayload(int index, bool hasDescriptor)
        : this((uint)index | (hasDescriptor ? 0 : NoDescriptorBit))
    {
    }

    /// <summary>The ring's index.</summary>
    public int Index => (int)(Value & 0xFF);

    /// <summary>Whether a descriptor comes with the message.</summary>
    public bool HasDescriptor => (Value & NoDescriptorBit) == 0;
}

/// <summary>What a translation message is about.</summary>
public enum IotlbMessageType : byte
{
    /// <summary>The back-end lacks a translation.</summary>
    Miss = 1,

    /// <summary>The front-end tells one.</summary>
    Update = 2,

    /// <summary>The front-end withdraws a range.</summary>
    Invalidate = 3,

    /// <summary>The back-end met one that does not allow what the driver asked for.</summary>
    AccessFail = 4,
}

/// <summary>Translation: 0 iova u64, 8 size u64, 16 user address u64, 24 permission u8, 25 type u8, 26 padding.</summary>
[StructLayout(LayoutKind.Sequential, Size = Bytes)]
public readonly record struct IotlbPayload(
    ulong Iova, ulong SizeBytes, ulong UserAddress, byte Permission, IotlbMessageType Type)
{
    /// <summary>Bytes of the layout.</summary>
    public const int Bytes = 32;
}

/// <summary>Head of the shared memory configuration: 0 number of regions u32, 4 padding u32; then 256 sizes u64.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct ShmemConfigPayload(uint Count, uint Padding)
{
    /// <summary>Sizes that follow, by the region's number; 0 where there is none.</summary>
    public const int MaxRegions = 256;

    /// <summary>Bytes of the head.</summary>
    public const int HeadBytes = 8;

    /// <summary>Bytes of the whole.</summary>
    public const int Bytes = HeadBytes + (MaxRegions * sizeof(ulong));
}

/// <summary>
/// Shared memory mapping: 0 region u8, 1 padding, 8 offset in the file u64, 16 offset in the region u64, 24 length u64,
/// 32 flags u64 (bit 0: writable).
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct ShmemMapPayload(
    byte Region, ulong FileOffset, ulong RegionOffset, ulong Length, ulong Flags)
{
    /// <summary>Bytes of the layout.</summary>
    public const int Bytes = 40;

    /// <summary>The driver may write.</summary>
    public const ulong Writable = 1;
}

/// <summary>Vring area: 0 ring and flag as <see cref="VringDescriptorPayload"/>, 8 size u64, 16 offset u64.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct VringAreaPayload(ulong Value, ulong SizeBytes, ulong Offset)
{
    /// <summary>Bytes of the layout.</summary>
    public const int Bytes = 24;
}
