// The log of a live migration: a bitmap in memory that is shared with whoever copies the guest, one bit for each page
// of 4096 bytes, vhost-user "Migration". Bit p % 8 of byte p / 8 stands for page p; page 0 begins at guest address 0.
//
// Why no page is ever missed. W writes guest memory and marks it; H harvests the bitmap and copies the pages:
//
//   W1  write the page                 H1  exchange a word of the bitmap with 0
//   W2  full fence                     H2  copy the pages whose bits were set
//   W3  look at the bit; when it is
//       clear, set it (locked or)
//
// * W3 finds the bit clear and sets it: a harvest takes it after W3, and copies after W1.
// * W3 finds the bit set: some H1 clears it later. W2 stands between W1 and W3, H1 is a locked exchange, and both see
//   the word in one order: H1 comes after W3, so H2 comes after W1. Without W2 the processor might look at the bit
//   before W1 leaves its store buffer, and a harvest between the two would copy the old page. A plain look is what
//   makes a page that is written often cheap: it is marked once for each harvest.
// * The driver is told of the request only after W3 (see Virtqueue). So when a guest has seen an end, the pages are
//   marked, even if this process is killed right then; and a request that was not published is in the in-flight
//   region, is carried out again and marked again.
//
// Several threads mark at the same time, of this and of other processes. The front-end may truncate the file: the
// mapping is guarded like guest memory. Not here: when a ring is logged, see Virtio/Queue/DirtyTracker.
using System.Numerics;
using Outboard.Linux.Memory;

namespace Outboard.Memory;

/// <summary>A shared bitmap of dirty pages. Marking may be done from any thread.</summary>
public sealed class DirtyLog : IDisposable
{
    /// <summary>Bytes that one bit stands for.</summary>
    public const ulong PageBytes = 1UL << PageShift;

    /// <summary>Alignment of the bitmap's first byte: bits are set in words of this size.</summary>
    public const ulong Alignment = sizeof(ulong);

    private const int PageShift = 12;
    private const int WordShift = 6;

    private readonly MemoryMapping _mapping;
    private readonly nuint _words;
    private readonly Action? _marked;

    /// <summary>Takes ownership of a mapping, all of which is the bitmap.</summary>
    /// <param name="mapping">The mapping; its first byte is aligned to <see cref="Alignment"/>.</param>
    /// <param name="marked">Called by <see cref="Tell"/>: pings whoever harvests.</param>
    /// <exception cref="GuestMemoryException">The mapping is not aligned.</exception>
    public DirtyLog(MemoryMapping mapping, Action? marked = null)
    {
        ArgumentNullException.ThrowIfNull(mapping);
        if (mapping.Segment.Address % (nuint)Alignment != 0)
        {
            throw new GuestMemoryException($"a log must be aligned to {Alignment} bytes");
        }

        _mapping = mapping;
        _words = mapping.Segment.Address;
        _marked = marked;
        PageCount = mapping.Length > ulong.MaxValue / 8 ? ulong.MaxValue : mapping.Length * 8;
    }

    /// <summary>Pages that have a bit.</summary>
    public ulong PageCount { get; }

    /// <summary>Bytes of the bitmap.</summary>
    public ulong SizeBytes => _mapping.Length;

    /// <summary>Whether the front-end truncated the file; bits that were set there are lost.</summary>
    public bool IsTruncated => _mapping.IsTruncated;

    /// <summary>Bytes of a bitmap for guest addresses below <paramref name="end"/>; whole words.</summary>
    public static ulong BytesFor(ulong end) => ((end / PageBytes / 64) + 1) * sizeof(ulong);

    /// <summary>Orders the writes before it against the marks after it, see the head of this file.</summary>
    public static void Fence() => Interlocked.MemoryBarrier();

    /// <summary>The same bitmap with another ping. The two share the mapping; one of them is disposed.</summary>
    public DirtyLog With(Action? marked) => new(_mapping, marked);

    /// <summary>Whether each page of a range has a bit.</summary>
    public bool Covers(ulong guestAddress, ulong length) =>
        length == 0 || (length - 1 <= ulong.MaxValue - guestAddress
            && (guestAddress + length - 1) >> PageShift < PageCount);

    /// <summary>
    /// Marks the pages of a range; pages without a bit are passed over. A <see cref="Fence"/> stands between the
    /// writes and this call.
    /// </summary>
    public void Mark(ulong guestAddress, ulong length)
    {
        if (length == 0 || PageCount == 0)
        {
            return;
        }

        ulong lastByte = length - 1 > ulong.MaxValue - guestAddress ? ulong.MaxValue : guestAddress + length - 1;
        ulong first = guestAddress >> PageShift;
        ulong last = Math.Min(lastByte >> PageShift, PageCount - 1);
        while (first <= last)
        {
            // The bits of one word: from the first page to the word's end, or to the last page.
            ulong end = Math.Min(first | 63, last);
            ulong bits = (ulong.MaxValue >> (63 - (int)(end - first))) << (int)(first & 63);
            SetBits(first >> WordShift, bits);
            first = end + 1;
        }
    }

    /// <summary>Pings whoever harvests, if that was asked for.</summary>
    public void Tell() => _marked?.Invoke();

    /// <summary>Takes all marks: their bits are clear afterwards. For the side that copies the pages.</summary>
    /// <param name="pages">Receives the numbers of the pages, in order.</param>
    public void Harvest(ICollection<ulong> pages)
    {
        ArgumentNullException.ThrowIfNull(pages);
        ulong words = (SizeBytes + sizeof(ulong) - 1) / sizeof(ulong);
        for (ulong word = 0; word < words; word++)
        {
            for (ulong bits = TakeBits(word); bits != 0; bits &= bits - 1)
            {
                pages.Add((word << WordShift) + (ulong)BitOperations.TrailingZeroCount(bits));
            }
        }
    }

    /// <summary>Takes the marks of some pages, as <see cref="Harvest(ICollection{ulong})"/>; others stay.</summary>
    /// <param name="first">The first page.</param>
    /// <param name="last">The last one; pages without a bit are passed over.</param>
    /// <param name="pages">Receives the numbers of the pages, in order.</param>
    public void Harvest(ulong first, ulong last, ICollection<ulong> pages)
    {
        ArgumentNullException.ThrowIfNull(pages);
        last = Math.Min(last, PageCount - 1);
        for (ulong page = first; page <= last && first < PageCount; page = (page | 63) + 1)
        {
            ulong end = Math.Min(page | 63, last);
            ulong wanted = (ulong.MaxValue >> (63 - (int)(end - page))) << (int)(page & 63);
            for (ulong bits = TakeBits(page >> WordShift, wanted); bits != 0; bits &= bits - 1)
            {
                pages.Add((page & ~63UL) + (ulong)BitOperations.TrailingZeroCount(bits));
            }
        }
    }

    /// <summary>A log of this process's own, for guest addresses below <paramref name="end"/>. Pages of the bitmap that
    /// nobody marks take no memory.</summary>
    /// <exception cref="IOException">There is no room for it.</exception>
    public static DirtyLog Create(ulong end)
    {
        using FileSharedMemory memory = new(MemFd.Create("outboard-dirty-log", BytesFor(end)));
        return new DirtyLog(memory.Map(0, BytesFor(end)));
    }

    /// <summary>Unmaps the bitmap. Nobody marks any more.</summary>
    public void Dispose() => _mapping.Dispose();

    // SAFETY: the word holds the bit of a page below PageCount, so it begins inside the mapping; a mapping consists of
    // whole pages and its first byte is aligned, so the word ends inside, too.
    private unsafe void SetBits(ulong word, ulong bits)
    {
        ref ulong target = ref ((ulong*)_words)[word];
        if ((Volatile.Read(ref target) & bits) != bits)
        {
            Interlocked.Or(ref target, bits);
        }
    }

    // SAFETY: as SetBits.
    private unsafe ulong TakeBits(ulong word, ulong wanted)
    {
        ref ulong target = ref ((ulong*)_words)[word];
        return (Volatile.Read(ref target) & wanted) == 0 ? 0 : Interlocked.And(ref target, ~wanted) & wanted;
    }

    // SAFETY: as SetBits; the caller's words cover the mapping and no more.
    private unsafe ulong TakeBits(ulong word)
    {
        ref ulong target = ref ((ulong*)_words)[word];
        return Volatile.Read(ref target) == 0 ? 0 : Interlocked.Exchange(ref target, 0);
    }
}
