// A second mapping of pieces of shared mappings, one behind the other: for a ring whose pages are scattered, behind an
// IOMMU or over two regions. The pieces stay mapped where they are, and both views show the same pages.
// Not here: pieces of huge pages (the kernel moves those as a whole only), and pages that post-copy has still to fetch.
using Outboard.Linux.Native;

namespace Outboard.Linux.Memory;

/// <summary>Pieces of shared mappings, mapped once more as one range; unmapped on disposal.</summary>
/// <remarks>It lives on when the pieces are unmapped: whoever made it disposes it with them.</remarks>
public sealed class StitchedMapping : IDisposable
{
    private readonly nuint _mappedAddress;
    private readonly nuint _mappedLength;
    private readonly BusErrorGuard? _guard;
    private int _disposed;

    private StitchedMapping(nuint mappedAddress, nuint mappedLength, IoSegment segment)
    {
        _mappedAddress = mappedAddress;
        _mappedLength = mappedLength;
        Segment = segment;
        _guard = BusErrorGuard.TryProtect(mappedAddress, mappedLength, (nuint)Environment.SystemPageSize);
    }

    /// <summary>The whole range.</summary>
    public IoSegment Segment { get; }

    /// <summary>Maps pieces one behind the other.</summary>
    /// <param name="pieces">Parts of shared mappings; each but the last ends with a page, each but the first begins
    /// with one.</param>
    /// <returns>Null when the pieces do not meet at page boundaries, or when the kernel refuses.</returns>
    // SAFETY: the range is reserved first, and only pages inside it are replaced; a refusal unmaps it as a whole.
    public static unsafe StitchedMapping? TryCreate(ReadOnlySpan<IoSegment> pieces)
    {
        nuint page = (nuint)Environment.SystemPageSize;
        if (pieces.IsEmpty || !MeetAtPages(pieces, page))
        {
            return null;
        }

        nuint slack = pieces[0].Address % page;
        nuint bytes = 0;
        foreach (ref readonly IoSegment piece in pieces)
        {
            bytes += (nuint)piece.Length;
        }

        nuint mapped = (slack + bytes + page - 1) / page * page;
        const int reserve = Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS | Libc.MAP_NORESERVE;
        void* address = Libc.mmap(null, mapped, 0, reserve, -1, 0);
        if ((nint)address == -1)
        {
            return null;
        }

        nuint target = (nuint)address;
        foreach (ref readonly IoSegment piece in pieces)
        {
            nuint start = piece.Address / page * page;
            nuint length = (piece.Address - start + (nuint)piece.Length + page - 1) / page * page;
            const int flags = Libc.MREMAP_MAYMOVE | Libc.MREMAP_FIXED;

            // An old length of 0 leaves the shared pages where they are and maps them a second time.
            if ((nint)Libc.mremap((void*)start, 0, length, flags, (void*)target) == -1)
            {
                _ = Libc.munmap(address, mapped);
                return null;
            }

            target += length;
        }

        return new StitchedMapping((nuint)address, mapped, new IoSegment((nuint)address + slack, bytes));
    }

    /// <summary>Unmaps this view.</summary>
    // SAFETY: the range is what TryCreate reserved, and it is unmapped once.
    public unsafe void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 0)
        {
            _guard?.Dispose();
            _ = Libc.munmap((void*)_mappedAddress, _mappedLength);
        }
    }

    private static bool MeetAtPages(ReadOnlySpan<IoSegment> pieces, nuint page)
    {
        for (int i = 0; i < pieces.Length; i++)
        {
            nuint end = pieces[i].Address + (nuint)pieces[i].Length;
            if ((i > 0 && pieces[i].Address % page != 0) || (i < pieces.Length - 1 && end % page != 0))
            {
                return false;
            }
        }

        return true;
    }
}
