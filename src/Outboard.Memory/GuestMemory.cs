// Guest memory as an immutable snapshot of regions, with checked translation.
//
// A snapshot is never changed: a new memory table makes a new snapshot, which each queue adopts at a point where it
// holds no translation of the old one (see QueueWorker). Whoever owns the regions unmaps them after that.
//
// Lookup: regions are sorted by guest address and do not overlap. The caller keeps a hint, the index of the region of
// its last hit; nearly every lookup ends there. The rest is a binary search over at most MaxRegions entries.
// Not here: dirty logging. IOMMU translation: see IommuView.
using System.Collections.Immutable;
using System.Runtime.CompilerServices;
using Outboard.Linux;

namespace Outboard.Memory;

/// <summary>An immutable snapshot of guest memory.</summary>
public sealed class GuestMemory
{
    /// <summary>
    /// Most regions a snapshot may have: the memory slots that Linux KVM gives a guest, as peers offer.
    /// </summary>
    public const int MaxRegions = 509;

    /// <summary>Largest segment: a span's length is an int, and the next cut is aligned to any page.</summary>
    private const uint MaxSegmentBytes = 1 << 30;

    private readonly Entry[] _entries;
    private readonly MemoryRegion[] _byUserAddress;

    private GuestMemory(ImmutableArray<MemoryRegion> regions, MemoryRegion[] byUserAddress)
    {
        Regions = regions;
        _byUserAddress = byUserAddress;
        _entries = new Entry[Math.Max(regions.Length, 1)];
        for (int i = 0; i < regions.Length; i++)
        {
            _entries[i] = new Entry(regions[i].GuestAddress, regions[i].SizeBytes, regions[i].Segment.Address);
        }
    }

    /// <summary>Memory without any region.</summary>
    public static GuestMemory Empty { get; } = new([], []);

    /// <summary>The regions, sorted by guest address.</summary>
    public ImmutableArray<MemoryRegion> Regions { get; }

    /// <summary>Makes a snapshot of <paramref name="regions"/>.</summary>
    /// <param name="regions">The regions, in any order.</param>
    /// <param name="limit">Most regions that the transport allows.</param>
    /// <exception cref="GuestMemoryException">Regions overlap, or there are too many.</exception>
    public static GuestMemory Create(IEnumerable<MemoryRegion> regions, int limit = MaxRegions)
    {
        ImmutableArray<MemoryRegion> sorted = [.. regions.OrderBy(region => region.GuestAddress)];
        if (sorted.Length > limit)
        {
            throw new GuestMemoryException($"{sorted.Length} memory regions, at most {limit} are possible");
        }

        for (int i = 1; i < sorted.Length; i++)
        {
            if (sorted[i].GuestAddress - sorted[i - 1].GuestAddress < sorted[i - 1].SizeBytes)
            {
                throw new GuestMemoryException(
                    $"memory regions at guest addresses 0x{sorted[i - 1].GuestAddress:x} and " +
                    $"0x{sorted[i].GuestAddress:x} overlap");
            }
        }

        return new GuestMemory(sorted, [.. sorted.OrderBy(region => region.UserAddress)]);
    }

    /// <summary>Checks what a front-end's table must keep to: no user address stands for two places.</summary>
    /// <exception cref="GuestMemoryException">Regions overlap in user addresses.</exception>
    public void RequireDistinctUserAddresses()
    {
        for (int i = 1; i < _byUserAddress.Length; i++)
        {
            MemoryRegion before = _byUserAddress[i - 1];
            if (_byUserAddress[i].UserAddress - before.UserAddress < before.SizeBytes)
            {
                throw new GuestMemoryException(
                    $"memory regions at user addresses 0x{before.UserAddress:x} and " +
                    $"0x{_byUserAddress[i].UserAddress:x} overlap");
            }
        }
    }

    /// <summary>A snapshot with one region more.</summary>
    /// <exception cref="GuestMemoryException">It overlaps, or there are too many.</exception>
    public GuestMemory Add(MemoryRegion region) => Create(Regions.Add(region));

    /// <summary>A snapshot without <paramref name="region"/>.</summary>
    public GuestMemory Remove(MemoryRegion region) =>
        new(Regions.Remove(region), [.. _byUserAddress.Where(known => known != region)]);

    /// <summary>Translates a guest range into host segments and appends them to a chain's slot.</summary>
    /// <param name="guestAddress">Guest physical address.</param>
    /// <param name="length">Bytes; 0 appends nothing.</param>
    /// <param name="table">Receives the segments: one, or one for each region that the range crosses, or more of a
    /// range that is longer than 1 GiB.</param>
    /// <param name="slot">The slot of <paramref name="table"/>.</param>
    /// <param name="count">The slot's number of segments, advanced.</param>
    /// <param name="hint">The caller's region hint, 0 at first.</param>
    /// <returns>False when a byte of the range is not guest memory, or when the slot has too many segments.</returns>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    public bool TryAppend(ulong guestAddress, uint length, SegmentTable table, int slot, ref int count, ref int hint)
    {
        Entry[] entries = _entries;
        if ((uint)hint < (uint)entries.Length)
        {
            ref readonly Entry entry = ref entries[hint];
            ulong offset = guestAddress - entry.Start;
            if (offset < entry.SizeBytes && length <= entry.SizeBytes - offset && length - 1 < MaxSegmentBytes)
            {
                table.Append(slot, ref count, new IoSegment(entry.Host + (nuint)offset, length));
                return true;
            }
        }

        return TryAppendSlow(guestAddress, length, table, slot, ref count, ref hint);
    }

    /// <summary>A window onto a guest range that lies in one region.</summary>
    /// <returns>False when it does not.</returns>
    public bool TryGetWindow(ulong guestAddress, ulong length, out MemoryWindow window)
    {
        window = default;
        int index = Find(guestAddress);
        if (index < 0)
        {
            return false;
        }

        ref readonly Entry entry = ref _entries[index];
        ulong offset = guestAddress - entry.Start;
        if (length > entry.SizeBytes - offset || length > int.MaxValue)
        {
            return false;
        }

        window = new MemoryWindow(entry.Host + (nuint)offset, (uint)length);
        return true;
    }

    /// <summary>Finds where a guest range lies that may cross regions: appends its pieces.</summary>
    /// <returns>False when a byte of the range is not guest memory.</returns>
    public bool TryGather(ulong guestAddress, ulong length, List<IoSegment> pieces)
    {
        while (length > 0)
        {
            int index = Find(guestAddress);
            if (index < 0)
            {
                return false;
            }

            ref readonly Entry entry = ref _entries[index];
            ulong offset = guestAddress - entry.Start;
            ulong part = Math.Min(length, entry.SizeBytes - offset);
            IommuView.Append(pieces, new IoSegment(entry.Host + (nuint)offset, (nuint)part));
            length -= part;
            guestAddress += part;
            if (guestAddress == 0 && length > 0)
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>Translates an address of the front-end's process into a guest physical address.</summary>
    /// <returns>False when no region holds it.</returns>
    public bool TryTranslateUserAddress(ulong userAddress, out ulong guestAddress)
    {
        MemoryRegion? region = FindUser(userAddress);
        guestAddress = region is null ? 0 : region.GuestAddress + (userAddress - region.UserAddress);
        return region is not null;
    }

    /// <summary>Whether every byte of a range of the front-end's addresses is guest memory.</summary>
    public bool HoldsUserRange(ulong userAddress, ulong length)
    {
        while (length > 0)
        {
            if (FindUser(userAddress) is not { } region)
            {
                return false;
            }

            ulong part = Math.Min(length, region.SizeBytes - (userAddress - region.UserAddress));
            length -= part;
            userAddress += part;
            if (userAddress == 0 && length > 0)
            {
                return false;
            }
        }

        return true;
    }

    /// <summary>Finds where a user address lies here, and how many bytes of its region follow.</summary>
    internal bool TryLocateUser(ulong userAddress, out nuint host, out ulong available)
    {
        host = 0;
        available = 0;
        if (FindUser(userAddress) is not { } region)
        {
            return false;
        }

        ulong offset = userAddress - region.UserAddress;
        host = region.Segment.Address + (nuint)offset;
        available = region.SizeBytes - offset;
        return true;
    }

    private MemoryRegion? FindUser(ulong userAddress)
    {
        int low = 0;
        int high = _byUserAddress.Length - 1;
        while (low <= high)
        {
            int middle = (low + high) >>> 1;
            MemoryRegion region = _byUserAddress[middle];
            if (userAddress < region.UserAddress)
            {
                high = middle - 1;
            }
            else if (userAddress - region.UserAddress >= region.SizeBytes)
            {
                low = middle + 1;
            }
            else
            {
                return region;
            }
        }

        return null;
    }

    private bool TryAppendSlow(
        ulong guestAddress, uint length, SegmentTable table, int slot, ref int count, ref int hint)
    {
        while (length > 0)
        {
            int index = Find(guestAddress);
            if (index < 0 || count >= SegmentTable.MaxSegments)
            {
                return false;
            }

            ref readonly Entry entry = ref _entries[index];
            ulong offset = guestAddress - entry.Start;
            uint part = (uint)Math.Min(Math.Min(length, MaxSegmentBytes), entry.SizeBytes - offset);
            table.Append(slot, ref count, new IoSegment(entry.Host + (nuint)offset, part));
            hint = index;
            length -= part;
            guestAddress += part;
            if (guestAddress == 0 && length > 0)
            {
                return false;
            }
        }

        return true;
    }

    private int Find(ulong guestAddress)
    {
        int low = 0;
        int high = Regions.Length - 1;
        while (low <= high)
        {
            int middle = (low + high) >>> 1;
            ref readonly Entry entry = ref _entries[middle];
            if (guestAddress < entry.Start)
            {
                high = middle - 1;
            }
            else if (guestAddress - entry.Start >= entry.SizeBytes)
            {
                low = middle + 1;
            }
            else
            {
                return middle;
            }
        }

        return -1;
    }

    private readonly struct Entry(ulong start, ulong sizeBytes, nuint host)
    {
        internal readonly ulong Start = start;
        internal readonly ulong SizeBytes = sizeBytes;
        internal readonly nuint Host = host;
    }
}
