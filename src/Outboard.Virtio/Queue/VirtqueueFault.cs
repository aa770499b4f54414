// What a driver can do wrong on a ring. A fault is a value: it parks the queue until reset, and nothing else.
namespace Outboard.Virtio.Queue;

/// <summary>Why a queue stopped being served.</summary>
public enum VirtqueueFault
{
    /// <summary>It is served.</summary>
    None,

    /// <summary>The available index moved by more than the queue's size.</summary>
    AvailableIndexJumped,

    /// <summary>An available entry names a descriptor outside the table.</summary>
    HeadOutOfRange,

    /// <summary>An available entry names a chain that the device still holds.</summary>
    HeadInFlight,

    /// <summary>A descriptor's next field points outside the table.</summary>
    NextOutOfRange,

    /// <summary>A chain is longer than the queue (or has a loop), has over 4 GiB, or lies in too many pieces.</summary>
    ChainTooLong,

    /// <summary>A buffer is not in guest memory.</summary>
    BufferOutsideMemory,

    /// <summary>An indirect table without the feature.</summary>
    IndirectNotNegotiated,

    /// <summary>An indirect table of a size that is 0, no multiple of 16 or too large.</summary>
    IndirectTableSize,

    /// <summary>An indirect table that is not in guest memory.</summary>
    IndirectTableOutsideMemory,

    /// <summary>An indirect table inside an indirect table, or one followed by a next descriptor.</summary>
    IndirectMisplaced,

    /// <summary>A device-readable buffer after a device-writable one.</summary>
    ReadableAfterWritable,

    /// <summary>The rings themselves are no longer in guest memory.</summary>
    RingOutsideMemory,

    /// <summary>The IOMMU does not translate an address, or does not allow the access.</summary>
    TranslationRefused,

    /// <summary>The ring, once it was translated, does not fit what was told about it.</summary>
    RingUnusable,

    /// <summary>Translations are missing: the queue waits. Never a queue's fault.</summary>
    Untranslated,
}
