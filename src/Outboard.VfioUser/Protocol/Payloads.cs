// Payload layouts, vfio-user "Protocol Specification": C structures in the host's byte order. Offsets are counted from
// the end of the header.
using System.Runtime.InteropServices;

namespace Outboard.VfioUser.Protocol;

/// <summary>VERSION: 0 major u16, 2 minor u16; then JSON with a terminating zero.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct VersionPayload(ushort Major, ushort Minor)
{
    /// <summary>Bytes before the JSON.</summary>
    public const int Bytes = 4;
}

/// <summary>DMA_MAP: 0 argsz u32, 4 flags u32, 8 offset u64, 16 address u64, 24 size u64.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct DmaMapPayload(uint Argsz, DmaMapFlags Flags, ulong Offset, ulong Address, ulong SizeBytes)
{
    /// <summary>Bytes.</summary>
    public const int Bytes = 32;
}

/// <summary>What the server may do with a window, and how.</summary>
[Flags]
public enum DmaMapFlags : uint
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>It may be read.</summary>
    Read = 1,

    /// <summary>It may be written.</summary>
    Write = 2,

    /// <summary>The descriptor is to be mapped.</summary>
    Mmap = 4,

    /// <summary>The descriptor is to be read and written as a file.</summary>
    FileIo = 8,

    /// <summary>All that are defined.</summary>
    Known = Read | Write | Mmap | FileIo,
}

/// <summary>DMA_UNMAP: 0 argsz u32, 4 flags u32, 8 address u64, 16 size u64.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct DmaUnmapPayload(uint Argsz, DmaUnmapFlags Flags, ulong Address, ulong SizeBytes)
{
    /// <summary>Bytes.</summary>
    public const int Bytes = 24;
}

/// <summary>
/// What follows an unmap with <see cref="DmaUnmapFlags.GetDirtyBitmap"/>: 0 page size u64, 8 bytes of the bitmap u64; in
/// the reply the bitmap comes after it, bit n for page n.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct DirtyBitmapPayload(ulong PageBytes, ulong SizeBytes)
{
    /// <summary>Bytes before the bitmap.</summary>
    public const int Bytes = 16;
}

/// <summary>What to unmap.</summary>
[Flags]
public enum DmaUnmapFlags : uint
{
    /// <summary>The window at exactly this address, of exactly this size.</summary>
    None = 0,

    /// <summary>And report its dirty pages, as libvfio-user has it; not together with All.</summary>
    GetDirtyBitmap = 1,

    /// <summary>All windows; address and size are 0.</summary>
    All = 2,
}

/// <summary>DEVICE_GET_INFO: 0 argsz u32, 4 flags u32, 8 regions u32, 12 interrupt kinds u32.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct DeviceInfoPayload(uint Argsz, uint Flags, uint RegionCount, uint IrqCount)
{
    /// <summary>Bytes.</summary>
    public const int Bytes = 16;

    /// <summary>Flag: DEVICE_RESET works.</summary>
    public const uint CanReset = 1;

    /// <summary>Flag: it is a PCI function.</summary>
    public const uint IsPci = 2;
}

/// <summary>
/// DEVICE_GET_REGION_INFO: 0 argsz u32, 4 flags u32, 8 index u32, 12 capabilities' offset u32, 16 size u64, 24 offset
/// of the region in its descriptor u64; then the capabilities.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct RegionInfoPayload(
    uint Argsz, RegionFlags Flags, uint Index, uint CapabilityOffset, ulong SizeBytes, ulong Offset)
{
    /// <summary>Bytes before the capabilities.</summary>
    public const int Bytes = 32;
}

/// <summary>What can be done with a region.</summary>
[Flags]
public enum RegionFlags : uint
{
    /// <summary>It is not there.</summary>
    None = 0,

    /// <summary>It can be read.</summary>
    Read = 1,

    /// <summary>It can be written.</summary>
    Write = 2,

    /// <summary>It can be mapped.</summary>
    Mmap = 4,

    /// <summary>Capabilities follow.</summary>
    Capabilities = 8,
}

/// <summary>Capability "sparse mmap": 0 id u16 (1), 2 version u16 (1), 4 next u32, 8 areas u32, 12 reserved u32; then areas.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct SparseMmapPayload(ushort Id, ushort Version, uint Next, uint AreaCount, uint Reserved)
{
    /// <summary>Bytes before the areas.</summary>
    public const int Bytes = 16;

    /// <summary>Bytes of an area: 0 offset in the region u64, 8 size u64.</summary>
    public const int AreaBytes = 16;

    /// <summary>The capability's id.</summary>
    public const ushort SparseMmapId = 1;
}

/// <summary>DEVICE_GET_REGION_IO_FDS: 0 argsz u32, 4 flags u32, 8 index u32, 12 count u32; then entries.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct RegionIoFdsPayload(uint Argsz, uint Flags, uint Index, uint Count)
{
    /// <summary>Bytes before the entries.</summary>
    public const int Bytes = 16;
}

/// <summary>
/// An entry for an eventfd: 0 offset u64, 8 size u64, 16 descriptor's index u32, 20 type u32 (0), 24 flags u32 (bit 0:
/// only this value), 28 padding u32, 32 value u64.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct IoEventFdEntry(
    ulong Offset, ulong SizeBytes, uint DescriptorIndex, uint Type, uint Flags, uint Padding, ulong Match)
{
    /// <summary>Bytes.</summary>
    public const int Bytes = 40;

    /// <summary>
    /// Bytes of an entry as libvfio-user has it: the value stands at 40, and for a shadow (<see cref="Shadow"/>) the
    /// index of the memory's descriptor at 28, the offset in it at 32.
    /// </summary>
    public const int WideBytes = 48;

    /// <summary>Type: an eventfd.</summary>
    public const uint Plain = 0;

    /// <summary>Type: an eventfd, before whose signal the value is left in memory; not in the specification.</summary>
    public const uint Shadow = 2;

    /// <summary>Flag: only writes of the value count (KVM_IOEVENTFD_FLAG_DATAMATCH).</summary>
    public const uint MatchesData = 1;
}

/// <summary>DEVICE_GET_IRQ_INFO: 0 argsz u32, 4 flags u32, 8 index u32, 12 count u32.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct IrqInfoPayload(uint Argsz, IrqFlags Flags, uint Index, uint Count)
{
    /// <summary>Bytes.</summary>
    public const int Bytes = 16;
}

/// <summary>Properties of interrupts.</summary>
[Flags]
public enum IrqFlags : uint
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>They can be bound to eventfds.</summary>
    EventFd = 1,

    /// <summary>They can be masked.</summary>
    Maskable = 2,

    /// <summary>They mask themselves when they occur.</summary>
    AutoMasked = 4,
}

/// <summary>DEVICE_SET_IRQS: 0 argsz u32, 4 flags u32, 8 index u32, 12 start u32, 16 count u32; then bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct SetIrqsPayload(uint Argsz, SetIrqsFlags Flags, uint Index, uint Start, uint Count)
{
    /// <summary>Bytes before the data.</summary>
    public const int Bytes = 20;
}

/// <summary>What to do to interrupts: one of the first three, and one of the others.</summary>
[Flags]
public enum SetIrqsFlags : uint
{
    /// <summary>Nothing; an error.</summary>
    None = 0,

    /// <summary>To all that are named.</summary>
    DataNone = 1,

    /// <summary>To those whose byte is not 0.</summary>
    DataBool = 2,

    /// <summary>Bind eventfds.</summary>
    DataEventFd = 4,

    /// <summary>Mask.</summary>
    Mask = 8,

    /// <summary>Unmask.</summary>
    Unmask = 0x10,

    /// <summary>Trigger.</summary>
    Trigger = 0x20,

    /// <summary>The kinds of data.</summary>
    AllData = DataNone | DataBool | DataEventFd,

    /// <summary>The actions.</summary>
    AllActions = Mask | Unmask | Trigger,
}

/// <summary>REGION_READ and REGION_WRITE: 0 offset u64, 8 region u32, 12 count u32; then the data.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct RegionAccessPayload(ulong Offset, uint Region, uint Count)
{
    /// <summary>Bytes before the data.</summary>
    public const int Bytes = 16;
}

/// <summary>DMA_READ and DMA_WRITE: 0 address u64, 8 count u64; then the data.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct DmaAccessPayload(ulong Address, ulong Count)
{
    /// <summary>Bytes before the data.</summary>
    public const int Bytes = 16;
}

/// <summary>REGION_WRITE_MULTI: 0 count u64; then entries.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct WriteMultiPayload(ulong Count)
{
    /// <summary>Bytes before the entries.</summary>
    public const int Bytes = 8;

    /// <summary>Most entries that are taken; QEMU sends up to 200.</summary>
    public const int MaxWrites = 4096;
}

/// <summary>An entry: 0 offset u64, 8 region u32, 12 count u32 (up to 8), 16 data, 8 bytes.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct WriteMultiEntry(ulong Offset, uint Region, uint Count, ulong Data)
{
    /// <summary>Bytes.</summary>
    public const int Bytes = 24;

    /// <summary>Most data bytes of an entry.</summary>
    public const int MaxDataBytes = 8;

    /// <summary>Where the data begins in an entry.</summary>
    public const int DataOffset = 16;
}

/// <summary>DEVICE_FEATURE: 0 argsz u32, 4 flags u32; then the feature's data.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct FeaturePayload(uint Argsz, uint Flags)
{
    /// <summary>Bytes before the data.</summary>
    public const int Bytes = 8;

    /// <summary>Bits 0 to 15: the feature.</summary>
    public const uint FeatureMask = 0xffff;

    /// <summary>Flag: get it.</summary>
    public const uint Get = 1 << 16;

    /// <summary>Flag: set it.</summary>
    public const uint Set = 1 << 17;

    /// <summary>Flag: ask whether the rest would work.</summary>
    public const uint Probe = 1 << 18;

    /// <summary>The feature.</summary>
    public DeviceFeature Feature => (DeviceFeature)(Flags & FeatureMask);
}

/// <summary>Features, numbered as VFIO numbers them.</summary>
public enum DeviceFeature : uint
{
    /// <summary>GET: 0 flags u64: bit 0 stop and copy, bit 2 pre-copy.</summary>
    Migration = 1,

    /// <summary>GET and SET: 0 state u32, 4 descriptor u32 (not used).</summary>
    MigrationDeviceState = 2,

    /// <summary>SET: 0 page size u64, 8 ranges u32, 12 reserved u32; then ranges of 0 address u64, 8 length u64.</summary>
    DmaLoggingStart = 6,

    /// <summary>SET, without data.</summary>
    DmaLoggingStop = 7,

    /// <summary>GET: 0 address u64, 8 length u64, 16 page size u64; the reply adds a bitmap of u64.</summary>
    DmaLoggingReport = 8,
}

/// <summary>State of MIG_DEVICE_STATE: 0 state u32, 4 descriptor u32.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct DeviceStatePayload(uint State, uint Descriptor)
{
    /// <summary>Bytes.</summary>
    public const int Bytes = 8;
}

/// <summary>Head of DMA_LOGGING_START: 0 page size u64, 8 ranges u32, 12 reserved u32.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct LoggingStartPayload(ulong PageBytes, uint RangeCount, uint Reserved)
{
    /// <summary>Bytes before the ranges.</summary>
    public const int Bytes = 16;

    /// <summary>Bytes of a range.</summary>
    public const int RangeBytes = 16;
}

/// <summary>Head of DMA_LOGGING_REPORT: 0 address u64, 8 length u64, 16 page size u64.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct LoggingReportPayload(ulong Address, ulong SizeBytes, ulong PageBytes)
{
    /// <summary>Bytes before the bitmap.</summary>
    public const int Bytes = 24;
}

/// <summary>MIG_DATA_READ and MIG_DATA_WRITE: 0 argsz u32, 4 size u32; then the data.</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct MigrationDataPayload(uint Argsz, uint SizeBytes)
{
    /// <summary>Bytes before the data.</summary>
    public const int Bytes = 8;
}
