// What the device says of itself, its options, and the write cache that drivers may switch.
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Linux;
using Outboard.Tests.Linux;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block;

public sealed class ConfigTests
{
    private const int Bytes = 1 << 20;
    private const ulong Wce = BlockFeatures.ConfigWriteCache;
    private const ulong Flush = BlockFeatures.Flush;

    [Fact]
    public void Fields_describe_the_disk()
    {
        using NullDisk disk = new(Bytes);
        BlockDevice device = new(disk, new BlockDeviceOptions { QueueCount = 3, QueueSize = 256, BlockSize = 4096 });
        Assert.Equal(2048UL, device.Config.Get(BlockConfig.Capacity));
        Assert.Equal(126UL, device.Config.Get(BlockConfig.SegMax));
        Assert.True(device.Config.Get(BlockConfig.SizeMax) >= 1 << 20);
        Assert.Equal(4096UL, device.Config.Get(BlockConfig.BlockSize));
        Assert.Equal(0UL, device.Config.Get(BlockConfig.PhysicalBlockExponent));
        Assert.Equal(0UL, device.Config.Get(BlockConfig.AlignmentOffset));
        Assert.Equal(1UL, device.Config.Get(BlockConfig.MinIoSize));
        Assert.Equal(1UL, device.Config.Get(BlockConfig.WriteBack));
        Assert.Equal(3UL, device.Config.Get(BlockConfig.QueueCount));
        Assert.Equal(1UL, device.Config.Get(BlockConfig.MaxDiscardSegments));
        Assert.Equal(8UL, device.Config.Get(BlockConfig.DiscardAlignment));
        Assert.Equal(1UL, device.Config.Get(BlockConfig.MaxWriteZeroesSegments));
        Assert.Equal(1UL, device.Config.Get(BlockConfig.WriteZeroesMayUnmap));
        Assert.NotEqual(0UL, device.DeviceFeatures & BlockFeatures.MultiQueue);
        Assert.Equal(256, device.MaxQueueSize(2));
    }

    [Theory]
    [InlineData(2, 1)]
    [InlineData(4, 2)]
    [InlineData(128, 126)]
    [InlineData(32768, 126)]
    public void Segments_fit_into_the_queue(int queueSize, int expected)
    {
        using NullDisk disk = new(Bytes);
        BlockDevice device = new(disk, new BlockDeviceOptions { QueueSize = queueSize });
        Assert.Equal((ulong)expected, device.Config.Get(BlockConfig.SegMax));
        Assert.Equal(0UL, device.DeviceFeatures & BlockFeatures.MultiQueue);
    }

    [Fact]
    public void Files_hint_at_their_blocks()
    {
        using TemporaryFile file = TemporaryFile.OnDisk(Bytes);
        using FileDisk disk = FileDisk.Open(file.Path);
        BlockDevice device = new(disk);
        Assert.Equal(512UL, device.Config.Get(BlockConfig.BlockSize));
        Assert.Equal(3UL, device.Config.Get(BlockConfig.PhysicalBlockExponent));
        Assert.Equal(8UL, device.Config.Get(BlockConfig.MinIoSize));
        Assert.Equal(8UL, device.Config.Get(BlockConfig.DiscardAlignment));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(-1)]
    [InlineData(1)]
    [InlineData(256)]
    [InlineData(513)]
    [InlineData(1536)]
    [InlineData(8192)]
    public void Block_sizes_out_of_range_are_refused(int blockSize) =>
        AssertRefused(new BlockDeviceOptions { BlockSize = blockSize });

    [Theory]
    [InlineData(0)]
    [InlineData(-1)]
    [InlineData(65536)]
    [InlineData(int.MaxValue)]
    public void Queue_counts_out_of_range_are_refused(int count) =>
        AssertRefused(new BlockDeviceOptions { QueueCount = count });

    [Theory]
    [InlineData(0)]
    [InlineData(-1)]
    [InlineData(32769)]
    public void Queue_sizes_out_of_range_are_refused(int size) =>
        AssertRefused(new BlockDeviceOptions { QueueSize = size });

    [Theory]
    [InlineData("123456789012345678901")]
    [InlineData("na\u00efve")]
    public void Serials_that_do_not_fit_are_refused(string serial) =>
        AssertRefused(new BlockDeviceOptions { Serial = serial });

    [Theory]
    [InlineData(0)]
    [InlineData(-512)]
    [InlineData(700)]
    public void Disks_in_memory_have_whole_sectors(long bytes) =>
        Assert.ThrowsAny<ArgumentException>(() => new MemoryDisk(bytes));

    [Fact]
    public void A_disk_must_have_whole_blocks()
    {
        using NullDisk disk = new(4096 + 512);
        Assert.ThrowsAny<ArgumentException>(() => new BlockDevice(disk, new BlockDeviceOptions { BlockSize = 4096 }));
        Assert.ThrowsAny<ArgumentException>(() => new BlockDevice(null!));
    }

    /// <summary>
    /// Whether a write must be durable when it completes: virtio-v1.3 "5.2.6.2 Device Requirements: Device Operation".
    /// </summary>
    [Theory]
    [InlineData(true, Wce | Flush, -1, false)]
    [InlineData(true, Wce | Flush, 0, true)]
    [InlineData(true, Wce | Flush, 1, false)]
    [InlineData(false, Wce | Flush, -1, true)]
    [InlineData(false, Wce | Flush, 1, false)]
    [InlineData(true, Flush, -1, false)]
    [InlineData(false, Flush, -1, true)]
    [InlineData(true, 0UL, -1, true)]
    [InlineData(false, 0UL, -1, true)]
    [InlineData(true, Wce, -1, true)]
    [InlineData(true, Wce, 1, false)]
    public async Task Writes_are_durable_without_a_write_cache(
        bool option, ulong negotiated, int written, bool isDurable)
    {
        RecordingDisk disk = new(new MemoryDisk(Bytes));
        BlockRigOptions options = new()
        {
            Device = new BlockDeviceOptions { WriteCache = option },
            DeviceFeatures = negotiated | BlockFeatures.WriteZeroes | BlockFeatures.Discard,
        };
        await using BlockRig rig = await BlockRig.StartAsync(disk, options);
        if (written >= 0)
        {
            Assert.True(rig.Device.WriteConfig((uint)BlockConfig.WriteBack.Offset, [(byte)written]));
        }

        if ((negotiated & Wce) != 0)
        {
            Assert.Equal(isDurable ? 0UL : 1UL, rig.Device.Config.Get(BlockConfig.WriteBack));
        }

        DriverBuffer data = rig.Allocate(512);
        Assert.Equal(BlockStatus.Ok, rig.Write(0, data));
        Assert.Equal(BlockStatus.Ok, rig.Range(BlockRequestType.WriteZeroes, new BlockRange(0, 1, 0)));
        Assert.Equal(BlockStatus.Ok, rig.Read(0, data));
        Assert.Equal([isDurable, isDurable, false], disk.Operations.Select(operation => operation.IsDurable));
    }

    [Fact]
    public async Task Switching_the_write_cache_off_flushes()
    {
        RecordingDisk disk = new(new MemoryDisk(Bytes));
        await using BlockRig rig = await BlockRig.StartAsync(disk);
        uint offset = (uint)BlockConfig.WriteBack.Offset;
        DriverBuffer data = rig.Allocate(512);
        Assert.Equal(BlockStatus.Ok, rig.Write(0, data));
        Assert.Equal(0, disk.Flushes);
        Assert.True(rig.Device.WriteConfig(offset, [0]));
        Assert.Equal(1, disk.Flushes);
        Assert.True(rig.Device.WriteConfig(offset, [0]));
        Assert.Equal(1, disk.Flushes);
        Assert.Equal(BlockStatus.Ok, rig.Write(0, data));
        Assert.True(rig.Device.WriteConfig(offset, [1]));
        Assert.Equal(1, disk.Flushes);
        Assert.Equal(BlockStatus.Ok, rig.Write(0, data));
        Assert.Equal([false, true, false], disk.Operations.Select(operation => operation.IsDurable));
    }

    [Fact]
    public async Task A_reset_brings_the_write_cache_back()
    {
        await using BlockRig rig = await BlockRig.StartAsync(new MemoryDisk(Bytes));
        Assert.True(rig.Device.WriteConfig((uint)BlockConfig.WriteBack.Offset, [0]));
        await rig.StopQueueAsync();
        rig.Device.Reset();
        Assert.Equal(1UL, rig.Device.Config.Get(BlockConfig.WriteBack));
        Assert.Equal(0UL, rig.Device.NegotiatedFeatures);
    }

    [Fact]
    public async Task Only_the_write_cache_field_may_be_written()
    {
        await using BlockRig rig = await BlockRig.StartAsync(new MemoryDisk(Bytes));
        byte[] before = new byte[BlockConfig.Bytes];
        rig.Device.Config.Read(0, before);
        byte[] ones = new byte[BlockConfig.Bytes];
        ones.AsSpan().Fill(0xFF);
        Assert.False(rig.Device.WriteConfig(0, ones.AsSpan(0, BlockConfig.WriteBack.Offset)));
        Assert.False(rig.Device.WriteConfig((uint)BlockConfig.WriteBack.Offset + 1, ones.AsSpan(0, 8)));
        Assert.False(rig.Device.WriteConfig(BlockConfig.Bytes, [1]));
        Assert.False(rig.Device.WriteConfig(uint.MaxValue, [1]));
        byte[] after = new byte[BlockConfig.Bytes];
        rig.Device.Config.Read(0, after);
        Assert.Equal(before, after);
    }

    [Theory]
    [InlineData("buffered")]
    [InlineData("direct")]
    public async Task Durable_writes_arrive(string kind)
    {
        using TemporaryFile file = TemporaryFile.OnDisk(Bytes);
        BlockRigOptions options = new() { Device = new BlockDeviceOptions { WriteCache = false } };
        await using BlockRig rig = await BlockRig.StartAsync(ChainShapeTests.OpenDisk(kind, file, Bytes), options);
        DriverBuffer data = rig.Allocate(8192);
        data.Span.Fill(0x3C);
        Assert.Equal(BlockStatus.Ok, rig.Write(0, data));
        Assert.Equal(BlockStatus.Ok, rig.Range(BlockRequestType.WriteZeroes, new BlockRange(8, 8, 1)));
        Assert.Equal(BlockStatus.Ok, rig.Read(0, data));
        Assert.Equal(4096, data.Span.Count((byte)0x3C));
        Assert.Equal(4096, data.Span.Count((byte)0));
    }

    [Fact]
    public async Task A_flush_that_fails_is_told()
    {
        RecordingDisk disk = new(new MemoryDisk(Bytes)) { Result = -Errno.InputOutput };
        await using BlockRig rig = await BlockRig.StartAsync(disk);
        Assert.Equal(BlockStatus.IoError, rig.Flush());
    }

    private static void AssertRefused(BlockDeviceOptions options)
    {
        using NullDisk disk = new(Bytes);
        Assert.ThrowsAny<ArgumentException>(() => new BlockDevice(disk, options));
    }
}
