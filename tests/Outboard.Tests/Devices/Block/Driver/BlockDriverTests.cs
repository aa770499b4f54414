using Outboard.Benchmarks.Bodies;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Block.Driver;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block.Driver;

public sealed class BlockDriverTests
{
    private const long DiskBytes = 8 << 20;

    [Theory]
    [InlineData(0, false)]
    [InlineData(512, false)]
    [InlineData(1536, true)]
    [InlineData(3000, true)]
    public async Task What_was_written_is_read(uint segmentBytes, bool indirect)
    {
        await using BlockRig rig = await BlockRig.ConnectAsync(
            new MemoryDisk(DiskBytes), slots: 4, dataBytes: 7680, segmentBytes: segmentBytes, indirect: indirect);
        byte[] written = new byte[100 * 512];
        byte[] read = new byte[written.Length];
        new Random(1).NextBytes(written);
        rig.Driver.Write(3 * 512, written);
        rig.Driver.Read(3 * 512, read);
        Assert.Equal(written, read);
    }

    [Fact]
    public async Task Zeroes_are_written_to_their_range_only()
    {
        await using BlockRig rig = await BlockRig.ConnectAsync(new MemoryDisk(DiskBytes));
        byte[] bytes = new byte[4096];
        Array.Fill(bytes, (byte)7);
        rig.Driver.Write(0, bytes);
        rig.Driver.WriteZeroes(1024, 512, mayUnmap: true);
        bytes.AsSpan(1024, 512).Clear();
        byte[] read = new byte[4096];
        rig.Driver.Read(0, read);
        Assert.Equal(bytes, read);
    }

    [Fact]
    public async Task Flush_discard_and_identity_are_answered()
    {
        await using BlockRig rig = await BlockRig.ConnectAsync(
            new MemoryDisk(DiskBytes), new BlockDeviceOptions { Serial = "twenty bytes serial." });
        rig.Driver.Flush();
        rig.Driver.Discard(0, 65536);
        Assert.Equal("twenty bytes serial.", rig.Driver.GetId());
    }

    [Fact]
    public async Task Many_requests_in_flight_keep_their_slots()
    {
        FaultPlan plan = new() { DelayRate = 0.3, Delay = TimeSpan.FromMilliseconds(2) };
        await using BlockRig rig = await BlockRig.ConnectAsync(new FaultyDisk(new MemoryDisk(DiskBytes), plan));
        BlockDriver driver = rig.Driver;
        for (int slot = 0; slot < driver.SlotCount; slot++)
        {
            driver.Data(slot).Fill((byte)(slot + 1));
            Assert.True(driver.TryWrite(slot, (ulong)slot * 128, 65536));
            Assert.True(driver.IsBusy(slot));
        }

        List<BlockCompletion> writes = rig.FinishAll();
        Assert.Equal(Enumerable.Range(0, driver.SlotCount), writes.Select(one => one.Slot).Order());
        Assert.All(writes, one => Assert.Equal(BlockStatus.Ok, one.Status));
        for (int slot = 0; slot < driver.SlotCount; slot++)
        {
            Assert.True(driver.TryRead(slot, (ulong)slot * 128, 65536));
        }

        Assert.All(rig.FinishAll(), one =>
        {
            Assert.Equal(65537u, one.WrittenBytes);
            Assert.Equal(-1, driver.Data(one.Slot).IndexOfAnyExcept((byte)(one.Slot + 1)));
        });
    }

    [Fact]
    public async Task A_failing_disk_gives_a_status()
    {
        await using BlockRig rig = await BlockRig.ConnectAsync(
            new FaultyDisk(new MemoryDisk(DiskBytes), new FaultPlan { ErrorRate = 1 }));
        Assert.True(rig.Driver.TryRead(5, 0, 512));
        BlockCompletion completion = Assert.Single(rig.FinishAll());
        Assert.Equal((5, BlockStatus.IoError), (completion.Slot, completion.Status));
        BlockRequestException error = Assert.Throws<BlockRequestException>(() => rig.Driver.Write(512, new byte[512]));
        Assert.Equal(BlockStatus.IoError, error.Status);
        Assert.Contains("offset 512", error.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_read_only_disk_refuses_writes()
    {
        await using BlockRig rig = await BlockRig.ConnectAsync(
            new MemoryDisk(DiskBytes), new BlockDeviceOptions { ReadOnly = true });
        Assert.True(rig.Config.IsReadOnly);
        Assert.Throws<BlockRequestException>(() => rig.Driver.Write(0, new byte[512]));
        rig.Driver.Read(0, new byte[512]);
    }

    [Fact]
    public async Task The_configuration_tells_the_device()
    {
        await using BlockRig rig = await BlockRig.ConnectAsync(
            new MemoryDisk(DiskBytes), new BlockDeviceOptions { BlockSize = 4096, QueueCount = 3, WriteCache = false });
        Assert.Equal((ulong)DiskBytes, rig.Config.CapacityBytes);
        Assert.Equal(4096u, rig.Config.BlockSize);
        Assert.Equal(3, rig.Config.QueueCount);
        Assert.True(rig.Config.HasFlush);
        Assert.False(rig.Config.IsWriteBack);
        Assert.NotNull(rig.Config.Discard);
        Assert.NotNull(rig.Config.WriteZeroes);
    }

    [Fact]
    public void A_slot_carries_one_request()
    {
        using DriverMemory memory = new(1 << 20);
        BlockDriver driver = Loopback(memory, queueSize: 16);
        Assert.True(driver.TryRead(0, 0, 512));
        Assert.Throws<InvalidOperationException>(() => driver.TryRead(0, 0, 512));
        Assert.Throws<ArgumentOutOfRangeException>(() => driver.TryRead(1, 0, 0));
        Assert.Throws<ArgumentOutOfRangeException>(() => driver.TryRead(1, 0, driver.DataBytes + 512));
        Assert.Throws<InvalidOperationException>(driver.Flush);
    }

    [Fact]
    public void A_full_ring_takes_no_more()
    {
        using DriverMemory memory = new(1 << 20);
        BlockDriver driver = Loopback(memory, queueSize: 8);
        Assert.True(driver.TryRead(0, 0, 512));
        Assert.True(driver.TryWrite(1, 0, 512));
        Assert.False(driver.TryRead(2, 0, 512));
        Assert.False(driver.IsBusy(2));
        Assert.True(driver.TryFlush(2));
        driver.Submit();
        BlockCompletion[] completions = new BlockCompletion[4];
        Assert.Equal(3, driver.Collect(completions));
        Assert.True(driver.TryRead(2, 0, 512));
    }

    [Fact]
    public void A_device_that_writes_no_status_is_found_out()
    {
        using DriverMemory memory = new(1 << 20);
        BlockDriver driver = Loopback(memory, queueSize: 16);
        driver.TryRead(0, 0, 512);
        driver.Submit();
        BlockCompletion[] completions = new BlockCompletion[1];
        Assert.Equal(1, driver.Collect(completions));
        Assert.Equal(BlockDriver.NotWritten, completions[0].Status);
    }

    private static BlockDriver Loopback(DriverMemory memory, int queueSize)
    {
        SplitDriverQueue ring = new(0, queueSize, memory, VirtioFeatures.EventIndex);
        return new BlockDriver(new LoopbackLink(ring, memory), slots: 4, dataBytes: 4096);
    }
}
