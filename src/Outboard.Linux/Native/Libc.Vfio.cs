// VFIO: the ioctls of linux/vfio.h by which a process drives a PCI device.
using System.Runtime.InteropServices;

namespace Outboard.Linux.Native;

internal static partial class Libc
{
    internal const nuint VFIO_GET_API_VERSION = 0x3b64;
    internal const nuint VFIO_CHECK_EXTENSION = 0x3b65;
    internal const nuint VFIO_SET_IOMMU = 0x3b66;
    internal const nuint VFIO_GROUP_GET_STATUS = 0x3b67;
    internal const nuint VFIO_GROUP_SET_CONTAINER = 0x3b68;
    internal const nuint VFIO_GROUP_GET_DEVICE_FD = 0x3b6a;
    internal const nuint VFIO_DEVICE_GET_INFO = 0x3b6b;
    internal const nuint VFIO_DEVICE_GET_REGION_INFO = 0x3b6c;
    internal const nuint VFIO_DEVICE_GET_IRQ_INFO = 0x3b6d;
    internal const nuint VFIO_DEVICE_SET_IRQS = 0x3b6e;
    internal const nuint VFIO_DEVICE_RESET = 0x3b6f;
    internal const nuint VFIO_IOMMU_MAP_DMA = 0x3b71;
    internal const nuint VFIO_IOMMU_UNMAP_DMA = 0x3b72;

    internal const int VFIO_TYPE1v2_IOMMU = 3;
    internal const int VFIO_NOIOMMU_IOMMU = 8;
    internal const uint VFIO_GROUP_VIABLE = 1;
    internal const uint VFIO_REGION_MMAP = 4;
    internal const uint VFIO_REGION_CAPS = 8;
    internal const uint VFIO_DMA_READ = 1;
    internal const uint VFIO_DMA_WRITE = 2;
    internal const uint VFIO_IRQ_DATA_NONE = 1;
    internal const uint VFIO_IRQ_DATA_EVENTFD = 4;
    internal const uint VFIO_IRQ_TRIGGER = 32;

    /// <summary>0 argsz u32, 4 flags u32.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct VfioGroupStatus
    {
        internal uint Argsz;
        internal uint Flags;
    }

    /// <summary>0 argsz u32, 4 flags u32, 8 index u32, 12 capabilities u32, 16 size u64, 24 offset u64.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct VfioRegionInfo
    {
        internal uint Argsz;
        internal uint Flags;
        internal uint Index;
        internal uint Capabilities;
        internal ulong SizeBytes;
        internal ulong Offset;
    }

    /// <summary>0 argsz u32, 4 flags u32, 8 index u32, 12 count u32.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct VfioIrqInfo
    {
        internal uint Argsz;
        internal uint Flags;
        internal uint Index;
        internal uint Count;
    }

    /// <summary>0 argsz u32, 4 flags u32, 8 address here u64, 16 address of the device u64, 24 size u64.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct VfioDmaMap
    {
        internal uint Argsz;
        internal uint Flags;
        internal ulong Address;
        internal ulong DeviceAddress;
        internal ulong SizeBytes;
    }

    /// <summary>0 argsz u32, 4 flags u32, 8 address of the device u64, 16 size u64.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct VfioDmaUnmap
    {
        internal uint Argsz;
        internal uint Flags;
        internal ulong DeviceAddress;
        internal ulong SizeBytes;
    }

    [LibraryImport("libc", EntryPoint = "ioctl", SetLastError = true)]
    internal static partial int IoctlValue(int fd, nuint request, nint value);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial nint pread(int fd, void* buffer, nuint count, long offset);
}
