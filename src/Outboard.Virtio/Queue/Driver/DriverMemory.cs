// Guest memory as a driver without a guest has it: one sealed memfd, from which rings and buffers are allocated.
// Allocation is a bump of an offset: what a driver allocates lives as long as the memory.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Memory;

namespace Outboard.Virtio.Queue.Driver;

/// <summary>A piece of driver memory: where the device finds it, and where it is here.</summary>
public readonly record struct DriverBuffer(ulong GuestAddress, IoSegment Memory)
{
    /// <summary>Bytes.</summary>
    public uint Length => (uint)Memory.Length;

    /// <summary>The bytes.</summary>
    public Span<byte> Span => Memory.Span;

    /// <summary>A part of this buffer.</summary>
    public DriverBuffer Slice(uint offset, uint length) => new(GuestAddress + offset, Memory.Slice(offset, length));
}

/// <summary>Shared memory for a driver. Not thread-safe while allocating.</summary>
public sealed class DriverMemory : IDisposable
{
    /// <summary>Bytes of a huge page, as x64 and most of the others have it: the most that is contiguous.</summary>
    public const ulong HugePageBytes = 2UL << 20;

    private readonly FileSharedMemory _file;
    private readonly MemoryRegion _region;
    private ulong _allocated;

    /// <summary>Creates memory.</summary>
    /// <param name="sizeBytes">Size in bytes; rounded up to whole pages.</param>
    /// <param name="guestAddress">Guest physical address of the first byte.</param>
    /// <param name="hugePages">Back it with huge pages.</param>
    /// <param name="busAddress">
    /// Address of the first byte as the device is told it, when an IOMMU stands between; its guest physical address
    /// otherwise.
    /// </param>
    public DriverMemory(
        ulong sizeBytes, ulong guestAddress = 0x1_0000_0000, bool hugePages = false, ulong? busAddress = null)
        : this(Create(sizeBytes, hugePages), 0, null, _ => (guestAddress, busAddress ?? guestAddress))
    {
    }

    /// <summary>Takes a part of a file as memory, as a machine does whose memory lies in one.</summary>
    /// <param name="file">The file; owned from now on.</param>
    /// <param name="offset">Where the memory begins in it; a page boundary.</param>
    /// <param name="sizeBytes">Bytes; whole pages.</param>
    /// <param name="guestAddress">Guest physical address of the first byte.</param>
    public DriverMemory(FileSharedMemory file, ulong offset, ulong sizeBytes, ulong guestAddress)
        : this(file, offset, sizeBytes, _ => (guestAddress, guestAddress))
    {
    }

    private DriverMemory(
        FileSharedMemory file, ulong offset, ulong? sizeBytes, Func<IoSegment, (ulong Guest, ulong Bus)> addresses)
    {
        ArgumentNullException.ThrowIfNull(file);
        _file = file;
        FileOffset = offset;
        MemoryMapping? mapping = null;
        try
        {
            SizeBytes = sizeBytes ?? file.SizeBytes;
            mapping = _file.Map(offset, SizeBytes);
            UserAddress = mapping.Segment.Address;
            (GuestAddress, BusAddress) = addresses(mapping.Segment);
            _region = new MemoryRegion(BusAddress, UserAddress, mapping);
            Memory = GuestMemory.Create([_region]);
        }
        catch
        {
            mapping?.Dispose();
            _file.Dispose();
            throw;
        }
    }

    /// <summary>Creates memory whose addresses are physical ones, for a device that nobody translates for.</summary>
    /// <exception cref="IOException">There is no huge page, or this process may not know where it lies.</exception>
    public static DriverMemory CreatePhysical() => new(Create(HugePageBytes, hugePages: true), 0, null, segment =>
    {
        ulong address = PhysicalPlace.Of(segment);
        return (address, address);
    });

    /// <summary>Guest physical address of the first byte.</summary>
    public ulong GuestAddress { get; }

    /// <summary>Address of the first byte in what is written into rings.</summary>
    public ulong BusAddress { get; }

    /// <summary>Address in this process, as a vhost-user front-end tells it.</summary>
    public ulong UserAddress { get; }

    /// <summary>Bytes.</summary>
    public ulong SizeBytes { get; }

    /// <summary>All of the memory, as it lies in this process.</summary>
    public IoSegment Segment => _region.Segment;

    /// <summary>The shared memory object, to be passed to the device.</summary>
    public FileSharedMemory File => _file;

    /// <summary>Where the memory begins in <see cref="File"/>.</summary>
    public ulong FileOffset { get; }

    /// <summary>The memory for translation of bus addresses.</summary>
    public GuestMemory Memory { get; }

    /// <summary>Allocates a piece.</summary>
    /// <param name="bytes">Bytes, not 0.</param>
    /// <param name="alignment">A power of two.</param>
    /// <exception cref="GuestMemoryException">The memory is used up.</exception>
    public DriverBuffer Allocate(uint bytes, uint alignment = 64)
    {
        ulong start = (_allocated + alignment - 1) & ~((ulong)alignment - 1);
        if (bytes > SizeBytes || start > SizeBytes - bytes)
        {
            throw new GuestMemoryException($"driver memory of {SizeBytes} bytes is used up ({bytes} more wanted)");
        }

        _allocated = start + bytes;
        return new DriverBuffer(BusAddress + start, _region.Segment.Slice((long)start, bytes));
    }

    private static FileSharedMemory Create(ulong sizeBytes, bool hugePages)
    {
        ulong unit = hugePages ? HugePageBytes : (ulong)Environment.SystemPageSize;
        return new FileSharedMemory(
            MemFd.Create("outboard-driver-memory", (sizeBytes + unit - 1) / unit * unit, hugePages));
    }

    /// <summary>Unmaps the memory. No device uses it any more.</summary>
    public void Dispose()
    {
        _region.Dispose();
        _file.Dispose();
    }
}
