// Guest memory of one client: windows sorted by address, which never overlap. The function sees it as its DmaSpace.
//
// A direct access copies inside the lock, so that whoever removes a window (also inside the lock) knows that nobody
// uses it any more. A snapshot that a function holds is another matter: see ServerSession.Dma.
using Outboard.Linux;
using Outboard.Memory;
using Outboard.Pci.Dma;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Server;

/// <summary>The windows of one client.</summary>
internal sealed class DmaTable(ClientRequests requests, int maxWindows) : DmaSpace
{
    private readonly Lock _lock = new();
    private readonly List<DmaWindow> _windows = [];
    private GuestMemory? _memory = GuestMemory.Empty;

    /// <summary>The log of pages that the device wrote.</summary>
    internal DirtyPages Dirty { get; } = new();

    public override int WindowCount
    {
        get
        {
            lock (_lock)
            {
                return _windows.Count;
            }
        }
    }

    /// <summary>The first address beyond all windows that a function may map.</summary>
    internal ulong End
    {
        get
        {
            lock (_lock)
            {
                return _windows.FindLast(window => window.Region is not null)?.Last is ulong last and < ulong.MaxValue
                    ? last + 1
                    : 0;
            }
        }
    }

    public override GuestMemory Memory
    {
        get
        {
            lock (_lock)
            {
                // Only windows that may be written, too: a ring's user does not distinguish.
                return _memory ??= GuestMemory.Create(
                    _windows.Where(window => window is { CanRead: true, CanWrite: true, Region: not null })
                        .Select(window => window.Region!),
                    maxWindows);
            }
        }
    }

    /// <summary>Adds a window and takes ownership of it.</summary>
    /// <exception cref="ProtocolException">It overlaps, or there are too many.</exception>
    internal void Add(DmaWindow window)
    {
        lock (_lock)
        {
            if (_windows.Count >= maxWindows)
            {
                throw new ProtocolException("DMA_MAP", "address", $"{maxWindows} windows are there already");
            }

            int place = FindFirstEndingAtOrAbove(window.Address);
            if (place < _windows.Count && _windows[place].Address <= window.Last)
            {
                throw new ProtocolException(
                    "DMA_MAP", "address",
                    $"0x{window.Address:x}, size 0x{window.SizeBytes:x}, overlaps the window at " +
                    $"0x{_windows[place].Address:x}, size 0x{_windows[place].SizeBytes:x}", Errno.Exists);
            }

            _windows.Insert(place, window);
            _memory = null;
        }
    }

    /// <summary>Removes the window of exactly this place; the caller disposes it.</summary>
    internal DmaWindow? Remove(ulong address, ulong sizeBytes)
    {
        lock (_lock)
        {
            int place = FindFirstEndingAtOrAbove(address);
            if (place == _windows.Count || _windows[place].Address != address
                || _windows[place].SizeBytes != sizeBytes)
            {
                return null;
            }

            DmaWindow window = _windows[place];
            _windows.RemoveAt(place);
            _memory = null;
            return window;
        }
    }

    /// <summary>Removes all windows; the caller disposes them.</summary>
    internal DmaWindow[] RemoveAll()
    {
        lock (_lock)
        {
            DmaWindow[] all = [.. _windows];
            _windows.Clear();
            _memory = GuestMemory.Empty;
            return all;
        }
    }

    public override async ValueTask ReadAsync(
        ulong address, Memory<byte> destination, DmaRoute route, CancellationToken cancellation)
    {
        while (!destination.IsEmpty)
        {
            int count = TryReadHere(address, destination, route, out bool byMessage);
            if (byMessage)
            {
                await requests.ReadAsync(address, destination[..count], cancellation).ConfigureAwait(false);
            }

            destination = destination[count..];
            address += (uint)count;
        }
    }

    public override async ValueTask WriteAsync(
        ulong address, ReadOnlyMemory<byte> source, DmaRoute route, CancellationToken cancellation)
    {
        while (!source.IsEmpty)
        {
            int count = TryWriteHere(address, source, route, out bool byMessage);
            if (byMessage)
            {
                await requests.WriteAsync(address, source[..count], cancellation).ConfigureAwait(false);
            }

            source = source[count..];
            address += (uint)count;
        }
    }

    private int TryReadHere(ulong address, Memory<byte> destination, DmaRoute route, out bool byMessage)
    {
        lock (_lock)
        {
            DmaWindow window = Find(address);
            int count = (int)Math.Min((ulong)destination.Length, window.Last - address + 1);
            byMessage = route == DmaRoute.Messages || !window.IsDirect;
            int errno = !window.CanRead ? Errno.AccessDenied
                : byMessage ? 0 : window.Read(address - window.Address, destination.Span[..count]);
            return errno == 0 ? count : throw new DmaException(errno, address);
        }
    }

    private int TryWriteHere(ulong address, ReadOnlyMemory<byte> source, DmaRoute route, out bool byMessage)
    {
        lock (_lock)
        {
            DmaWindow window = Find(address);
            int count = (int)Math.Min((ulong)source.Length, window.Last - address + 1);
            byMessage = route == DmaRoute.Messages || !window.IsDirect;
            int errno = !window.CanWrite ? Errno.AccessDenied
                : byMessage ? 0 : window.Write(address - window.Address, source.Span[..count]);
            if (errno != 0)
            {
                throw new DmaException(errno, address);
            }

            if (!byMessage)
            {
                Dirty.Mark(address, (ulong)count);
            }

            return count;
        }
    }

    private DmaWindow Find(ulong address)
    {
        int place = FindFirstEndingAtOrAbove(address);
        return place < _windows.Count && _windows[place].Address <= address
            ? _windows[place]
            : throw new DmaException(Errno.NoEntry, address);
    }

    private int FindFirstEndingAtOrAbove(ulong address)
    {
        int low = 0;
        int high = _windows.Count;
        while (low < high)
        {
            int middle = (low + high) >>> 1;
            if (_windows[middle].Last < address)
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
}
