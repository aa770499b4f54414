// What a device sees of a request's buffers: device-readable and device-writable bytes, scattered over guest memory.
// The guest may change readable bytes at any time: copy what you check.
using System.Runtime.CompilerServices;
using Outboard.Linux;

namespace Outboard.Memory;

/// <summary>Device-readable buffers of a request, borrowed until the request is completed.</summary>
public readonly ref struct ReadableBuffers
{
    private readonly ReadOnlySpan<IoSegment> _segments;

    /// <summary>Wraps segments.</summary>
    public ReadableBuffers(ReadOnlySpan<IoSegment> segments) => _segments = segments;

    /// <summary>The segments, for scatter/gather I/O.</summary>
    public ReadOnlySpan<IoSegment> Segments => _segments;

    /// <summary>Bytes in all buffers.</summary>
    public long Length => Scatter.Length(_segments);

    /// <summary>
    /// Tells the processor that the first buffer will be read soon: it comes from the driver's cache meanwhile.
    /// </summary>
    public void Prefetch()
    {
        if (!_segments.IsEmpty)
        {
            _segments[0].Prefetch();
        }
    }

    /// <summary>Copies bytes out.</summary>
    /// <param name="offset">First byte, counted over all buffers.</param>
    /// <param name="destination">Receives the copy.</param>
    /// <returns>Bytes copied; fewer when the buffers end.</returns>
    public int CopyTo(long offset, Span<byte> destination) => Scatter.CopyTo(_segments, offset, destination);

    /// <summary>Enumerates the buffers in order.</summary>
    public Enumerator GetEnumerator() => new(_segments);

    /// <summary>Yields each buffer as a span.</summary>
    public ref struct Enumerator
    {
        private readonly ReadOnlySpan<IoSegment> _segments;
        private int _index;

        internal Enumerator(ReadOnlySpan<IoSegment> segments)
        {
            _segments = segments;
            _index = -1;
        }

        /// <summary>The current buffer.</summary>
        public readonly ReadOnlySpan<byte> Current => _segments[_index].Span;

        /// <summary>Moves on.</summary>
        public bool MoveNext() => ++_index < _segments.Length;
    }
}

/// <summary>Device-writable buffers of a request, borrowed until the request is completed.</summary>
public readonly ref struct WritableBuffers
{
    private readonly ReadOnlySpan<IoSegment> _segments;

    /// <summary>Wraps segments.</summary>
    public WritableBuffers(ReadOnlySpan<IoSegment> segments) => _segments = segments;

    /// <summary>The segments, for scatter/gather I/O.</summary>
    public ReadOnlySpan<IoSegment> Segments => _segments;

    /// <summary>Bytes in all buffers.</summary>
    public long Length => Scatter.Length(_segments);

    /// <summary>Copies bytes in.</summary>
    /// <param name="offset">First byte, counted over all buffers.</param>
    /// <param name="source">The bytes.</param>
    /// <returns>Bytes copied; fewer when the buffers end.</returns>
    public int CopyFrom(long offset, ReadOnlySpan<byte> source) => Scatter.CopyFrom(_segments, offset, source);

    /// <summary>Fills all buffers with zero bytes.</summary>
    public void Clear()
    {
        foreach (Span<byte> buffer in this)
        {
            buffer.Clear();
        }
    }

    /// <summary>Enumerates the buffers in order.</summary>
    public Enumerator GetEnumerator() => new(_segments);

    /// <summary>Yields each buffer as a span.</summary>
    public ref struct Enumerator
    {
        private readonly ReadOnlySpan<IoSegment> _segments;
        private int _index;

        internal Enumerator(ReadOnlySpan<IoSegment> segments)
        {
            _segments = segments;
            _index = -1;
        }

        /// <summary>The current buffer.</summary>
        public readonly Span<byte> Current => _segments[_index].Span;

        /// <summary>Moves on.</summary>
        public bool MoveNext() => ++_index < _segments.Length;
    }
}

/// <summary>Copies between scattered segments and contiguous memory.</summary>
public static class Scatter
{
    /// <summary>Bytes in all segments.</summary>
    public static long Length(ReadOnlySpan<IoSegment> segments)
    {
        long length = 0;
        foreach (ref readonly IoSegment segment in segments)
        {
            length += segment.Length;
        }

        return length;
    }

    /// <summary>Copies from segments, starting <paramref name="offset"/> bytes into them.</summary>
    /// <returns>Bytes copied.</returns>
    [SkipLocalsInit]
    public static int CopyTo(ReadOnlySpan<IoSegment> segments, long offset, Span<byte> destination)
    {
        int copied = 0;
        foreach (ref readonly IoSegment segment in segments)
        {
            if (offset >= segment.Length)
            {
                offset -= segment.Length;
                continue;
            }

            int part = (int)Math.Min(segment.Length - offset, destination.Length - copied);
            segment.Slice(offset, part).Span.CopyTo(destination[copied..]);
            offset = 0;
            copied += part;
            if (copied == destination.Length)
            {
                break;
            }
        }

        return copied;
    }

    /// <summary>Copies into segments, starting <paramref name="offset"/> bytes into them.</summary>
    /// <returns>Bytes copied.</returns>
    public static int CopyFrom(ReadOnlySpan<IoSegment> segments, long offset, ReadOnlySpan<byte> source)
    {
        int copied = 0;
        foreach (ref readonly IoSegment segment in segments)
        {
            if (offset >= segment.Length)
            {
                offset -= segment.Length;
                continue;
            }

            int part = (int)Math.Min(segment.Length - offset, source.Length - copied);
            source.Slice(copied, part).CopyTo(segment.Slice(offset, part).Span);
            offset = 0;
            copied += part;
            if (copied == source.Length)
            {
                break;
            }
        }

        return copied;
    }
}
