// What a transport knows about a ring before it is served, and what it wants to know when it is stopped.
using Outboard.Memory;

namespace Outboard.Virtio.Queue;

/// <summary>Where a ring lies, in guest physical addresses, or in I/O virtual ones behind an IOMMU.</summary>
/// <param name="Descriptors">Descriptor table (split), descriptor ring (packed); aligned to 16.</param>
/// <param name="Available">Available ring (split; aligned to 2), driver event area (packed; aligned to 4).</param>
/// <param name="Used">Used ring (split), device event area (packed); aligned to 4.</param>
public readonly record struct VringAddresses(ulong Descriptors, ulong Available, ulong Used);

/// <summary>Everything needed to serve one ring.</summary>
public sealed class VringSetup
{
    /// <summary>The queue's index in the device.</summary>
    public required int Index { get; init; }

    /// <summary>Queue size in descriptors: a power of two up to 32768.</summary>
    public required int Size { get; init; }

    /// <summary>Where the ring lies.</summary>
    public required VringAddresses Addresses { get; init; }

    /// <summary>
    /// Where the device goes on, as vhost-user "Vring descriptor indices for packed virtqueues" packs it.
    /// Split: bits 0-15 the next available index. Packed: bits 0-14 and 15 the next available index and its wrap
    /// counter, 16-30 and 31 the used ones.
    /// </summary>
    public required uint Base { get; init; }

    /// <summary>The negotiated features, which decide the ring's format and abilities.</summary>
    public required ulong Features { get; init; }

    /// <summary>The queue's part of the in-flight region; null without tracking.</summary>
    public MemoryWindow? Inflight { get; init; }

    /// <summary>Where writes are logged; null while no migration runs.</summary>
    public QueueLog? Log { get; init; }

    /// <summary>Guest memory.</summary>
    public required GuestMemory Memory { get; init; }

    /// <summary>
    /// The translations of an IOMMU: all addresses, also the ring's, are I/O virtual ones. Null without one.
    /// </summary>
    public IommuTable? Iommu { get; init; }
}

/// <summary>A ring that cannot be served as set up.</summary>
public sealed class VringSetupException(string field, string message) : Exception(message)
{
    /// <summary>The offending field, for the refusal that a protocol sends.</summary>
    public string Field { get; } = field;
}
