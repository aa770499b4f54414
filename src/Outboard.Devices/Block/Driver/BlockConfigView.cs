// A driver's view of struct virtio_blk_config, virtio-v1.3 "5.2.4 Device configuration layout". Little-endian:
//    0 capacity u64          8 size_max u32           12 seg_max u32
//   16 geometry: cylinders u16, heads u8, sectors u8  20 blk_size u32
//   24 topology: physical_block_exp u8, alignment_offset u8, min_io_size u16, opt_io_size u32
//   32 writeback u8 (wce)   33 unused                 34 num_queues u16
//   36 max_discard_sectors u32, 40 max_discard_seg u32, 44 discard_sector_alignment u32
//   48 max_write_zeroes_sectors u32, 52 max_write_zeroes_seg u32, 56 write_zeroes_may_unmap u8, 57 unused[3]
// A field means something only when its feature was negotiated: without it the property has the default that is told.
// Not here: secure erase, zones.
using System.Buffers.Binary;

namespace Outboard.Devices.Block.Driver;

/// <summary>What a block device says about itself.</summary>
public sealed record BlockConfigView
{
    /// <summary>Bytes of the configuration space that are looked at.</summary>
    public const int SizeBytes = 60;

    /// <summary>Size of the disk in bytes.</summary>
    public ulong CapacityBytes { get; private init; }

    /// <summary>Longest data descriptor; without a limit uint.MaxValue.</summary>
    public uint SizeMax { get; private init; } = uint.MaxValue;

    /// <summary>Most data descriptors of a request; without a limit uint.MaxValue.</summary>
    public uint SegmentMax { get; private init; } = uint.MaxValue;

    /// <summary>Optimal block size; 512 when it is not told.</summary>
    public uint BlockSize { get; private init; } = 512;

    /// <summary>Logical blocks of a physical one, as a power of two.</summary>
    public byte PhysicalBlockExponent { get; private init; }

    /// <summary>First logical block that begins a physical one.</summary>
    public byte AlignmentOffset { get; private init; }

    /// <summary>Suggested smallest transfer in logical blocks; 0 when it is not told.</summary>
    public ushort MinIoBlocks { get; private init; }

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
        Span<byte> space = stackalloc byte[SizeBytes];
        space.Clear();
        config[..Math.Min(config.Length, SizeBytes)].CopyTo(space);
        bool has(int bit) => (features & (1UL << bit)) != 0;
        BlockConfigView view = new()
        {
            CapacityBytes = BinaryPrimitives.ReadUInt64LittleEndian(space) * BlockDriver.SectorBytes,
            SizeMax = has(1) ? Number(space, 8) : uint.MaxValue,
            SegmentMax = has(2) ? Number(space, 12) : uint.MaxValue,
            IsReadOnly = has(5),
            BlockSize = has(6) ? Number(space, 20) : 512,
            HasFlush = has(9),
            IsWriteBack = has(11) ? space[32] != 0 : null,
            QueueCount = has(12) ? BinaryPrimitives.ReadUInt16LittleEndian(space[34..]) : 1,
            Discard = has(13) ? new(Number(space, 36), Number(space, 40), Number(space, 44), false) : null,
            WriteZeroes = has(14) ? new(Number(space, 48), Number(space, 52), 1, space[56] != 0) : null,
        };
        return has(10)
            ? view with
            {
                PhysicalBlockExponent = space[24],
                AlignmentOffset = space[25],
                MinIoBlocks = BinaryPrimitives.ReadUInt16LittleEndian(space[26..]),
                OptimalIoBlocks = Number(space, 28),
            }
            : view;
    }

    private static uint Number(ReadOnlySpan<byte> space, int offset) =>
        BinaryPrimitives.ReadUInt32LittleEndian(space[offset..]);
}

/// <summary>Limits of requests that name ranges.</summary>
/// <param name="MaxSectors">Longest range.</param>
/// <param name="MaxSegments">Most ranges of a request.</param>
/// <param name="AlignmentSectors">Alignment that the device prefers.</param>
/// <param name="MayUnmap">Whether a write of zeroes may free the range.</param>
public readonly record struct BlockRangeLimits(uint MaxSectors, uint MaxSegments, uint AlignmentSectors, bool MayUnmap);
