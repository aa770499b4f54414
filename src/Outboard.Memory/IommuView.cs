// One queue's view of memory behind an IOMMU. Used by that queue's thread, save where a member says otherwise.
//
// A chain is translated as far as possible; what is missing is noted (Misses), all of it in one go, and the queue
// waits. Translations that arrive for a waiting queue are kept here as well as in the shared table: what others push
// out of the table stays known until the queue has gone on, so that each answer brings a chain nearer to its end,
// however many translations it needs.
// For each chain in flight the I/O virtual ranges are noted that it uses: an invalidation waits for those.
using System.Runtime.InteropServices;
using Outboard.Linux;

namespace Outboard.Memory;

/// <summary>An address that is not translated, or not for this access.</summary>
/// <param name="Address">The I/O virtual address.</param>
/// <param name="Access">What the device wants to do.</param>
public readonly record struct IovaMiss(ulong Address, MemoryAccess Access)
{
    /// <summary>The page that is asked for.</summary>
    public ulong Page => Address & ~(IommuView.PageBytes - 1);
}

/// <summary>How a translation ended.</summary>
public enum IommuOutcome
{
    /// <summary>All of it is translated.</summary>
    Done,

    /// <summary>Something is missing, see <see cref="IommuView.Misses"/>.</summary>
    Missing,

    /// <summary>A translation leads out of the front-end's memory, or the range wraps around.</summary>
    OutsideMemory,

    /// <summary>More pieces than a chain may have.</summary>
    TooManyPieces,
}

/// <summary>One queue's view of memory behind an IOMMU.</summary>
public sealed class IommuView
{
    /// <summary>Bytes of what is asked for at once: the smallest page of every IOMMU.</summary>
    public const ulong PageBytes = 4096;

    /// <summary>
    /// Pages that a queue asks for at one time: a chain of usual length in one go. A longer one asks again.
    /// </summary>
    public const int MaxMisses = 128;

    private const uint MaxSegmentBytes = 1 << 30;

    private readonly IommuTable _table;
    private readonly IovaMap _kept = new();
    private readonly List<IovaMiss> _misses = [];
    private readonly Uses[] _uses;
    private int _waits;

    /// <summary>Makes a view.</summary>
    /// <param name="table">The translations.</param>
    /// <param name="memory">What they lead to.</param>
    /// <param name="slots">Chains that may be in flight.</param>
    public IommuView(IommuTable table, GuestMemory memory, int slots)
    {
        _table = table;
        Memory = memory;
        _uses = new Uses[slots];
    }

    /// <summary>What translations lead to.</summary>
    public GuestMemory Memory { get; set; }

    /// <summary>What was missing since <see cref="Begin"/>.</summary>
    public IReadOnlyList<IovaMiss> Misses => _misses;

    /// <summary>Whether no more misses are noted.</summary>
    public bool IsFull => _misses.Count >= MaxMisses;

    /// <summary>How the last translation ended.</summary>
    public IommuOutcome Outcome { get; private set; }

    /// <summary>What was refused, after <see cref="IsMissing"/> found it.</summary>
    public IovaMiss Denied { get; private set; }

    /// <summary>Whether the queue waits for translations. Read by the writer of the table, on its thread.</summary>
    public bool Waits => Volatile.Read(ref _waits) != 0;

    /// <summary>Begins another attempt: nothing is missing yet.</summary>
    public void Begin() => _misses.Clear();

    /// <summary>
    /// Makes the queue a waiting one. Either the writer of the table sees that, or what it wrote is seen here.
    /// </summary>
    /// <returns>False when everything has come meanwhile; the queue does not wait then.</returns>
    public bool TryWait()
    {
        Volatile.Write(ref _waits, 1);
        Interlocked.MemoryBarrier();
        _misses.RemoveAll(miss => IsKnown(miss.Address, miss.Access));
        if (_misses.Count > 0)
        {
            return true;
        }

        EndWait();
        return false;
    }

    /// <summary>The queue waits no more.</summary>
    public void EndWait()
    {
        Volatile.Write(ref _waits, 0);
        _misses.Clear();
    }

    /// <summary>Forgets what was kept for the chain at hand: the queue has come to another one.</summary>
    public void ForgetKept() => _kept.Clear();

    /// <summary>Takes a translation that has arrived while the queue waits.</summary>
    public void Deliver(in IommuEntry entry)
    {
        bool isWanted = false;
        for (int i = _misses.Count - 1; i >= 0; i--)
        {
            IovaMiss miss = _misses[i];
            if (!entry.Contains(miss.Address) || !entry.Allows(miss.Access))
            {
                continue;
            }

            isWanted = true;
            _misses.RemoveAt(i);
        }

        if (isWanted)
        {
            if (_kept.Count >= SegmentTable.MaxSegments)
            {
                _kept.Clear();
            }

            _kept.Add(entry);
        }
    }

    /// <summary>Whether the queue waits for this access to this page.</summary>
    public bool IsMissing(IovaMiss page)
    {
        foreach (IovaMiss miss in _misses)
        {
            if (miss.Page == page.Page && miss.Access == page.Access)
            {
                Denied = miss;
                return true;
            }
        }

        return false;
    }

    /// <summary>Forgets translations of a range.</summary>
    public void Forget(ulong start, ulong last) => _kept.Remove(start, last);

    /// <summary>Translates a buffer and appends it to a chain's slot.</summary>
    /// <returns>False unless <see cref="Outcome"/> is Done.</returns>
    public bool TryAppend(ulong iova, uint length, MemoryAccess access, SegmentTable table, int slot, ref int count)
    {
        Outcome = IommuOutcome.Done;
        NoteUse(slot, iova, length, isFirst: count == 0);
        nuint runStart = 0;
        nuint runLength = 0;
        while (length > 0)
        {
            if (!TryLocate(iova, access, out nuint host, out ulong available))
            {
                if (Outcome == IommuOutcome.Missing)
                {
                    NoteMore(iova, length, access);
                }

                return false;
            }

            nuint part = (nuint)Math.Min(length, available);
            if (runLength > 0 && (runStart + runLength != host || runLength + part > MaxSegmentBytes))
            {
                if (count >= SegmentTable.MaxSegments)
                {
                    Outcome = IommuOutcome.TooManyPieces;
                    return false;
                }

                table.Append(slot, ref count, new IoSegment(runStart, runLength));
                runLength = 0;
            }

            runStart = runLength == 0 ? host : runStart;
            runLength += part;
            length -= (uint)part;
            iova += part;
            if (iova == 0 && length > 0)
            {
                Outcome = IommuOutcome.OutsideMemory;
                return false;
            }
        }

        if (runLength > 0)
        {
            if (count >= SegmentTable.MaxSegments)
            {
                Outcome = IommuOutcome.TooManyPieces;
                return false;
            }

            table.Append(slot, ref count, new IoSegment(runStart, runLength));
        }

        return true;
    }

    /// <summary>Finds where a range lies: appends its pieces, with neighbours made one.</summary>
    /// <returns>False unless <see cref="Outcome"/> is Done. All pages that are missing have been noted.</returns>
    public bool TryGather(ulong iova, uint length, MemoryAccess access, List<IoSegment> pieces)
    {
        ArgumentNullException.ThrowIfNull(pieces);
        IommuOutcome worst = IommuOutcome.Done;
        while (length > 0)
        {
            Outcome = IommuOutcome.Done;
            ulong part = Math.Min(length, PageBytes - (iova % PageBytes));
            if (TryLocate(iova, access, out nuint host, out ulong available))
            {
                part = Math.Min(part, available);
                Append(pieces, new IoSegment(host, (nuint)part));
            }
            else if (Outcome == IommuOutcome.Missing)
            {
                worst = IommuOutcome.Missing;
            }
            else
            {
                return false;
            }

            length -= (uint)part;
            iova += part;
            if (iova == 0 && length > 0)
            {
                Outcome = IommuOutcome.OutsideMemory;
                return false;
            }
        }

        Outcome = worst;
        return worst == IommuOutcome.Done;
    }

    /// <summary>Whether the chain in a slot, which is in flight, uses an address of a range.</summary>
    public bool IsUsing(int slot, ulong start, ulong last)
    {
        ref readonly Uses uses = ref _uses[slot];
        for (int i = 0; i < uses.Count; i++)
        {
            if (uses.Ranges[i].Start <= last && uses.Ranges[i].Last >= start)
            {
                return true;
            }
        }

        return false;
    }

    internal static void Append(List<IoSegment> pieces, IoSegment piece)
    {
        if (pieces.Count > 0)
        {
            ref IoSegment before = ref CollectionsMarshal.AsSpan(pieces)[^1];
            if (before.Address + (nuint)before.Length == piece.Address)
            {
                before = new IoSegment(before.Address, (nuint)(before.Length + piece.Length));
                return;
            }
        }

        pieces.Add(piece);
    }

    private bool IsKnown(ulong iova, MemoryAccess access) =>
        (_kept.TryFind(iova, out IommuEntry entry) && entry.Allows(access))
        || (_table.TryFind(iova, out entry) && entry.Allows(access));

    /// <summary>Finds where an address lies, and how many bytes from there on lie behind it.</summary>
    private bool TryLocate(ulong iova, MemoryAccess access, out nuint host, out ulong available)
    {
        host = 0;
        available = 0;
        if (!(_table.TryFind(iova, out IommuEntry entry) && entry.Allows(access))
            && !(_kept.TryFind(iova, out entry) && entry.Allows(access)))
        {
            Outcome = IommuOutcome.Missing;
            NoteMiss(new IovaMiss(iova, access));
            return false;
        }

        if (!Memory.TryLocateUser(entry.UserAddress + (iova - entry.Start), out host, out available))
        {
            Outcome = IommuOutcome.OutsideMemory;
            return false;
        }

        ulong rest = entry.Last - iova;
        available = rest < available ? rest + 1 : available;
        return true;
    }

    private void NoteMiss(IovaMiss fresh)
    {
        foreach (ref IovaMiss miss in CollectionsMarshal.AsSpan(_misses))
        {
            if (miss.Page == fresh.Page)
            {
                miss = miss with { Access = miss.Access | fresh.Access };
                return;
            }
        }

        if (!IsFull)
        {
            _misses.Add(fresh);
        }
    }

    /// <summary>Notes what else of a buffer is missing, behind a page that is: all is asked for at once.</summary>
    private void NoteMore(ulong iova, ulong length, MemoryAccess access)
    {
        ulong last = iova + Math.Min(length, MaxMisses * PageBytes) - 1;
        for (ulong page = (iova & ~(PageBytes - 1)) + PageBytes; page > iova && page <= last; page += PageBytes)
        {
            if (!IsKnown(page, access))
            {
                NoteMiss(new IovaMiss(page, access));
            }
        }
    }

    private void NoteUse(int slot, ulong iova, uint length, bool isFirst)
    {
        ref Uses uses = ref _uses[slot];
        uses.Count = isFirst ? 0 : uses.Count;
        if (length == 0)
        {
            return;
        }

        ulong last = iova + length - 1;
        if (uses.Count > 0 && uses.Ranges[uses.Count - 1].Last + 1 == iova)
        {
            uses.Ranges[uses.Count - 1].Last = last;
            return;
        }

        if (uses.Count == (uses.Ranges?.Length ?? 0))
        {
            Array.Resize(ref uses.Ranges, Math.Max(SegmentTable.InlineCapacity, uses.Count * 2));
        }

        uses.Ranges![uses.Count++] = (iova, last);
    }

    private struct Uses
    {
        internal (ulong Start, ulong Last)[] Ranges;
        internal int Count;
    }
}
