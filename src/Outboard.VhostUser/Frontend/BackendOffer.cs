// What a back-end offers to whoever asks, before anything is set up.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend;

/// <summary>What a back-end offers. Null stands for what it does not tell.</summary>
public sealed record BackendOffer
{
    /// <summary>Virtio features, those of vhost-user included.</summary>
    public ulong Features { get; init; }

    /// <summary>Protocol features; null when the back-end has none at all.</summary>
    public ProtocolFeatures? ProtocolFeatures { get; init; }

    /// <summary>Virtqueues; null without MQ.</summary>
    public ulong? QueueCount { get; init; }

    /// <summary>Memory regions that it takes; null without CONFIGURE_MEM_SLOTS.</summary>
    public ulong? MemorySlots { get; init; }

    /// <summary>Sizes in bytes of its shared memory regions, by their number; null without SHMEM.</summary>
    public IReadOnlyDictionary<int, ulong>? SharedMemory { get; init; }

    /// <summary>The type of device: as given, or guessed from its features; null when that fails.</summary>
    public VirtioDeviceId? Device { get; init; }

    /// <summary>Whether the type is a guess.</summary>
    public bool IsDeviceGuessed { get; init; }

    /// <summary>The configuration space, as far as its fields mean something; null when it cannot be read.</summary>
    public byte[]? Config { get; init; }

    /// <summary>What could not be asked, and why.</summary>
    public IReadOnlyList<string> Problems { get; init; } = [];
}
