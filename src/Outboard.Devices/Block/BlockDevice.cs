// The block device, virtio-v1.3 "5.2 Block Device": identity, features, configuration. Requests are in BlockQueue.
// Not here: zoned devices, secure erase, lifetime information.
using System.Numerics;
using System.Text;
using Outboard.Devices.Block.Backends;
using Outboard.Virtio;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Block;

/// <summary>A virtio block device on a <see cref="Disk"/>.</summary>
public sealed partial class BlockDevice : VirtioDevice
{
    /// <summary>
    /// Segments of a request, beside header and status, on a queue of 128: the size that QEMU gives its queues, and the
    /// one that a driver without indirect descriptors must be able to use.
    /// </summary>
    private const int MaxSegments = 126;

    /// <summary>Bytes of a segment.</summary>
    private const uint MaxSegmentBytes = 4 << 20;

    /// <summary>
    /// Sectors of one discard or write zeroes: 1 GiB, so that one request does not keep the storage for long.
    /// </summary>
    private const uint MaxRangeSectors = 1 << 21;

    private readonly Disk _disk;
    private readonly BlockDeviceOptions _options;
    private volatile bool _isWriteBack;

    /// <summary>Makes a device on a disk, which stays the caller's to dispose.</summary>
    /// <exception cref="ArgumentException">An option is out of range, or does not suit the disk.</exception>
    public BlockDevice(Disk disk, BlockDeviceOptions? options = null)
        : this(disk, options ?? new BlockDeviceOptions(), 0)
    {
    }

    private BlockDevice(Disk disk, BlockDeviceOptions options, int _)
        : base(
            VirtioDeviceId.Block,
            QueueSizes(options),
            new ConfigSpace(BlockConfig.Bytes, BlockConfig.WriteBack))
    {
        ArgumentNullException.ThrowIfNull(disk);
        _disk = disk;
        _options = options;
        BlockSize = Math.Max(options.BlockSize, disk.BlockSize);
        if (!IsBlockSize(options.BlockSize) || !IsBlockSize(BlockSize) || disk.SizeBytes % BlockSize != 0)
        {
            throw new ArgumentException(
                $"block size {options.BlockSize}: it must be a power of two from 512 to 4096, " +
                $"at least {disk.BlockSize}, that divides the disk's {disk.SizeBytes} bytes");
        }

        if (options.Serial.Length > BlockConfig.IdBytes || !Ascii.IsValid(options.Serial))
        {
            throw new ArgumentException(
                $"serial '{options.Serial}' is not up to {BlockConfig.IdBytes} ASCII characters");
        }

        Serial = Encoding.ASCII.GetBytes(options.Serial);
        IsReadOnly = options.ReadOnly || disk.IsReadOnly;
        DescribeDisk();
        ResetWriteBack();
    }

    /// <summary>Whether writes are refused.</summary>
    public bool IsReadOnly { get; }

    /// <summary>Logical block size in bytes.</summary>
    public int BlockSize { get; }

    /// <inheritdoc/>
    public override ulong DeviceFeatures =>
        BlockFeatures.SizeMax | BlockFeatures.SegMax | BlockFeatures.BlockSize | BlockFeatures.Flush
        | BlockFeatures.Topology | BlockFeatures.ConfigWriteCache
        | (QueueCount > 1 ? BlockFeatures.MultiQueue : 0)
        | (IsReadOnly ? BlockFeatures.ReadOnly : BlockFeatures.Discard | BlockFeatures.WriteZeroes);

    /// <summary>The identity, as GET_ID returns it.</summary>
    internal byte[] Serial { get; }

    /// <summary>Whether writes may stay in a cache until a flush.</summary>
    internal bool IsWriteBack => _isWriteBack;

    internal long SizeBytes => _disk.SizeBytes;

    /// <summary>Looks at the disk's size again and tells drivers when it changed. From any thread.</summary>
    /// <returns>Whether it changed.</returns>
    public bool RefreshSize() => SetCapacity(_disk.RefreshSize());

    private bool SetCapacity(long size)
    {
        size = size / BlockSize * BlockSize;
        bool changed = Config.Set(BlockConfig.Capacity, (ulong)size / BlockConfig.SectorBytes);
        if (changed)
        {
            NotifyConfigChanged();
        }

        return changed;
    }

    /// <inheritdoc/>
    public override async Task TakeOverAsync()
    {
        await _disk.AcquireAsync().ConfigureAwait(false);
        SetCapacity(SizeBytes);
    }

    /// <inheritdoc/>
    /// <remarks>Whoever takes the disk over may see it through another host's cache.</remarks>
    public override void HandOver()
    {
        _ = _disk.Flush();
        _disk.Release();
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        base.Reset();
        ResetWriteBack();
    }

    /// <summary>Checks a range of a request.</summary>
    /// <param name="sector">First sector, as the driver gave it.</param>
    /// <param name="length">Bytes.</param>
    /// <param name="offset">First byte.</param>
    internal bool IsInRange(ulong sector, long length, out long offset)
    {
        ulong sectors = (ulong)SizeBytes / BlockConfig.SectorBytes;
        offset = (long)(sector * BlockConfig.SectorBytes);
        return sector <= sectors && length % BlockSize == 0 && offset % BlockSize == 0
            && (ulong)length / BlockConfig.SectorBytes <= sectors - sector;
    }

    /// <summary>Whether a discard or write zeroes has an acceptable number of sectors.</summary>
    internal static bool IsRangeSize(uint sectors) => sectors <= MaxRangeSectors;

    /// <inheritdoc/>
    protected override QueueHandler CreateHandler(QueueContext context) => new BlockQueue(this, _disk, context);

    /// <inheritdoc/>
    protected override void OnFeaturesAccepted(ulong features)
    {
        if ((features & (BlockFeatures.ConfigWriteCache | BlockFeatures.Flush)) == BlockFeatures.ConfigWriteCache)
        {
            // A driver that cannot flush begins without a cache: virtio-v1.3 "5.2.5.2 Device Requirements: Device
            // Initialization".
            Config.Set(BlockConfig.WriteBack, 0);
        }

        UpdateWriteBack();
    }

    /// <inheritdoc/>
    protected override void OnConfigWritten() => UpdateWriteBack();

    /// <summary>Decides between write-back and write-through, and flushes when the latter begins.</summary>
    private void UpdateWriteBack()
    {
        bool writeBack = (NegotiatedFeatures & BlockFeatures.ConfigWriteCache) != 0
            ? Config.Get(BlockConfig.WriteBack) != 0
            : _options.WriteCache && (NegotiatedFeatures & BlockFeatures.Flush) != 0;
        if (_isWriteBack && !writeBack)
        {
            // From here on a completed write is durable; so must be those before.
            _isWriteBack = false;
            _ = _disk.Flush();
        }

        _isWriteBack = writeBack;
    }

    private static bool IsBlockSize(int bytes) => bytes is >= 512 and <= 4096 && BitOperations.IsPow2(bytes);

    private static int[] QueueSizes(BlockDeviceOptions options)
    {
        // num_queues has 16 bits.
        ArgumentOutOfRangeException.ThrowIfLessThan(options.QueueCount, 1, nameof(options));
        ArgumentOutOfRangeException.ThrowIfGreaterThan(options.QueueCount, ushort.MaxValue, nameof(options));
        int[] sizes = new int[options.QueueCount];
        Array.Fill(sizes, options.QueueSize);
        return sizes;
    }

    private void ResetWriteBack()
    {
        Config.Set(BlockConfig.WriteBack, _options.WriteCache ? 1UL : 0UL);
        _isWriteBack = _options.WriteCache;
    }

    private void DescribeDisk()
    {
        uint blockSectors = (uint)BlockSize / BlockConfig.SectorBytes;
        int physical = Math.Max(_disk.PhysicalBlockSize, BlockSize);
        Config.Set(BlockConfig.Capacity, (ulong)SizeBytes / BlockConfig.SectorBytes);
        Config.Set(BlockConfig.SizeMax, MaxSegmentBytes);
        Config.Set(BlockConfig.SegMax, (ulong)Math.Clamp(_options.QueueSize - 2, 1, MaxSegments));
        Config.Set(BlockConfig.BlockSize, (ulong)BlockSize);
        Config.Set(BlockConfig.PhysicalBlockExponent, (ulong)BitOperations.Log2((uint)(physical / BlockSize)));
        Config.Set(BlockConfig.MinIoSize, (ulong)(physical / BlockSize));
        Config.Set(BlockConfig.OptimalIoSize, 0);
        Config.Set(BlockConfig.QueueCount, (ulong)QueueCount);
        if (IsReadOnly)
        {
            return;
        }

        Config.Set(BlockConfig.MaxDiscardSectors, MaxRangeSectors);
        Config.Set(BlockConfig.MaxDiscardSegments, 1);
        Config.Set(BlockConfig.DiscardAlignment, Math.Max(blockSectors, (uint)physical / BlockConfig.SectorBytes));
        Config.Set(BlockConfig.MaxWriteZeroesSectors, MaxRangeSectors);
        Config.Set(BlockConfig.MaxWriteZeroesSegments, 1);
        Config.Set(BlockConfig.WriteZeroesMayUnmap, 1);
    }
}
