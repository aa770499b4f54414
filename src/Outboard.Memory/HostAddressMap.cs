// The way back from an address in this process to the guest: for the dirty log, which wants the guest addresses of
// segments that were translated before, by whatever means.
using Outboard.Linux;

namespace Outboard.Memory;

/// <summary>Finds the guest address of mapped guest memory. Immutable, made from one snapshot.</summary>
public sealed class HostAddressMap
{
    private readonly Entry[] _entries;

    /// <summary>Makes the map of a snapshot.</summary>
    public HostAddressMap(GuestMemory memory)
    {
        ArgumentNullException.ThrowIfNull(memory);
        _entries =
        [
            .. memory.Regions
                .Select(region => new Entry(region.Segment.Address, region.SizeBytes, region.GuestAddress))
                .OrderBy(entry => entry.Host),
        ];
    }

    /// <summary>The guest address of a segment's first byte.</summary>
    /// <param name="segment">Segments lie in one region, as translation makes them.</param>
    /// <param name="hint">The caller's hint, 0 at first.</param>
    /// <param name="guestAddress">The address.</param>
    /// <returns>False when the segment is in no region of the snapshot.</returns>
    public bool TryFind(in IoSegment segment, ref int hint, out ulong guestAddress)
    {
        Entry[] entries = _entries;
        if ((uint)hint < (uint)entries.Length && entries[hint].TryTranslate(segment.Address, out guestAddress))
        {
            return true;
        }

        int low = 0;
        int high = entries.Length - 1;
        while (low < high)
        {
            int middle = (low + high + 1) >>> 1;
            (low, high) = entries[middle].Host <= segment.Address ? (middle, high) : (low, middle - 1);
        }

        guestAddress = 0;
        if (entries.Length == 0 || !entries[low].TryTranslate(segment.Address, out guestAddress))
        {
            return false;
        }

        hint = low;
        return true;
    }

    private readonly struct Entry(nuint host, ulong sizeBytes, ulong guestAddress)
    {
        internal readonly nuint Host = host;

        internal bool TryTranslate(nuint address, out ulong translated)
        {
            ulong offset = address - Host;
            translated = guestAddress + offset;
            return address >= Host && offset < sizeBytes;
        }
    }
}
