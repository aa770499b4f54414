// What lies in shared memory regions, for whoever shows them to a driver by copying: parts of memory objects, mapped
// while the device runs. What is not mapped reads as zero, and writes to it are dropped.
using Outboard.Linux.Memory;
using Outboard.Memory;

namespace Outboard.Virtio;

/// <summary>The mapped parts of a device's regions. From any thread.</summary>
public sealed class SharedRegionMemory : IDisposable
{
    private readonly Lock _lock = new();
    private readonly Dictionary<SharedRegionPart, MemoryMapping> _parts = [];
    private readonly SharedRegionMap _map;

    /// <summary>Begins with nothing mapped.</summary>
    public SharedRegionMemory(IEnumerable<SharedRegion> regions) => _map = new SharedRegionMap(regions);

    /// <summary>Parts that are mapped.</summary>
    public int Count => _map.Count;

    /// <summary>Maps a part.</summary>
    /// <param name="part">Where.</param>
    /// <param name="memory">What; stays the caller's.</param>
    /// <param name="memoryOffset">First byte of it; a page boundary.</param>
    /// <param name="writable">Whether a driver may write.</param>
    /// <returns>False when it cannot be: no such region, no whole pages, mapped already, or the object is too small.
    /// </returns>
    public bool TryMap(SharedRegionPart part, SharedMemory memory, ulong memoryOffset, bool writable)
    {
        ArgumentNullException.ThrowIfNull(memory);
        lock (_lock)
        {
            if (memoryOffset % (ulong)Environment.SystemPageSize != 0 || _map.TryAdd(part) is not null)
            {
                return false;
            }

            try
            {
                _parts.Add(part, memory.Map(memoryOffset, part.Length, writable));
                return true;
            }
            catch (IOException)
            {
                _map.TryRemove(part);
                return false;
            }
        }
    }

    /// <summary>Unmaps exactly what was mapped.</summary>
    /// <returns>False when there is no such mapping.</returns>
    public bool TryUnmap(SharedRegionPart part)
    {
        lock (_lock)
        {
            if (!_map.TryRemove(part) || !_parts.Remove(part, out MemoryMapping? mapping))
            {
                return false;
            }

            mapping.Dispose();
            return true;
        }
    }

    /// <summary>Unmaps all parts.</summary>
    public void Clear()
    {
        lock (_lock)
        {
            foreach (MemoryMapping mapping in _parts.Values)
            {
                mapping.Dispose();
            }

            _parts.Clear();
            _map.Clear();
        }
    }

    /// <summary>Copies bytes out of a region.</summary>
    /// <param name="region">The region's number.</param>
    /// <param name="offset">First byte.</param>
    /// <param name="destination">Receives the bytes; zero where nothing is mapped.</param>
    public void Read(byte region, ulong offset, Span<byte> destination)
    {
        lock (_lock)
        {
            destination.Clear();
            foreach ((SharedRegionPart part, MemoryMapping mapping) in _parts)
            {
                if (TryMeet(part, region, offset, destination.Length, out int at, out long from, out int length))
                {
                    mapping.Segment.Slice(from, length).Span.CopyTo(destination[at..]);
                }
            }
        }
    }

    /// <summary>Copies bytes into a region; dropped where nothing may be written.</summary>
    /// <param name="region">The region's number.</param>
    /// <param name="offset">First byte.</param>
    /// <param name="source">The bytes.</param>
    public void Write(byte region, ulong offset, ReadOnlySpan<byte> source)
    {
        lock (_lock)
        {
            foreach ((SharedRegionPart part, MemoryMapping mapping) in _parts)
            {
                if (mapping.IsWritable
                    && TryMeet(part, region, offset, source.Length, out int at, out long from, out int length))
                {
                    source.Slice(at, length).CopyTo(mapping.Segment.Slice(from, length).Span);
                }
            }
        }
    }

    /// <inheritdoc/>
    public void Dispose() => Clear();

    private static bool TryMeet(
        SharedRegionPart part, byte region, ulong offset, int count, out int at, out long from, out int length)
    {
        ulong first = Math.Max(part.Offset, offset);
        ulong end = Math.Min(part.Offset + part.Length, offset + (ulong)count);
        bool meets = part.Region == region && first < end;
        at = meets ? (int)(first - offset) : 0;
        from = meets ? (long)(first - part.Offset) : 0;
        length = meets ? (int)(end - first) : 0;
        return meets;
    }
}
