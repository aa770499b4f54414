// Translations from I/O virtual addresses to addresses of the front-end, sorted and without overlaps.
// Not thread-safe: IommuTable is what several threads share.
namespace Outboard.Memory;

/// <summary>What a device may do through a translation; the numbers are those of the protocol.</summary>
[Flags]
public enum MemoryAccess
{
    /// <summary>Nothing.</summary>
    None = 0,

    /// <summary>The device reads.</summary>
    Read = 1,

    /// <summary>The device writes.</summary>
    Write = 2,

    /// <summary>Both.</summary>
    ReadWrite = 3,
}

/// <summary>One translation.</summary>
/// <param name="Start">First I/O virtual address.</param>
/// <param name="Last">Last I/O virtual address, not below the first.</param>
/// <param name="UserAddress">What <paramref name="Start"/> stands for, in the front-end's addresses (or in guest
/// physical ones, when it gives its memory in those).</param>
/// <param name="Access">What is allowed.</param>
public readonly record struct IommuEntry(ulong Start, ulong Last, ulong UserAddress, MemoryAccess Access)
{
    /// <summary>Whether an address is translated.</summary>
    public bool Contains(ulong iova) => iova >= Start && iova <= Last;

    /// <summary>Whether a range shares an address with it.</summary>
    public bool Overlaps(ulong start, ulong last) => start <= Last && last >= Start;

    /// <summary>Whether all of <paramref name="access"/> is allowed.</summary>
    public bool Allows(MemoryAccess access) => (Access & access) == access;
}

/// <summary>A sorted set of translations.</summary>
internal sealed class IovaMap
{
    private const int FirstCapacity = 16;

    private IommuEntry[] _entries = [];
    private int _count;

    internal int Count => _count;

    /// <summary>The entries, ascending. A reader on another thread may see any mixture of old and new ones.</summary>
    internal ReadOnlySpan<IommuEntry> Entries
    {
        get
        {
            IommuEntry[] entries = _entries;
            return entries.AsSpan(0, Math.Min(_count, entries.Length));
        }
    }

    internal bool TryFind(ulong iova, out IommuEntry entry)
    {
        ReadOnlySpan<IommuEntry> entries = Entries;
        int low = 0;
        int high = entries.Length - 1;
        while (low <= high)
        {
            int middle = (low + high) >>> 1;
            entry = entries[middle];
            if (iova < entry.Start)
            {
                high = middle - 1;
            }
            else if (iova > entry.Last)
            {
                low = middle + 1;
            }
            else
            {
                return true;
            }
        }

        entry = default;
        return false;
    }

    /// <summary>Adds an entry in the place of whatever overlaps it.</summary>
    internal void Add(in IommuEntry entry)
    {
        Remove(entry.Start, entry.Last);
        Insert(FirstFrom(entry.Start), entry);
    }

    /// <summary>Forgets a range; an entry that it cuts keeps the rest.</summary>
    internal void Remove(ulong start, ulong last)
    {
        int index = FirstFrom(start);
        while (index < _count && _entries[index].Start <= last)
        {
            IommuEntry entry = _entries[index];
            RemoveAt(index);
            if (entry.Start < start)
            {
                Insert(index++, entry with { Last = start - 1 });
            }

            if (entry.Last > last)
            {
                ulong rest = last + 1;
                Insert(index, entry with { Start = rest, UserAddress = entry.UserAddress + (rest - entry.Start) });
                return;
            }
        }
    }

    internal void RemoveAt(int index)
    {
        _entries.AsSpan(index + 1, _count - index - 1).CopyTo(_entries.AsSpan(index));
        _count--;
    }

    internal void Clear() => _count = 0;

    /// <summary>The first entry that ends at or behind an address.</summary>
    private int FirstFrom(ulong iova)
    {
        int low = 0;
        int high = _count;
        while (low < high)
        {
            int middle = (low + high) >>> 1;
            if (_entries[middle].Last < iova)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }

        return low;
    }

    private void Insert(int index, in IommuEntry entry)
    {
        if (_count == _entries.Length)
        {
            IommuEntry[] larger = new IommuEntry[Math.Max(FirstCapacity, _count * 2)];
            _entries.AsSpan(0, _count).CopyTo(larger);
            _entries = larger;
        }

        _entries.AsSpan(index, _count - index).CopyTo(_entries.AsSpan(index + 1));
        _entries[index] = entry;
        _count++;
    }
}
