// An IOMMU as a front-end without a virtual machine has it: which addresses of the bus stand for which memory. A driver
// maps before it gives a buffer to the device, and withdraws afterwards (VhostUserFrontend.UnmapAsync).
using Outboard.Memory;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.VhostUser.Frontend;

/// <summary>Mappings of bus addresses (I/O virtual addresses). May be used from any thread.</summary>
/// <param name="granuleBytes">
/// Largest piece that a back-end is told at once, a power of two from 4096 up; it lies naturally aligned, as the pages
/// of a real IOMMU.
/// </param>
public sealed class FrontendIommu(ulong granuleBytes = 2 << 20)
{
    private const ulong PageBytes = 4096;

    private readonly ulong _granuleBytes = Math.Max(granuleBytes, PageBytes);
    private readonly Lock _lock = new();
    private readonly SortedDictionary<ulong, Mapping> _mappings = [];
    private long _misses;

    /// <summary>Translations that back-ends asked for.</summary>
    public long Misses => Interlocked.Read(ref _misses);

    /// <summary>Maps a whole memory at its bus address, for reading and writing.</summary>
    public void Map(DriverMemory memory)
    {
        ArgumentNullException.ThrowIfNull(memory);
        Map(memory.BusAddress, memory, 0, memory.SizeBytes, MemoryAccess.ReadWrite);
    }

    /// <summary>Maps a part of a memory.</summary>
    /// <param name="iova">First bus address; a multiple of 4096.</param>
    /// <param name="memory">The memory.</param>
    /// <param name="offset">First byte of it; a multiple of 4096.</param>
    /// <param name="sizeBytes">Bytes; a multiple of 4096, not 0.</param>
    /// <param name="access">What the device may do.</param>
    /// <exception cref="ArgumentException">Not whole pages, beyond the memory, wrapping, or mapped already.</exception>
    public void Map(ulong iova, DriverMemory memory, ulong offset, ulong sizeBytes, MemoryAccess access)
    {
        ArgumentNullException.ThrowIfNull(memory);
        if ((iova | offset | sizeBytes) % PageBytes != 0 || sizeBytes == 0)
        {
            throw new ArgumentException($"0x{sizeBytes:x} bytes at 0x{iova:x} are not whole pages");
        }

        ulong last = iova + (sizeBytes - 1);
        if (last < iova || offset > memory.SizeBytes || sizeBytes > memory.SizeBytes - offset)
        {
            throw new ArgumentException($"0x{sizeBytes:x} bytes from 0x{offset:x}: the memory ends before, or wraps");
        }

        lock (_lock)
        {
            if (_mappings.Values.Any(known => known.Start <= last && known.Last >= iova))
            {
                throw new ArgumentException($"0x{iova:x} is mapped already");
            }

            _mappings.Add(iova, new Mapping(iova, last, memory, offset, access));
        }
    }

    /// <summary>Removes every mapping that lies in a range as a whole.</summary>
    /// <exception cref="ArgumentException">A mapping lies in it partly.</exception>
    internal void Unmap(ulong iova, ulong sizeBytes)
    {
        ulong last = iova + (sizeBytes - 1);
        lock (_lock)
        {
            Mapping[] met = [.. _mappings.Values.Where(known => known.Start <= last && known.Last >= iova)];
            if (met.Any(known => known.Start < iova || known.Last > last))
            {
                throw new ArgumentException($"0x{sizeBytes:x} bytes at 0x{iova:x} are a part of a mapping");
            }

            foreach (Mapping mapping in met)
            {
                _mappings.Remove(mapping.Start);
            }
        }
    }

    /// <summary>Finds the translation of an address: at most a granule around it.</summary>
    /// <returns>False when the address is not mapped for this access.</returns>
    internal bool TryTranslate(ulong iova, MemoryAccess access, out Mapping piece)
    {
        lock (_lock)
        {
            foreach (Mapping mapping in _mappings.Values)
            {
                if (iova >= mapping.Start && iova <= mapping.Last && (mapping.Access & access) == access)
                {
                    ulong start = Math.Max(mapping.Start, iova & ~(_granuleBytes - 1));
                    ulong last = Math.Min(mapping.Last, iova | (_granuleBytes - 1));
                    ulong offset = mapping.Offset + (start - mapping.Start);
                    piece = mapping with { Start = start, Last = last, Offset = offset };
                    return true;
                }
            }
        }

        piece = default;
        return false;
    }

    internal void CountMiss() => Interlocked.Increment(ref _misses);

    internal readonly record struct Mapping(
        ulong Start, ulong Last, DriverMemory Memory, ulong Offset, MemoryAccess Access);
}
