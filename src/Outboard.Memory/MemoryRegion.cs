// One region of guest memory: where the guest sees it, where the front-end sees it, where it is mapped here.
using Outboard.Linux;
using Outboard.Linux.Memory;

namespace Outboard.Memory;

/// <summary>What a region was mapped from.</summary>
/// <param name="Memory">The object.</param>
/// <param name="Offset">Where the region begins in it.</param>
public sealed record RegionSource(SharedMemory Memory, ulong Offset);

/// <summary>A mapped region of guest memory. Disposing unmaps it: only when no queue can see it any more.</summary>
public sealed class MemoryRegion : IDisposable
{
    private readonly MemoryMapping _mapping;

    /// <summary>Describes a mapping as a region, and takes ownership of it.</summary>
    /// <param name="guestAddress">Guest physical address of the first byte.</param>
    /// <param name="userAddress">Address of the first byte in the front-end's process; may be 0.</param>
    /// <param name="mapping">The mapping; its length is the region's size.</param>
    /// <exception cref="GuestMemoryException">The region wraps around the address space.</exception>
    public MemoryRegion(ulong guestAddress, ulong userAddress, MemoryMapping mapping)
    {
        ArgumentNullException.ThrowIfNull(mapping);
        ulong lastByte = mapping.Length - 1;
        if (lastByte > ulong.MaxValue - guestAddress || lastByte > ulong.MaxValue - userAddress)
        {
            throw new GuestMemoryException(
                $"memory region at guest address 0x{guestAddress:x}, size 0x{mapping.Length:x}, wraps around");
        }

        GuestAddress = guestAddress;
        UserAddress = userAddress;
        _mapping = mapping;
    }

    /// <summary>Guest physical address of the first byte.</summary>
    public ulong GuestAddress { get; }

    /// <summary>Address of the first byte in the front-end's process.</summary>
    public ulong UserAddress { get; }

    /// <summary>
    /// What it was mapped from, for whoever hands it on to another process; null when that was not kept. The region
    /// disposes it.
    /// </summary>
    public RegionSource? Source { get; init; }

    /// <summary>Bytes.</summary>
    public ulong SizeBytes => _mapping.Length;

    /// <summary>The region's memory in this process.</summary>
    public IoSegment Segment => _mapping.Segment;

    /// <summary>Whether the front-end truncated the file behind the region; its vanished pages read as zero.</summary>
    public bool IsTruncated => _mapping.IsTruncated;

    /// <summary>
    /// Has accesses to pages that are not in the file wait for whoever holds <paramref name="faults"/>. Nobody uses the
    /// region yet.
    /// </summary>
    /// <exception cref="LinuxException">The file's pages cannot be waited for.</exception>
    public void Watch(UserFaults faults) => _mapping.Watch(faults);

    /// <summary>Unmaps the region.</summary>
    public void Dispose()
    {
        _mapping.Dispose();
        Source?.Memory.Dispose();
    }
}

/// <summary>A memory layout that cannot be: overlapping regions, wrap-around, too many.</summary>
public sealed class GuestMemoryException(string message) : Exception(message);
