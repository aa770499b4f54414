// How a device cuts a request's buffers: a header off their front, a trailer off their end. What is left is what the
// segments say from then on; nothing is copied but the header.
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Memory;

namespace Outboard.Virtio.Queue;

public abstract partial class Virtqueue
{
    /// <summary>Copies a header off the front of the readable buffers, however they are cut.</summary>
    internal bool TryTakeHeader<T>(int slot, out T header)
        where T : unmanaged
    {
        header = default;
        ReadOnlySpan<IoSegment> segments = ReadableSegments(slot);
        int bytes = MemoryMarshal.AsBytes(new Span<T>(ref header)).Length;
        if (!segments.IsEmpty && segments[0].Length >= bytes)
        {
            header = MemoryMarshal.Read<T>(segments[0].Span);
        }
        else if (Scatter.CopyTo(segments, 0, MemoryMarshal.AsBytes(new Span<T>(ref header))) != bytes)
        {
            header = default;
            return false;
        }

        SkipReadable(slot, bytes);
        return true;
    }

    /// <summary>Drops the first bytes of the readable buffers.</summary>
    internal void SkipReadable(int slot, int bytes)
    {
        ref ChainSlot info = ref _slots[slot];
        Span<IoSegment> segments = _segments.Segments(slot, info.ReadableStart, info.ReadableCount);
        int whole = 0;
        while (bytes > 0 && bytes >= segments[whole].Length)
        {
            bytes -= (int)segments[whole].Length;
            whole++;
        }

        if (bytes > 0)
        {
            segments[whole] = segments[whole].Slice(bytes, segments[whole].Length - bytes);
        }

        info.ReadableStart += whole;
        info.ReadableCount -= whole;
    }

    /// <summary>Cuts the last bytes off the writable buffers, when they lie in one segment.</summary>
    internal bool TryCutTrailer(int slot, int bytes, out IoSegment trailer)
    {
        ref ChainSlot info = ref _slots[slot];
        trailer = default;
        if (info.WritableCount == 0 || info.Trailer.Length > 0)
        {
            return false;
        }

        Span<IoSegment> segments = _segments.Segments(slot, info.WritableStart, info.WritableCount);
        ref IoSegment last = ref segments[^1];
        if (last.Length < bytes)
        {
            return false;
        }

        trailer = last.Slice(last.Length - bytes, bytes);
        info.Trailer = trailer;
        if (last.Length == bytes)
        {
            info.WritableCount--;
        }
        else
        {
            last = last.Slice(0, last.Length - bytes);
        }

        return true;
    }
}
