// The image changes under the device, or somebody else has it.
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Tests.Linux;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block;

public sealed class ImageTests
{
    private const int Bytes = 1 << 20;

    [Theory]
    [InlineData(false, FileIoEngineKind.IoUring, 0)]
    [InlineData(false, FileIoEngineKind.Threads, 0)]
    [InlineData(false, FileIoEngineKind.IoUring, 5000)]
    [InlineData(false, FileIoEngineKind.Threads, 5000)]
    [InlineData(true, FileIoEngineKind.IoUring, 0)]
    [InlineData(true, FileIoEngineKind.IoUring, 5000)]
    [InlineData(true, FileIoEngineKind.Threads, 5000)]
    public async Task Reads_behind_the_end_of_a_truncated_image_fail(bool direct, FileIoEngineKind engine, long rest)
    {
        using TemporaryFile file = TemporaryFile.OnDisk(Bytes);
        BlockRigOptions options = new() { Worker = new QueueWorkerOptions { FileEngine = engine } };
        await using BlockRig rig = await BlockRig.StartAsync(FileDisk.Open(file.Path, direct: direct), options);
        DriverBuffer data = rig.Allocate(64 << 10);
        DriverBuffer unaligned = rig.Allocate((64 << 10) + 1).Slice(1, 64 << 10);
        Assert.Equal(BlockStatus.Ok, rig.Read(0, data));
        Resize(file, rest);
        foreach (DriverBuffer buffer in (DriverBuffer[])[data, unaligned])
        {
            Assert.Equal(BlockStatus.IoError, rig.Read(0, buffer));
            Assert.Equal(BlockStatus.IoError, rig.Read(1024, buffer));
        }

        // A write makes the file long again: what the storage can do is done.
        Assert.Equal(BlockStatus.Ok, rig.Write(1024, data));
        Assert.Equal(BlockStatus.Ok, rig.Read(1024, data));
    }

    [Fact]
    public async Task A_grown_image_is_told_to_the_driver()
    {
        using TemporaryFile file = TemporaryFile.OnDisk(Bytes);
        await using BlockRig rig = await BlockRig.StartAsync(FileDisk.Open(file.Path));
        int changes = 0;
        rig.Device.ConfigChanged += () => changes++;
        uint generation = rig.Device.Config.Generation;
        Assert.False(rig.Device.RefreshSize());
        Assert.Equal(0, changes);
        DriverBuffer data = rig.Allocate(512);
        Assert.Equal(BlockStatus.IoError, rig.Read(2048, data));

        Resize(file, 2 * Bytes);
        Assert.True(rig.Device.RefreshSize());
        Assert.Equal(1, changes);
        Assert.NotEqual(generation, rig.Device.Config.Generation);
        Assert.Equal(4096UL, rig.Device.Config.Get(BlockConfig.Capacity));
        Assert.Equal(BlockStatus.Ok, rig.Read(2048, data));
        Assert.Equal(BlockStatus.Ok, rig.Write(4095, data));

        Resize(file, Bytes + 700);
        Assert.True(rig.Device.RefreshSize());
        Assert.Equal(2049UL, rig.Device.Config.Get(BlockConfig.Capacity));
        Assert.Equal(BlockStatus.IoError, rig.Read(2049, data));
        Assert.Equal(BlockStatus.Ok, rig.Read(2048, data));
    }

    [Fact]
    public void Only_one_writer_opens_an_image()
    {
        using TemporaryFile file = TemporaryFile.OnDisk(Bytes);
        using (FileDisk.Open(file.Path))
        {
            LinuxException second = Assert.Throws<LinuxException>(() => FileDisk.Open(file.Path));
            Assert.Equal(Errno.Busy, second.Errno);
            Assert.Contains(file.Path, second.Message, StringComparison.Ordinal);
            Assert.Contains("in use by another process", second.Message, StringComparison.Ordinal);
            Assert.Throws<LinuxException>(() => FileDisk.Open(file.Path, readOnly: true));
            FileDisk.Open(file.Path, locked: false).Dispose();
        }

        using FileDisk reader = FileDisk.Open(file.Path, readOnly: true);
        FileDisk.Open(file.Path, readOnly: true).Dispose();
        Assert.Throws<LinuxException>(() => FileDisk.Open(file.Path));
    }

    [Fact]
    public async Task An_incoming_image_is_locked_when_it_is_acquired_and_free_when_it_is_released()
    {
        using TemporaryFile file = TemporaryFile.OnDisk(Bytes);
        using FileDisk source = FileDisk.Open(file.Path);
        using FileDisk target = FileDisk.Open(file.Path, incoming: true);
        LinuxException early = await Assert.ThrowsAsync<LinuxException>(target.AcquireAsync);
        Assert.Equal(Errno.Busy, early.Errno);

        Task waiting = target.AcquireAsync();
        source.Release();
        await waiting;
        await target.AcquireAsync();
        target.Release();
        target.Release();
        await source.AcquireAsync();
    }

    [Fact]
    public async Task An_image_that_grew_while_another_served_it_has_its_new_size()
    {
        using TemporaryFile file = TemporaryFile.OnDisk(Bytes);
        using FileDisk disk = FileDisk.Open(file.Path, incoming: true);
        BlockDevice device = new(disk);
        Resize(file, 2 * Bytes);
        await device.TakeOverAsync();
        Assert.Equal(2UL * Bytes / 512, device.Config.Get(BlockConfig.Capacity));
    }

    /// <summary>io_uring keeps a reference to a file it has seen: it must not keep the image locked.</summary>
    [Theory]
    [InlineData(FileIoEngineKind.IoUring)]
    [InlineData(FileIoEngineKind.Threads)]
    public async Task A_closed_image_is_free_while_the_worker_lives(FileIoEngineKind engine)
    {
        using TemporaryFile file = TemporaryFile.OnDisk(Bytes);
        FileDisk disk = FileDisk.Open(file.Path, direct: true);
        BlockRigOptions options = new() { Worker = new QueueWorkerOptions { FileEngine = engine }, KeepsDisk = true };
        await using BlockRig rig = await BlockRig.StartAsync(disk, options);
        Assert.Equal(BlockStatus.Ok, rig.Read(0, rig.Allocate(4096)));
        await rig.StopQueueAsync();
        disk.Dispose();
        FileDisk.Open(file.Path).Dispose();
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(511)]
    [InlineData(513)]
    public void Images_of_no_whole_sectors_are_refused(long bytes)
    {
        using TemporaryFile file = TemporaryFile.OnDisk(bytes);
        LinuxException refused = Assert.Throws<LinuxException>(() => FileDisk.Open(file.Path));
        Assert.Contains("multiple of 512", refused.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_disk_that_is_read_only_makes_a_device_that_is()
    {
        using TemporaryFile file = TemporaryFile.OnDisk(Bytes);
        await using BlockRig rig = await BlockRig.StartAsync(FileDisk.Open(file.Path, readOnly: true));
        Assert.True(rig.Device.IsReadOnly);
        DriverBuffer data = rig.Allocate(512);
        Assert.Equal(BlockStatus.IoError, rig.Write(0, data));
        Assert.Equal(BlockStatus.Ok, rig.Read(0, data));
        Assert.Equal(BlockStatus.Ok, rig.Flush());
    }

    private static void Resize(TemporaryFile file, long bytes)
    {
        using FileStream stream = new(file.Path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite);
        stream.SetLength(bytes);
    }
}
