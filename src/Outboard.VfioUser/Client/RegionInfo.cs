// What a server tells about a region, with the memory that can be mapped.
using Outboard.Memory;
using Outboard.Pci.Bars;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Client;

/// <summary>A region of a device.</summary>
/// <param name="Flags">What can be done with it; none when it is not there.</param>
/// <param name="SizeBytes">Bytes.</param>
/// <param name="Offset">Where the region begins in <see cref="Memory"/>.</param>
public sealed record RegionInfo(RegionFlags Flags, ulong SizeBytes, ulong Offset) : IDisposable
{
    /// <summary>What can be mapped of it.</summary>
    public IReadOnlyList<BarArea> Areas { get; init; } = [];

    /// <summary>The memory behind it; null when it cannot be mapped.</summary>
    public SharedMemory? Memory { get; init; }

    /// <inheritdoc/>
    public void Dispose() => Memory?.Dispose();
}
