// Constants and layouts of the block device, virtio-v1.3 "5.2 Block Device". All fields little-endian.
using System.Runtime.InteropServices;

namespace Outboard.Virtio.Spec;

/// <summary>Feature bits of the block device, virtio-v1.3 "5.2.3 Feature bits".</summary>
public static class BlockFeatures
{
    /// <summary>VIRTIO_BLK_F_SIZE_MAX.</summary>
    public const ulong SizeMax = 1UL << 1;

    /// <summary>VIRTIO_BLK_F_SEG_MAX.</summary>
    public const ulong SegMax = 1UL << 2;

    /// <summary>VIRTIO_BLK_F_GEOMETRY.</summary>
    public const ulong Geometry = 1UL << 4;

    /// <summary>VIRTIO_BLK_F_RO.</summary>
    public const ulong ReadOnly = 1UL << 5;

    /// <summary>VIRTIO_BLK_F_BLK_SIZE.</summary>
    public const ulong BlockSize = 1UL << 6;

    /// <summary>VIRTIO_BLK_F_FLUSH.</summary>
    public const ulong Flush = 1UL << 9;

    /// <summary>VIRTIO_BLK_F_TOPOLOGY.</summary>
    public const ulong Topology = 1UL << 10;

    /// <summary>VIRTIO_BLK_F_CONFIG_WCE.</summary>
    public const ulong ConfigWriteCache = 1UL << 11;

    /// <summary>VIRTIO_BLK_F_MQ.</summary>
    public const ulong MultiQueue = 1UL << 12;

    /// <summary>VIRTIO_BLK_F_DISCARD.</summary>
    public const ulong Discard = 1UL << 13;

    /// <summary>VIRTIO_BLK_F_WRITE_ZEROES.</summary>
    public const ulong WriteZeroes = 1UL << 14;
}

/// <summary>Request types, virtio-v1.3 "5.2.6 Device Operation".</summary>
public enum BlockRequestType : uint
{
    /// <summary>VIRTIO_BLK_T_IN: read.</summary>
    In = 0,

    /// <summary>VIRTIO_BLK_T_OUT: write.</summary>
    Out = 1,

    /// <summary>VIRTIO_BLK_T_FLUSH.</summary>
    Flush = 4,

    /// <summary>VIRTIO_BLK_T_GET_ID.</summary>
    GetId = 8,

    /// <summary>VIRTIO_BLK_T_GET_LIFETIME.</summary>
    GetLifetime = 10,

    /// <summary>VIRTIO_BLK_T_DISCARD.</summary>
    Discard = 11,

    /// <summary>VIRTIO_BLK_T_WRITE_ZEROES.</summary>
    WriteZeroes = 13,

    /// <summary>VIRTIO_BLK_T_SECURE_ERASE.</summary>
    SecureErase = 14,
}

/// <summary>Request status.</summary>
public enum BlockStatus : byte
{
    /// <summary>VIRTIO_BLK_S_OK.</summary>
    Ok = 0,

    /// <summary>VIRTIO_BLK_S_IOERR.</summary>
    IoError = 1,

    /// <summary>VIRTIO_BLK_S_UNSUPP.</summary>
    Unsupported = 2,
}

/// <summary>Head of a request: 0 type u32, 4 reserved u32, 8 sector u64.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
public readonly record struct BlockRequestHeader(BlockRequestType Type, uint Reserved, ulong Sector)
{
    /// <summary>Bytes of a header.</summary>
    public const int Bytes = 16;
}

/// <summary>
/// A range of discard and write zeroes: 0 sector u64, 8 number of sectors u32, 12 flags u32 (bit 0: unmap).
/// </summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
public readonly record struct BlockRange(ulong Sector, uint SectorCount, uint Flags)
{
    /// <summary>Bytes of a range.</summary>
    public const int Bytes = 16;

    /// <summary>Flag of write zeroes: the range may be unmapped.</summary>
    public const uint Unmap = 1;
}

/// <summary>Offsets of the configuration space, virtio-v1.3 "5.2.4 Device configuration layout".</summary>
public static class BlockConfig
{
    /// <summary>Bytes up to and including write zeroes.</summary>
    public const int Bytes = 60;

    /// <summary>Bytes of a sector, the unit of every address.</summary>
    public const int SectorBytes = 512;

    /// <summary>Bytes of the identity that GET_ID returns.</summary>
    public const int IdBytes = 20;

    /// <summary>capacity, in sectors.</summary>
    public static readonly ConfigField Capacity = new(0, 8);

    /// <summary>size_max.</summary>
    public static readonly ConfigField SizeMax = new(8, 4);

    /// <summary>seg_max.</summary>
    public static readonly ConfigField SegMax = new(12, 4);

    /// <summary>blk_size.</summary>
    public static readonly ConfigField BlockSize = new(20, 4);

    /// <summary>topology.physical_block_exp.</summary>
    public static readonly ConfigField PhysicalBlockExponent = new(24, 1);

    /// <summary>topology.alignment_offset.</summary>
    public static readonly ConfigField AlignmentOffset = new(25, 1);

    /// <summary>topology.min_io_size, in blocks.</summary>
    public static readonly ConfigField MinIoSize = new(26, 2);

    /// <summary>topology.opt_io_size, in blocks.</summary>
    public static readonly ConfigField OptimalIoSize = new(28, 4);

    /// <summary>writeback; the one field that a driver may write.</summary>
    public static readonly ConfigField WriteBack = new(32, 1, IsWritable: true);

    /// <summary>num_queues.</summary>
    public static readonly ConfigField QueueCount = new(34, 2);

    /// <summary>max_discard_sectors.</summary>
    public static readonly ConfigField MaxDiscardSectors = new(36, 4);

    /// <summary>max_discard_seg.</summary>
    public static readonly ConfigField MaxDiscardSegments = new(40, 4);

    /// <summary>discard_sector_alignment.</summary>
    public static readonly ConfigField DiscardAlignment = new(44, 4);

    /// <summary>max_write_zeroes_sectors.</summary>
    public static readonly ConfigField MaxWriteZeroesSectors = new(48, 4);

    /// <summary>max_write_zeroes_seg.</summary>
    public static readonly ConfigField MaxWriteZeroesSegments = new(52, 4);

    /// <summary>write_zeroes_may_unmap.</summary>
    public static readonly ConfigField WriteZeroesMayUnmap = new(56, 1);
}
