// Shared memory regions of a device, virtio-v1.3 "2.10 Shared Memory Regions": address ranges that the driver sees,
// into which the device maps parts of memory objects while it runs; and doorbell pages for its queues. Which way a
// mapping takes to the driver is the transport's business (SharedRegionHost).
// Not here: regions that the driver side maps by itself (virtio-fs over other transports).
using Outboard.Memory;

namespace Outboard.Virtio;

/// <summary>A region that a device declares.</summary>
/// <param name="Id">Its number, unique in the device.</param>
/// <param name="SizeBytes">Its size: whole pages, not 0. It never changes.</param>
public readonly record struct SharedRegion(byte Id, ulong SizeBytes)
{
    /// <summary>
    /// What the region shows from beginning to end, always; null when parts are mapped while the device runs. A client
    /// of a PCI function can map such a region by itself, since a file cannot change behind its mapping. Stays the
    /// device's; it has all of the region's bytes. vhost-user shows such a region as empty.
    /// </summary>
    public FileSharedMemory? Memory { get; init; }

    /// <summary>Where the region begins in <see cref="Memory"/>: a page boundary.</summary>
    public ulong MemoryOffset { get; init; }
}

/// <summary>A part of a region.</summary>
/// <param name="Region">The region's number.</param>
/// <param name="Offset">First byte in the region; a page boundary.</param>
/// <param name="Length">Bytes; whole pages, not 0.</param>
public readonly record struct SharedRegionPart(byte Region, ulong Offset, ulong Length);

/// <summary>
/// What a transport does for the regions of the device that it serves. From any thread, while a queue runs.
/// </summary>
public abstract class SharedRegionHost
{
    /// <summary>Maps a part of a memory object into a region.</summary>
    /// <returns>False when the other side refuses.</returns>
    /// <exception cref="IOException">Nobody will answer, or the transport has no way to do it.</exception>
    public abstract Task<bool> MapAsync(SharedRegionPart part, SharedMemory memory, ulong memoryOffset, bool writable);

    /// <summary>Unmaps exactly what was mapped.</summary>
    /// <returns>False when the other side refuses.</returns>
    /// <exception cref="IOException">Nobody will answer, or the transport has no way to do it.</exception>
    public abstract Task<bool> UnmapAsync(SharedRegionPart part);

    /// <summary>Offers a page that the driver writes to instead of kicking; null takes it back.</summary>
    /// <returns>False when the other side refuses.</returns>
    /// <exception cref="IOException">Nobody will answer, or the transport has no way to do it.</exception>
    public abstract Task<bool> OfferDoorbellAsync(int queue, SharedMemory? page, ulong offset);
}

/// <summary>
/// The mappings of a device's regions: within bounds, on page boundaries, without overlaps. Both sides keep one.
/// From any thread.
/// </summary>
public sealed class SharedRegionMap
{
    /// <summary>
    /// Mappings at one time: each takes an entry of the other side's memory map, of which Linux gives a process 65530.
    /// </summary>
    public const int MaxMappings = 4096;

    private static readonly ulong s_page = (ulong)Environment.SystemPageSize;

    private readonly Lock _lock = new();
    private readonly Dictionary<byte, ulong> _sizes;
    private readonly SortedDictionary<(byte Region, ulong Offset), ulong> _mapped = [];

    /// <summary>Begins with nothing mapped.</summary>
    public SharedRegionMap(IEnumerable<SharedRegion> regions) =>
        _sizes = regions.ToDictionary(region => region.Id, region => region.SizeBytes);

    /// <summary>Mappings there are.</summary>
    public int Count
    {
        get
        {
            lock (_lock)
            {
                return _mapped.Count;
            }
        }
    }

    /// <summary>Notes a mapping.</summary>
    /// <returns>What is wrong with it; null when it was noted.</returns>
    public string? TryAdd(SharedRegionPart part)
    {
        if (!_sizes.TryGetValue(part.Region, out ulong size))
        {
            return $"there is no region {part.Region}";
        }

        if ((part.Offset | part.Length) % s_page != 0 || part.Length == 0)
        {
            return $"0x{part.Length:x} bytes at 0x{part.Offset:x} are not whole pages";
        }

        if (part.Offset > size || part.Length > size - part.Offset)
        {
            return $"0x{part.Length:x} bytes at 0x{part.Offset:x} leave a region of 0x{size:x}";
        }

        lock (_lock)
        {
            foreach (((byte region, ulong offset), ulong length) in _mapped)
            {
                if (region == part.Region && part.Offset < offset + length && offset < part.Offset + part.Length)
                {
                    return $"0x{part.Offset:x} is mapped already";
                }
            }

            if (_mapped.Count >= MaxMappings)
            {
                return $"{MaxMappings} parts are mapped already";
            }

            _mapped.Add((part.Region, part.Offset), part.Length);
            return null;
        }
    }

    /// <summary>Forgets a mapping, which must be named as it was made.</summary>
    /// <returns>False when there is no such mapping.</returns>
    public bool TryRemove(SharedRegionPart part)
    {
        lock (_lock)
        {
            return _mapped.TryGetValue((part.Region, part.Offset), out ulong length) && length == part.Length
                && _mapped.Remove((part.Region, part.Offset));
        }
    }

    /// <summary>Forgets all: the other side has reset the device.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            _mapped.Clear();
        }
    }
}
