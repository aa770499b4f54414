// Where things lie in a shared memory region: pure arithmetic, first fit. Nothing ever moves, since a driver may be
// polling anything that it was told of.
namespace Outboard.VirtioVhostUser.Device;

/// <summary>The places of a region.</summary>
/// <param name="sizeBytes">Bytes of the region.</param>
public sealed class WindowPlan(ulong sizeBytes)
{
    /// <summary>Pieces of this size or more lie at multiples of it, so that huge pages can be used.</summary>
    public const ulong HugePageBytes = 2UL << 20;

    private readonly SortedList<ulong, ulong> _taken = [];

    /// <summary>Bytes of the region.</summary>
    public ulong SizeBytes => sizeBytes;

    /// <summary>Whether nothing lies there.</summary>
    public bool IsEmpty => _taken.Count == 0;

    /// <summary>Takes the first place that is free.</summary>
    /// <param name="length">Bytes, whole pages, not 0.</param>
    /// <returns>Its offset; null when there is none.</returns>
    public ulong? TryPlace(ulong length)
    {
        ulong alignment = length >= HugePageBytes ? HugePageBytes : (ulong)Environment.SystemPageSize;
        ulong start = 0;
        for (int i = 0; i <= _taken.Count; i++)
        {
            ulong end = i < _taken.Count ? _taken.Keys[i] : sizeBytes;
            ulong aligned = (start + alignment - 1) / alignment * alignment;
            if (aligned <= end && length <= end - aligned)
            {
                _taken.Add(aligned, length);
                return aligned;
            }

            start = i < _taken.Count ? end + _taken.Values[i] : end;
        }

        return null;
    }

    /// <summary>Takes a certain place.</summary>
    /// <returns>Whether it is free, and in the region.</returns>
    public bool TryPlaceAt(ulong offset, ulong length)
    {
        bool isFree = length > 0 && offset <= sizeBytes && length <= sizeBytes - offset
            && !_taken.Any(taken => offset < taken.Key + taken.Value && taken.Key < offset + length);
        if (isFree)
        {
            _taken.Add(offset, length);
        }

        return isFree;
    }

    /// <summary>Gives a place back.</summary>
    public void Free(ulong offset) => _taken.Remove(offset);

    /// <summary>Gives all places back.</summary>
    public void Clear() => _taken.Clear();
}
