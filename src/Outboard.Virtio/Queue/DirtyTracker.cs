// What one queue tells the dirty log while a migration runs: the pages of buffers that were written, and those of the
// ring, when the front-end wants that. A queue without a tracker pays one branch for each chain.
//
// Where the pages are. Buffers: by their address in this process, back through the memory snapshot, so that it does not
// matter how they were translated. The used area (packed: the device event area): at an address that the front-end
// names, plus the offset in the area, which may lie outside guest memory; and where the area lies, since with an IOMMU
// front-ends name an address that is none of the log. A page too many costs a copy, one too few a guest. Descriptors of
// a packed ring: where they lie.
//
// Order: DirtyLog. Marks are made before the used index is published; those of the index itself right after it. A
// process that is killed between those two left an index that nobody marked; therefore the whole ring is marked when
// logging begins, and when a ring starts.
using Outboard.Linux;
using Outboard.Memory;

namespace Outboard.Virtio.Queue;

/// <summary>Where a queue logs what it writes.</summary>
/// <param name="Log">The bitmap, which outlives its use here.</param>
/// <param name="RingAddress">Where writes to the used ring are logged; null when they are not.</param>
public sealed record QueueLog(DirtyLog Log, ulong? RingAddress = null);

/// <summary>Marks what a queue wrote. Used by the queue's thread.</summary>
internal sealed class DirtyTracker(QueueLog log, GuestMemory memory)
{
    private readonly DirtyLog _log = log.Log;
    private readonly HostAddressMap _map = new(memory);
    private Place _usedArea;
    private Place _descriptors;
    private int _hint;
    private bool _hasMarked;

    internal DirtyTracker With(GuestMemory other) => new(log, other) { _hasMarked = _hasMarked };

    /// <summary>Marks the first bytes of segments. A fence stands before.</summary>
    internal void MarkSegments(ReadOnlySpan<IoSegment> segments, long bytes)
    {
        foreach (ref readonly IoSegment segment in segments)
        {
            if (bytes <= 0)
            {
                return;
            }

            MarkSegment(in segment, Math.Min(bytes, segment.Length));
            bytes -= segment.Length;
        }
    }

    /// <summary>Marks the first bytes of a segment. A fence stands before.</summary>
    internal void MarkSegment(in IoSegment segment, long bytes)
    {
        if (bytes > 0 && _map.TryFind(in segment, ref _hint, out ulong guestAddress))
        {
            _log.Mark(guestAddress, (ulong)bytes);
            _hasMarked = true;
        }
    }

    /// <summary>
    /// Marks a part of the used area, whose address for the log the front-end named. A fence stands before.
    /// </summary>
    internal void MarkUsedArea(in MemoryWindow window, uint offset, uint length)
    {
        if (log.RingAddress is not { } address)
        {
            return;
        }

        ulong here = _usedArea.GuestAddress(in window, _map, address);
        _log.Mark(here + offset, length);
        if (here != address && offset <= ulong.MaxValue - address)
        {
            _log.Mark(address + offset, length);
        }

        _hasMarked = true;
    }

    /// <summary>Marks a part of the ring where it lies in guest memory. A fence stands before.</summary>
    internal void MarkWindow(in MemoryWindow window, uint offset, uint length)
    {
        if (log.RingAddress is { } address)
        {
            _log.Mark(_descriptors.GuestAddress(in window, _map, address) + offset, length);
            _hasMarked = true;
        }
    }

    /// <summary>Pings whoever harvests, once for all marks since the last time.</summary>
    internal void Tell()
    {
        if (_hasMarked)
        {
            _hasMarked = false;
            _log.Tell();
        }
    }

    /// <summary>Where a part of the ring lies, looked up once.</summary>
    private struct Place
    {
        private nuint _address;
        private ulong _guestAddress;

        internal ulong GuestAddress(in MemoryWindow window, HostAddressMap map, ulong otherwise)
        {
            IoSegment segment = window.Segment;
            if (segment.Address != _address)
            {
                int hint = 0;
                _address = segment.Address;
                _guestAddress = map.TryFind(in segment, ref hint, out ulong found) ? found : otherwise;
            }

            return _guestAddress;
        }
    }
}
