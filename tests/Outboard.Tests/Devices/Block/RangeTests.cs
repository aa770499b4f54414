// Discard and write zeroes: which ranges are taken, and what happens to the storage.
using System.Diagnostics;
using System.Runtime.InteropServices;
using Outboard.Devices.Block.Backends;
using Outboard.Linux.Files;
using Outboard.Tests.Linux;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block;

public sealed class RangeTests
{
    private const int Bytes = 1 << 20;
    private const uint Sectors = Bytes / BlockConfig.SectorBytes;

    [Theory]
    [InlineData(BlockRequestType.Discard, 1u)]
    [InlineData(BlockRequestType.Discard, 2u)]
    [InlineData(BlockRequestType.Discard, 0x80000000u)]
    [InlineData(BlockRequestType.Discard, uint.MaxValue)]
    [InlineData(BlockRequestType.WriteZeroes, 2u)]
    [InlineData(BlockRequestType.WriteZeroes, 3u)]
    [InlineData(BlockRequestType.WriteZeroes, 0x80000000u)]
    [InlineData(BlockRequestType.WriteZeroes, uint.MaxValue)]
    public async Task Unknown_flags_are_unsupported(BlockRequestType type, uint flags)
    {
        await using BlockRig rig = await FilledAsync(new MemoryDisk(Bytes));
        Assert.Equal(BlockStatus.Unsupported, rig.Range(type, new BlockRange(0, 8, flags)));
        AssertIsFilled(rig, 0, Sectors);
    }

    [Theory]
    [InlineData(BlockRequestType.Discard)]
    [InlineData(BlockRequestType.WriteZeroes)]
    public async Task Ranges_must_be_one_and_whole(BlockRequestType type)
    {
        await using BlockRig rig = await FilledAsync(new MemoryDisk(Bytes));
        DriverBuffer data = rig.Allocate(64);
        BlockRange range = new(0, 8, 0);
        MemoryMarshal.Write(data.Span, in range);
        for (uint length = 0; length <= 64; length++)
        {
            BlockStatus expected = length == BlockRange.Bytes ? BlockStatus.Ok : BlockStatus.IoError;
            Assert.Equal(expected, rig.Request(type, 0, [data.Slice(0, length)], isWritten: false).Status);
        }

        Assert.Equal(BlockStatus.IoError, rig.Range(type, new BlockRange(16, 8, 0), new BlockRange(32, 8, 0)));
        AssertIsFilled(rig, 8, Sectors - 8);
    }

    [Theory]
    [InlineData(BlockRequestType.Discard)]
    [InlineData(BlockRequestType.WriteZeroes)]
    public async Task Ranges_longer_than_promised_are_refused(BlockRequestType type)
    {
        // 2 GiB, of which nothing is touched.
        await using BlockRig rig = await BlockRig.StartAsync(new MemoryDisk(2L << 30));
        uint most = (uint)rig.Device.Config.Get(BlockConfig.MaxDiscardSectors);
        Assert.Equal(most, (uint)rig.Device.Config.Get(BlockConfig.MaxWriteZeroesSectors));
        Assert.Equal(BlockStatus.Ok, rig.Range(type, new BlockRange(0, most, 0)));
        Assert.Equal(BlockStatus.IoError, rig.Range(type, new BlockRange(0, most + 1, 0)));
        Assert.Equal(BlockStatus.IoError, rig.Range(type, new BlockRange(0, uint.MaxValue, 0)));
        Assert.Equal(BlockStatus.IoError, rig.Range(type, new BlockRange(ulong.MaxValue, uint.MaxValue, 0)));
    }

    [Theory]
    [InlineData("memory", FileIoEngineKind.Automatic)]
    [InlineData("buffered", FileIoEngineKind.IoUring)]
    [InlineData("buffered", FileIoEngineKind.Threads)]
    [InlineData("direct", FileIoEngineKind.IoUring)]
    [InlineData("tmpfs", FileIoEngineKind.IoUring)]
    [InlineData("tmpfs", FileIoEngineKind.Threads)]
    public async Task Cleared_ranges_read_as_zeroes_and_no_more(string kind, FileIoEngineKind engine)
    {
        using TemporaryFile file = kind == "tmpfs" ? TemporaryFile.InMemory(Bytes) : TemporaryFile.OnDisk(Bytes);
        Disk disk = ChainShapeTests.OpenDisk(kind == "tmpfs" ? "buffered" : kind, file, Bytes);
        (BlockRequestType, uint)[] ways =
            [(BlockRequestType.Discard, 0), (BlockRequestType.WriteZeroes, 0), (BlockRequestType.WriteZeroes, 1)];
        foreach ((BlockRequestType type, uint flags) in ways)
        {
            await using BlockRig rig = await FilledAsync(disk, new() { FileEngine = engine }, keepsDisk: true);
            Assert.Equal(BlockStatus.Ok, rig.Range(type, new BlockRange(3, 900, flags)));
            AssertIsFilled(rig, 0, 3);
            AssertIsFilled(rig, 903, Sectors - 903);
            DriverBuffer data = rig.Allocate(900 * BlockConfig.SectorBytes);
            data.Span.Fill(1);
            Assert.Equal(BlockStatus.Ok, rig.Read(3, data));
            Assert.True(data.Span.IndexOfAnyExcept((byte)0) < 0, $"{type} {flags}");
        }

        disk.Dispose();
    }

    [Theory]
    [InlineData(BlockRequestType.Discard, 0u, true, false)]
    [InlineData(BlockRequestType.WriteZeroes, 1u, true, false)]
    [InlineData(BlockRequestType.WriteZeroes, 0u, false, false)]
    [InlineData(BlockRequestType.Discard, 0u, true, true)]
    [InlineData(BlockRequestType.WriteZeroes, 0u, false, true)]
    public async Task Unmapped_ranges_give_their_space_back(
        BlockRequestType type, uint flags, bool unmaps, bool onTmpfs)
    {
        using TemporaryFile file = onTmpfs ? TemporaryFile.InMemory(Bytes) : TemporaryFile.OnDisk(Bytes);
        await using BlockRig rig = await FilledAsync(FileDisk.Open(file.Path));
        Assert.Equal(BlockStatus.Ok, rig.Flush());
        long before = AllocatedBytes(file.Path);
        Assert.True(before >= Bytes, $"{before} bytes allocated");
        Assert.Equal(BlockStatus.Ok, rig.Range(type, new BlockRange(8, Sectors - 16, flags)));
        Assert.Equal(BlockStatus.Ok, rig.Flush());
        long after = AllocatedBytes(file.Path);
        Assert.True(unmaps ? after <= 4 * 4096 : after >= Bytes, $"{after} bytes allocated");
        Assert.Equal(Bytes, new FileInfo(file.Path).Length);
    }

    /// <summary>Counts what the file system holds for a file, which the class library does not tell.</summary>
    private static long AllocatedBytes(string path)
    {
        ProcessStartInfo start = new("stat", ["--format=%b %B", path]) { RedirectStandardOutput = true };
        using Process stat = Process.Start(start)!;
        string[] words = stat.StandardOutput.ReadToEnd().Split();
        stat.WaitForExit();
        return long.Parse(words[0]) * long.Parse(words[1]);
    }

    private static async Task<BlockRig> FilledAsync(
        Disk disk, QueueWorkerOptions? worker = null, bool keepsDisk = false)
    {
        BlockRigOptions options = new() { Worker = worker ?? new QueueWorkerOptions(), KeepsDisk = keepsDisk };
        BlockRig rig = await BlockRig.StartAsync(disk, options);
        DriverBuffer data = rig.Allocate(Bytes);
        data.Span.Fill(0xF1);
        Assert.Equal(BlockStatus.Ok, rig.Write(0, data));
        return rig;
    }

    private static void AssertIsFilled(BlockRig rig, ulong sector, uint sectors)
    {
        DriverBuffer data = rig.Allocate((int)sectors * BlockConfig.SectorBytes);
        Assert.Equal(BlockStatus.Ok, rig.Read(sector, data));
        Assert.True(data.Span.IndexOfAnyExcept((byte)0xF1) < 0);
    }
}
