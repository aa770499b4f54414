// A driver's view of struct virtio_blk_config, virtio-v1.3 "5.2.4 Device configuration layout"; the offsets stand in
// BlockConfig. A field means something only when its feature was negotiated: without it the property has the default
// that is told. Not here: geometry, secure erase, zones.
using System.Buffers.Binary;
using Outboard.Virtio;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Block.Driver;

/// <summary>What a block device says about itself.</summary>
public sealed record BlockConfigView
{
    /// <summary>Size of the disk in bytes.</summary>
    public ulong CapacityBytes { get; private init; }

    /// <summary>Longest data descriptor; without a limit uint.MaxValue.</summary>
    public uint SizeMax { get; private init; } = uint.MaxValue;

    /// <summary>Most data descriptors of a request; without a limit uint.MaxValue.</summary>
    public uint SegmentMax { get; private init; } = uint.MaxValue;

    /// <summary>Optimal block size; 512 when it is not told.</summary>
    public uint BlockSize { get; private init; } = BlockConfig.SectorBytes;

    /// <summary>Logical blocks of a physical one, as a power of two.</summary>
    public int PhysicalBlockExponent { get; private init; }

    /// <summary>First logical block that begins a physical one.</summary>
    public int AlignmentOffset { get; private init; }

    /// <summary>Suggested smallest transfer in logical blocks; 0 when it is not told.</summary>
    public uint MinIoBlocks { get; private init; }

    /// <summary>Suggested largest transfer in logical blocks; 0 when it is not told.</summary>
    public uint OptimalIoBlocks { get; private init; }

    /// <summary>Whether writes are cached until a flush; null when it is not told.</summary>
    public bool? IsWriteBack { get; private init; }

    /// <summary>Request queues; 1 without MQ.</summary>
    public int QueueCount { get; private init; } = 1;

    /// <summary>Whether writes are refused.</summary>
    public bool IsReadOnly { get; private init; }

    /// <summary>Whether flush is there.</summary>
    public bool HasFlush { get; private init; }

    /// <summary>Limits of discard; null when it is not there.</summary>
    public BlockRangeLimits? Discard { get; private init; }

    /// <summary>Limits of write zeroes; null when it is not there.</summary>
    public BlockRangeLimits? WriteZeroes { get; private init; }

    /// <summary>Decodes a configuration space.</summary>
    /// <param name="config">The space from its first byte; what is missing counts as zero.</param>
    /// <param name="features">The negotiated features.</param>
    public static BlockConfigView Decode(ReadOnlySpan<byte> config, ulong features)
    {
        Span<byte> space = stackalloc byte[BlockConfig.Bytes];
        space.Clear();
        config[..Math.Min(config.Length, BlockConfig.Bytes)].CopyTo(space);
        bool hasTopology = Has(features, BlockFeatures.Topology);
        return new BlockConfigView
        {
            CapacityBytes = Field(space, BlockConfig.Capacity) * BlockConfig.SectorBytes,
            SizeMax = Has(features, BlockFeatures.SizeMax) ? Number(space, BlockConfig.SizeMax) : uint.MaxValue,
            SegmentMax = Has(features, BlockFeatures.SegMax) ? Number(space, BlockConfig.SegMax) : uint.MaxValue,
            IsReadOnly = Has(features, BlockFeatures.ReadOnly),
            BlockSize = Has(features, BlockFeatures.BlockSize)
                ? Number(space, BlockConfig.BlockSize) : BlockConfig.SectorBytes,
            HasFlush = Has(features, BlockFeatures.Flush),
            PhysicalBlockExponent = hasTopology ? (int)Field(space, BlockConfig.PhysicalBlockExponent) : 0,
            AlignmentOffset = hasTopology ? (int)Field(space, BlockConfig.AlignmentOffset) : 0,
            MinIoBlocks = hasTopology ? Number(space, BlockConfig.MinIoSize) : 0,
            OptimalIoBlocks = hasTopology ? Number(space, BlockConfig.OptimalIoSize) : 0,
            IsWriteBack = Has(features, BlockFeatures.ConfigWriteCache)
                ? Field(space, BlockConfig.WriteBack) != 0 : null,
            QueueCount = Has(features, BlockFeatures.MultiQueue) ? (int)Field(space, BlockConfig.QueueCount) : 1,
            Discard = DiscardLimits(space, features),
            WriteZeroes = WriteZeroesLimits(space, features),
        };
    }

    private static BlockRangeLimits? DiscardLimits(ReadOnlySpan<byte> space, ulong features) =>
        Has(features, BlockFeatures.Discard)
            ? new BlockRangeLimits(
                Number(space, BlockConfig.MaxDiscardSectors), Number(space, BlockConfig.MaxDiscardSegments),
                Number(space, BlockConfig.DiscardAlignment), MayUnmap: true)
            : null;

    private static BlockRangeLimits? WriteZeroesLimits(ReadOnlySpan<byte> space, ulong features) =>
        Has(features, BlockFeatures.WriteZeroes)
            ? new BlockRangeLimits(
                Number(space, BlockConfig.MaxWriteZeroesSectors), Number(space, BlockConfig.MaxWriteZeroesSegments),
                AlignmentSectors: 1, Field(space, BlockConfig.WriteZeroesMayUnmap) != 0)
            : null;

    private static bool Has(ulong features, ulong bit) => (features & bit) != 0;

    private static uint Number(ReadOnlySpan<byte> space, ConfigField field) => (uint)Field(space, field);

    private static ulong Field(ReadOnlySpan<byte> space, ConfigField field)
    {
        Span<byte> value = stackalloc byte[sizeof(ulong)];
        value.Clear();
        space.Slice(field.Offset, field.SizeBytes).CopyTo(value);
        return BinaryPrimitives.ReadUInt64LittleEndian(value);
    }
}

/// <summary>Limits of requests that name ranges.</summary>
/// <param name="MaxSectors">Longest range.</param>
/// <param name="MaxSegments">Most ranges of a request.</param>
/// <param name="AlignmentSectors">Alignment that the device prefers.</param>
/// <param name="MayUnmap">Whether the device may free the range.</param>
public readonly record struct BlockRangeLimits(uint MaxSectors, uint MaxSegments, uint AlignmentSectors, bool MayUnmap);
