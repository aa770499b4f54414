// Layouts of the in-flight region, vhost-user "Inflight I/O tracking". Host byte order. The queue regions follow each other
// at equal distance; this library (like others) aligns each to 64 bytes, and computes the distance of a region that it
// is given.
//   split   0 features u64, 8 version u16, 10 desc_num u16, 12 last_batch_head u16, 14 used_idx u16, 16 desc[]
//           desc: 0 inflight u8, 6 next u16, 8 counter u64                                             16 bytes
//   packed  0 features u64, 8 version u16, 10 desc_num u16, 12 free_head u16, 14 old_free_head u16, 16 used_idx u16,
//           18 old_used_idx u16, 20 used_wrap_counter u8, 21 old_used_wrap_counter u8, 32 desc[]
//           desc: 0 inflight u8, 2 next u16, 4 last u16, 6 num u16, 8 counter u64, 16 id u16, 18 flags u16, 20 len u32,
//           24 addr u64                                                                               32 bytes
namespace Outboard.Virtio.Spec;

/// <summary>Layouts of the in-flight region.</summary>
public static class InflightSpec
{
    /// <summary>The version of a region that is in use; 0 is a fresh one.</summary>
    public const ushort Version = 1;

    /// <summary>Offset of version.</summary>
    public const uint VersionOffset = 8;

    /// <summary>Offset of desc_num.</summary>
    public const uint DescriptorCountOffset = 10;

    private const uint AlignmentBytes = 64;

    /// <summary>Bytes of one queue's region.</summary>
    public static uint QueueBytes(bool isPacked, int size)
    {
        uint bytes = isPacked
            ? PackedInflightSpec.HeaderBytes + ((uint)size * PackedInflightSpec.EntryBytes)
            : SplitInflightSpec.HeaderBytes + ((uint)size * SplitInflightSpec.EntryBytes);
        return (bytes + AlignmentBytes - 1) / AlignmentBytes * AlignmentBytes;
    }
}

/// <summary>A split queue's region.</summary>
internal static class SplitInflightSpec
{
    internal const uint HeaderBytes = 16;
    internal const uint EntryBytes = 16;
    internal const uint LastBatchHead = 12;
    internal const uint UsedIndex = 14;
    internal const uint EntryInflight = 0;
    internal const uint EntryNext = 6;
    internal const uint EntryCounter = 8;
}

/// <summary>A packed queue's region.</summary>
internal static class PackedInflightSpec
{
    internal const uint HeaderBytes = 32;
    internal const uint EntryBytes = 32;
    internal const uint FreeHead = 12;
    internal const uint OldFreeHead = 14;
    internal const uint UsedIndex = 16;
    internal const uint OldUsedIndex = 18;
    internal const uint UsedWrap = 20;
    internal const uint OldUsedWrap = 21;

    /// <summary>The four before in one aligned word, so that they change together.</summary>
    internal const uint UsedWord = 16;
    internal const uint EntryInflight = 0;
    internal const uint EntryNext = 2;
    internal const uint EntryLast = 4;
    internal const uint EntryNum = 6;
    internal const uint EntryCounter = 8;
    internal const uint EntryId = 16;
    internal const uint EntryFlags = 18;
    internal const uint EntryLength = 20;
    internal const uint EntryAddress = 24;
}
