// Which pages of guest memory the device wrote, while somebody asks: a bitmap in pieces, since addresses are sparse.
// Pages of 4 KiB are noted; a report for larger pages joins their bits, one for smaller pages repeats them.
//
// A function whose threads write mapped memory by themselves marks a flat bitmap of its own, without a lock (DirtyLog);
// it is taken along with each report. What lies beyond that bitmap counts as written always.
using System.Numerics;
using Outboard.Memory;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Server;

/// <summary>The log of written pages. All members may be called from any thread.</summary>
internal sealed class DirtyPages : IDisposable
{
    private const int PageShift = 12;
    private const int WordsInPiece = 512;
    private const int PagesInPiece = WordsInPiece * 64;

    private readonly Lock _lock = new();
    private readonly Dictionary<ulong, ulong[]> _pieces = [];
    private (ulong First, ulong Last)[] _ranges = [];
    private readonly List<ulong> _harvested = [];
    private DirtyLog? _flat;
    private bool _isOn;

    internal bool IsOn
    {
        get
        {
            lock (_lock)
            {
                return _isOn;
            }
        }
    }

    /// <summary>The page size that logging was started with.</summary>
    internal ulong PageBytes { get; private set; } = VersionCapabilities.PageBytes;

    /// <summary>Starts, with an empty log.</summary>
    /// <param name="pageBytes">The client's page size, for its own later starts.</param>
    /// <param name="ranges">First and last byte of what is logged; none for everything.</param>
    internal void Start(ulong pageBytes, (ulong First, ulong Last)[] ranges)
    {
        lock (_lock)
        {
            _isOn = true;
            PageBytes = pageBytes;
            _ranges = ranges;
            _pieces.Clear();
        }
    }

    /// <summary>Gives a function a bitmap to mark; owned here.</summary>
    internal void Add(DirtyLog flat)
    {
        lock (_lock)
        {
            _flat = flat;
        }
    }

    /// <summary>Ends. No function marks any more.</summary>
    internal void Stop()
    {
        lock (_lock)
        {
            _isOn = false;
            _pieces.Clear();
            _flat?.Dispose();
            _flat = null;
        }
    }

    public void Dispose() => Stop();

    /// <summary>Notes a write of at least one byte.</summary>
    internal void Mark(ulong address, ulong count)
    {
        lock (_lock)
        {
            if (!_isOn || count == 0)
            {
                return;
            }

            ulong last = (address + count - 1) >> PageShift;
            for (ulong page = address >> PageShift; ; page++)
            {
                if (IsLogged(page << PageShift))
                {
                    Piece(page)[page % PagesInPiece / 64] |= 1UL << (int)(page % 64);
                }

                if (page == last)
                {
                    return;
                }
            }
        }
    }

    /// <summary>Writes the bits of a range and clears them: bit n for page n from its beginning.</summary>
    /// <param name="address">First byte.</param>
    /// <param name="count">Bytes; the range does not wrap.</param>
    /// <param name="pageBytes">A power of two.</param>
    /// <param name="bitmap">Zero bytes, enough of them.</param>
    internal void Report(ulong address, ulong count, ulong pageBytes, Span<byte> bitmap)
    {
        lock (_lock)
        {
            ulong first = address >> PageShift;
            ulong last = (address + count - 1) >> PageShift;
            TakeFlat(first, last);
            if (_flat is not null && last >= _flat.PageCount)
            {
                ulong start = Math.Max(_flat.PageCount << PageShift, address) - address;
                SetBits(start / pageBytes, (count - 1) / pageBytes, bitmap);
            }

            foreach ((ulong key, ulong[] words) in _pieces)
            {
                ulong pieceFirst = key * PagesInPiece;
                if (pieceFirst > last || pieceFirst + PagesInPiece - 1 < first)
                {
                    continue;
                }

                for (int word = 0; word < WordsInPiece; word++)
                {
                    for (ulong bits = words[word]; bits != 0; bits &= bits - 1)
                    {
                        ulong page = pieceFirst + ((ulong)word * 64) + (ulong)BitOperations.TrailingZeroCount(bits);
                        if (page >= first && page <= last)
                        {
                            words[word] &= ~(1UL << (int)(page % 64));
                            SetBits(page << PageShift, address, count, pageBytes, bitmap);
                        }
                    }
                }
            }
        }
    }

    /// <summary>Takes over what a function marked.</summary>
    private void TakeFlat(ulong first, ulong last)
    {
        if (_flat is null)
        {
            return;
        }

        _flat.Harvest(first, last, _harvested);
        foreach (ulong page in _harvested)
        {
            if (IsLogged(page << PageShift))
            {
                Piece(page)[page % PagesInPiece / 64] |= 1UL << (int)(page % 64);
            }
        }

        _harvested.Clear();
    }

    private static void SetBits(ulong page, ulong address, ulong count, ulong pageBytes, Span<byte> bitmap)
    {
        ulong pageEnd = page + ((1UL << PageShift) - 1);
        ulong from = Math.Max(page, address) - address;
        ulong to = Math.Min(pageEnd, address + count - 1) - address;
        SetBits(from / pageBytes, to / pageBytes, bitmap);
    }

    private static void SetBits(ulong first, ulong last, Span<byte> bitmap)
    {
        for (ulong bit = first; bit <= last; bit++)
        {
            bitmap[(int)(bit / 8)] |= (byte)(1 << (int)(bit % 8));
        }
    }

    private bool IsLogged(ulong address)
    {
        if (_ranges.Length == 0)
        {
            return true;
        }

        foreach ((ulong first, ulong last) in _ranges)
        {
            if (address + ((1UL << PageShift) - 1) >= first && address <= last)
            {
                return true;
            }
        }

        return false;
    }

    private ulong[] Piece(ulong page)
    {
        ulong key = page / PagesInPiece;
        if (!_pieces.TryGetValue(key, out ulong[]? words))
        {
            words = new ulong[WordsInPiece];
            _pieces.Add(key, words);
        }

        return words;
    }
}
