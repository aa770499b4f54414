// A PCI device that the kernel hands to this process (vfio-pci), by its group: behind an IOMMU, or without one where
// the administrator allows that (enable_unsafe_noiommu_mode), and the device then reaches all of memory.
// Not here: iommufd, devices that are not PCI, migration.
using System.Globalization;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Linux.Native;

namespace Outboard.Linux.Vfio;

/// <summary>A part of a device.</summary>
/// <param name="SizeBytes">Bytes; 0 when it is not there.</param>
/// <param name="IsMappable">Whether all of it can be mapped.</param>
/// <param name="Offset">Where it lies in the device's file.</param>
public readonly record struct VfioRegion(ulong SizeBytes, bool IsMappable, ulong Offset);

/// <summary>A PCI device in the hands of this process. Members may be called from any thread.</summary>
public sealed class VfioDevice : IDisposable
{
    private const string DeviceFolder = "/sys/bus/pci/devices";
    private const int RegionCount = 9;

    private readonly FileDescriptor _container;
    private readonly FileDescriptor _group;
    private readonly FileDescriptor _device;
    private readonly VfioRegion[] _regions = new VfioRegion[RegionCount];

    private VfioDevice(FileDescriptor container, FileDescriptor group, FileDescriptor device, bool hasIommu)
    {
        _container = container;
        _group = group;
        _device = device;
        HasIommu = hasIommu;
        for (uint i = 0; i < RegionCount; i++)
        {
            _regions[i] = GetRegion(i);
        }
    }

    /// <summary>Whether the device reaches nothing but what <see cref="MapDma"/> gives it.</summary>
    public bool HasIommu { get; }

    /// <summary>Which file the device is.</summary>
    public FileIdentity Identity => _device.Identity;

    /// <summary>Takes hold of a device.</summary>
    /// <param name="address">Its address as the kernel writes it, with or without the domain: 0000:00:03.0.</param>
    /// <exception cref="LinuxException">It is not there, or not bound to vfio-pci, or not viable.</exception>
    public static VfioDevice Open(string address)
    {
        ArgumentException.ThrowIfNullOrEmpty(address);
        string full = address.Count(c => c == ':') == 1 ? $"0000:{address}" : address;
        string folder = Path.Combine(DeviceFolder, full);
        if (full.Contains('/', StringComparison.Ordinal) || !Directory.Exists(folder))
        {
            throw new LinuxException("open", Errno.NoEntry, $"there is no PCI device {full}");
        }

        string? link = new DirectoryInfo(Path.Combine(folder, "iommu_group")).LinkTarget;
        if (link is null)
        {
            throw new LinuxException(
                "open", Errno.NoEntry,
                $"{full} belongs to no group: give the machine an IOMMU, or set enable_unsafe_noiommu_mode of vfio, "
                + "and bind the device to vfio-pci");
        }

        string number = Path.GetFileName(link);
        string path = $"/dev/vfio/{number}";
        bool hasIommu = File.Exists(path);
        FileDescriptor container = OpenPath("/dev/vfio/vfio", "load the module vfio-pci");
        FileDescriptor? group = null;
        try
        {
            group = hasIommu
                ? OpenPath(path, $"bind {full} to vfio-pci")
                : OpenPath($"/dev/vfio/noiommu-{number}", $"bind {full} to vfio-pci, and run as root (CAP_SYS_RAWIO)");
            FileDescriptor device = Attach(container, group, full, hasIommu);
            return new VfioDevice(container, group, device, hasIommu);
        }
        catch
        {
            group?.Dispose();
            container.Dispose();
            throw;
        }
    }

    /// <summary>What is known of a region: BARs 0 to 5, the configuration space 7.</summary>
    public VfioRegion Region(int index) => (uint)index < RegionCount ? _regions[index] : default;

    /// <summary>Reads a region.</summary>
    /// <exception cref="LinuxException">It is shorter, or not there.</exception>
    // SAFETY: the kernel writes at most the span's length of memory that is fixed meanwhile.
    public unsafe void Read(int region, ulong offset, Span<byte> destination)
    {
        long at = Place(region, offset, destination.Length);
        fixed (byte* target = destination)
        {
            nint moved = Libc.pread(_device.Number, target, (nuint)destination.Length, at);
            int errno = Libc.LastError();
            Require(moved == destination.Length, "pread", moved < 0 ? errno : Errno.InputOutput);
        }
    }

    /// <summary>Writes a region.</summary>
    /// <exception cref="LinuxException">It is shorter, or not there.</exception>
    // SAFETY: the kernel reads the span's length of memory that is fixed meanwhile.
    public unsafe void Write(int region, ulong offset, ReadOnlySpan<byte> source)
    {
        long at = Place(region, offset, source.Length);
        fixed (byte* bytes = source)
        {
            nint moved = Libc.pwrite(_device.Number, bytes, (nuint)source.Length, at);
            int errno = Libc.LastError();
            Require(moved == source.Length, "pwrite", moved < 0 ? errno : Errno.InputOutput);
        }
    }

    /// <summary>Maps a part of a region.</summary>
    /// <exception cref="LinuxException">It cannot be mapped.</exception>
    public MemoryMapping Map(int region, ulong offset, ulong length, bool writable = true)
    {
        VfioRegion info = Region(region);
        return info.IsMappable && offset <= info.SizeBytes && length <= info.SizeBytes - offset
            ? MemoryMapping.Map(_device, info.Offset + offset, length, writable)
            : throw new LinuxException(
                "mmap", Errno.InvalidArgument, $"{length} bytes at {offset} of region {region} cannot be mapped");
    }

    /// <summary>Interrupt vectors of a kind: 0 pin, 1 MSI, 2 MSI-X.</summary>
    // SAFETY: the kernel reads and writes one struct on the stack.
    public unsafe int CountVectors(int kind)
    {
        Libc.VfioIrqInfo info = new() { Argsz = (uint)sizeof(Libc.VfioIrqInfo), Index = (uint)kind };
        int result = Libc.ioctl(_device.Number, Libc.VFIO_DEVICE_GET_IRQ_INFO, &info);
        return result < 0 ? 0 : (int)info.Count;
    }

    /// <summary>Has vectors signal eventfds, from the first one on; none lets go of all.</summary>
    /// <param name="kind">0 pin, 1 MSI, 2 MSI-X.</param>
    /// <param name="events">An eventfd for each vector, or null for one that nobody listens to.</param>
    /// <exception cref="LinuxException">The device has not so many.</exception>
    // SAFETY: the kernel reads the header and as many numbers as it counts, all of one array that is fixed.
    public unsafe void BindVectors(int kind, IReadOnlyList<EventFd?> events)
    {
        ArgumentNullException.ThrowIfNull(events);
        uint data = events.Count == 0 ? Libc.VFIO_IRQ_DATA_NONE : Libc.VFIO_IRQ_DATA_EVENTFD;
        const int header = 5;
        int[] set = new int[header + events.Count];
        set[0] = set.Length * sizeof(int);
        set[1] = (int)(data | Libc.VFIO_IRQ_TRIGGER);
        set[2] = kind;
        set[4] = events.Count;
        for (int i = 0; i < events.Count; i++)
        {
            set[header + i] = events[i]?.Descriptor.Number ?? -1;
        }

        fixed (int* start = set)
        {
            int result = Libc.ioctl(_device.Number, Libc.VFIO_DEVICE_SET_IRQS, start);
            int errno = Libc.LastError();
            Require(result == 0, "VFIO_DEVICE_SET_IRQS", errno);
        }
    }

    /// <summary>Lets the device reach memory. Without an IOMMU it reaches all there is anyway.</summary>
    /// <param name="deviceAddress">Where the device finds it.</param>
    /// <param name="memory">The memory, whole pages; it stays mapped until <see cref="UnmapDma"/>.</param>
    // SAFETY: the kernel reads one struct on the stack; the pages are pinned by the kernel.
    public unsafe void MapDma(ulong deviceAddress, IoSegment memory)
    {
        if (HasIommu)
        {
            Libc.VfioDmaMap map = new()
            {
                Argsz = (uint)sizeof(Libc.VfioDmaMap),
                Flags = Libc.VFIO_DMA_READ | Libc.VFIO_DMA_WRITE,
                Address = memory.Address,
                DeviceAddress = deviceAddress,
                SizeBytes = (ulong)memory.Length,
            };
            int result = Libc.ioctl(_container.Number, Libc.VFIO_IOMMU_MAP_DMA, &map);
            int errno = Libc.LastError();
            Require(result == 0, "VFIO_IOMMU_MAP_DMA", errno);
        }
    }

    /// <summary>Takes memory away from the device.</summary>
    // SAFETY: the kernel reads and writes one struct on the stack.
    public unsafe void UnmapDma(ulong deviceAddress, ulong sizeBytes)
    {
        if (HasIommu)
        {
            Libc.VfioDmaUnmap unmap = new()
            {
                Argsz = (uint)sizeof(Libc.VfioDmaUnmap),
                DeviceAddress = deviceAddress,
                SizeBytes = sizeBytes,
            };
            int result = Libc.ioctl(_container.Number, Libc.VFIO_IOMMU_UNMAP_DMA, &unmap);
            int errno = Libc.LastError();
            Require(result == 0, "VFIO_IOMMU_UNMAP_DMA", errno);
        }
    }

    /// <summary>Resets the device.</summary>
    /// <returns>False when it cannot be reset by the bus.</returns>
    public bool Reset() => Libc.IoctlValue(_device.Number, Libc.VFIO_DEVICE_RESET, 0) == 0;

    /// <summary>Gives the device back to the kernel.</summary>
    public void Dispose()
    {
        _device.Dispose();
        _group.Dispose();
        _container.Dispose();
    }

    private static FileDescriptor OpenPath(string path, string remedy)
    {
        int number = Libc.open(path, Libc.O_RDWR | Libc.O_CLOEXEC, 0);
        int errno = Libc.LastError();
        return number >= 0
            ? new FileDescriptor(number)
            : throw new LinuxException("open", errno, $"{path}: {remedy}");
    }

    // SAFETY: the kernel reads and writes one struct, one number or one text on the stack or fixed.
    private static unsafe FileDescriptor Attach(
        FileDescriptor container, FileDescriptor group, string address, bool hasIommu)
    {
        Libc.VfioGroupStatus status = new() { Argsz = (uint)sizeof(Libc.VfioGroupStatus) };
        int result = Libc.ioctl(group.Number, Libc.VFIO_GROUP_GET_STATUS, &status);
        int errno = Libc.LastError();
        Require(result == 0, "VFIO_GROUP_GET_STATUS", errno);
        if ((status.Flags & Libc.VFIO_GROUP_VIABLE) == 0)
        {
            throw new LinuxException(
                "VFIO_GROUP_GET_STATUS", Errno.InvalidArgument,
                $"{address}: bind every device of its group to vfio-pci");
        }

        int containerNumber = container.Number;
        result = Libc.ioctl(group.Number, Libc.VFIO_GROUP_SET_CONTAINER, &containerNumber);
        errno = Libc.LastError();
        Require(result == 0, "VFIO_GROUP_SET_CONTAINER", errno);
        int type = hasIommu ? Libc.VFIO_TYPE1v2_IOMMU : Libc.VFIO_NOIOMMU_IOMMU;
        result = Libc.IoctlValue(container.Number, Libc.VFIO_SET_IOMMU, type);
        errno = Libc.LastError();
        Require(result == 0, "VFIO_SET_IOMMU", errno, "load the module vfio_iommu_type1");
        byte[] name = [.. System.Text.Encoding.ASCII.GetBytes(address), 0];
        fixed (byte* text = name)
        {
            int number = Libc.ioctl(group.Number, Libc.VFIO_GROUP_GET_DEVICE_FD, text);
            errno = Libc.LastError();
            Require(number >= 0, "VFIO_GROUP_GET_DEVICE_FD", errno, address);
            return new FileDescriptor(number);
        }
    }

    // SAFETY: the kernel reads and writes one struct on the stack.
    private unsafe VfioRegion GetRegion(uint index)
    {
        Libc.VfioRegionInfo info = new() { Argsz = (uint)sizeof(Libc.VfioRegionInfo), Index = index };
        if (Libc.ioctl(_device.Number, Libc.VFIO_DEVICE_GET_REGION_INFO, &info) != 0)
        {
            return default;
        }

        // With capabilities the kernel tells which parts can be mapped: a table of vectors lies among them.
        bool isMappable = (info.Flags & (Libc.VFIO_REGION_MMAP | Libc.VFIO_REGION_CAPS)) == Libc.VFIO_REGION_MMAP;
        return new VfioRegion(info.SizeBytes, isMappable, info.Offset);
    }

    private long Place(int region, ulong offset, int length)
    {
        VfioRegion info = Region(region);
        return offset <= info.SizeBytes && (ulong)length <= info.SizeBytes - offset
            ? (long)(info.Offset + offset)
            : throw new LinuxException(
                "pread", Errno.InvalidArgument,
                string.Create(CultureInfo.InvariantCulture, $"{length} bytes at {offset} of region {region}"));
    }

    private static void Require(bool isDone, string call, int errno, string? subject = null)
    {
        if (!isDone)
        {
            throw new LinuxException(call, errno, subject);
        }
    }
}
