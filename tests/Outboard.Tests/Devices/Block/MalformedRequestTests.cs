// Requests that no good driver sends: each gets a status where there is room for one, and the queue goes on.
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block;

public sealed class MalformedRequestTests
{
    private const int Sector = BlockConfig.SectorBytes;
    private const int Sectors = 64;

    [Theory]
    [InlineData(2u)]
    [InlineData(3u)]
    [InlineData(5u)]
    [InlineData(6u)]
    [InlineData(7u)]
    [InlineData(9u)]
    [InlineData(10u)]
    [InlineData(12u)]
    [InlineData(14u)]
    [InlineData(15u)]
    [InlineData(0x80000000u)]
    [InlineData(0x80000001u)]
    [InlineData(uint.MaxValue)]
    public async Task Unknown_types_are_unsupported(uint type)
    {
        await using BlockRig rig = await StartAsync();
        DriverBuffer data = rig.Allocate(Sector);
        foreach (bool isWritten in (bool[])[false, true])
        {
            BlockRequestType unknown = (BlockRequestType)type;
            Assert.Equal(BlockStatus.Unsupported, rig.Request(unknown, 0, [data], isWritten).Status);
            Assert.Equal(BlockStatus.Unsupported, rig.Request(unknown, ulong.MaxValue, [], isWritten).Status);
        }

        AssertServes(rig);
    }

    [Fact]
    public async Task A_header_that_is_too_short_is_an_error()
    {
        await using BlockRig rig = await StartAsync();
        for (uint length = 0; length < BlockRequestHeader.Bytes; length++)
        {
            rig.Prepare(BlockRequestType.In, 0);
            uint written = rig.Send([rig.Header.Slice(0, length)], [rig.Status]);
            Assert.Equal((byte)BlockStatus.IoError, rig.Status.Span[0]);
            Assert.Equal(1u, written);
        }

        AssertServes(rig);
    }

    [Fact]
    public async Task A_chain_without_a_header_is_an_error()
    {
        await using BlockRig rig = await StartAsync();
        rig.Prepare(BlockRequestType.In, 0);
        Assert.Equal(1u, rig.Send([], [rig.Status]));
        Assert.Equal((byte)BlockStatus.IoError, rig.Status.Span[0]);
        AssertServes(rig);
    }

    [Fact]
    public async Task A_chain_without_a_writable_byte_comes_back_with_nothing_written()
    {
        await using BlockRig rig = await StartAsync();
        DriverBuffer data = rig.Allocate(Sector);
        data.Span.Fill(0xAB);
        foreach (BlockRequestType type in Enum.GetValues<BlockRequestType>())
        {
            rig.Prepare(type, 0);
            Assert.Equal(0u, rig.Send([rig.Header], []));
            Assert.Equal(0u, rig.Send([rig.Header, data], []));
            Assert.Equal(0u, rig.Send([rig.Header, data], [rig.Status.Slice(0, 0)]));
        }

        // None of the writes was carried out: nobody could have been told.
        Assert.Equal(BlockStatus.Ok, rig.Read(0, data));
        Assert.True(data.Span.IndexOfAnyExcept((byte)0) < 0);
    }

    [Fact]
    public async Task A_header_may_be_cut_at_every_byte()
    {
        await using BlockRig rig = await StartAsync();
        DriverBuffer data = rig.Allocate(Sector);
        for (uint cut = 0; cut <= BlockRequestHeader.Bytes; cut++)
        {
            ulong sector = cut;
            rig.Prepare(BlockRequestType.Out, sector);
            data.Span.Fill((byte)(cut + 1));
            DriverBuffer first = rig.Header.Slice(0, cut);
            DriverBuffer second = rig.Header.Slice(cut, BlockRequestHeader.Bytes - cut);
            Assert.Equal(1u, rig.Send([first, second, data], [rig.Status]));
            Assert.Equal((byte)BlockStatus.Ok, rig.Status.Span[0]);
            data.Span.Clear();
            Assert.Equal(BlockStatus.Ok, rig.Read(sector, data));
            Assert.True(data.Span.IndexOfAnyExcept((byte)(cut + 1)) < 0);
        }
    }

    [Fact]
    public async Task A_header_may_come_byte_by_byte_with_empty_descriptors_between()
    {
        await using BlockRig rig = await StartAsync();
        DriverBuffer data = rig.Allocate(Sector);
        data.Span.Fill(0x5A);
        List<DriverBuffer> readable = [];
        for (uint i = 0; i < BlockRequestHeader.Bytes; i++)
        {
            readable.Add(rig.Header.Slice(i, 1));
            readable.Add(rig.Header.Slice(i, 0));
        }

        readable.AddRange([data.Slice(0, 0), data.Slice(0, 100), data.Slice(100, 0), data.Slice(100, Sector - 100)]);
        rig.Prepare(BlockRequestType.Out, 7);
        Assert.Equal(1u, rig.Send([.. readable], [rig.Status]));
        Assert.Equal((byte)BlockStatus.Ok, rig.Status.Span[0]);
        data.Span.Clear();
        Assert.Equal(BlockStatus.Ok, rig.Read(7, data));
        Assert.True(data.Span.IndexOfAnyExcept((byte)0x5A) < 0);
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(1u)]
    [InlineData(511u)]
    [InlineData(512u)]
    public async Task Header_and_data_may_share_a_descriptor(uint together)
    {
        await using BlockRig rig = await StartAsync();
        DriverBuffer whole = rig.Allocate(BlockRequestHeader.Bytes + Sector);
        BlockRig.WriteHeader(whole.Span, BlockRequestType.Out, 3);
        whole.Span[BlockRequestHeader.Bytes..].Fill(0x77);
        uint cut = BlockRequestHeader.Bytes + together;
        rig.Status.Span[0] = BlockRig.NoStatus;
        Assert.Equal(1u, rig.Send([whole.Slice(0, cut), whole.Slice(cut, whole.Length - cut)], [rig.Status]));
        Assert.Equal((byte)BlockStatus.Ok, rig.Status.Span[0]);
        DriverBuffer data = rig.Allocate(Sector);
        Assert.Equal(BlockStatus.Ok, rig.Read(3, data));
        Assert.True(data.Span.IndexOfAnyExcept((byte)0x77) < 0);
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(1u)]
    [InlineData(511u)]
    [InlineData(512u)]
    public async Task Data_and_status_may_share_a_descriptor(uint apart)
    {
        await using BlockRig rig = await StartAsync();
        DriverBuffer data = rig.Allocate(Sector);
        data.Span.Fill(0x66);
        Assert.Equal(BlockStatus.Ok, rig.Write(9, data));
        DriverBuffer whole = rig.Allocate(Sector + 1);
        whole.Span.Fill(BlockRig.NoStatus);
        rig.Prepare(BlockRequestType.In, 9);
        uint written = rig.Send([rig.Header], [whole.Slice(0, apart), whole.Slice(apart, whole.Length - apart)]);
        Assert.Equal((uint)Sector + 1, written);
        Assert.True(whole.Span[..Sector].IndexOfAnyExcept((byte)0x66) < 0);
        Assert.Equal((byte)BlockStatus.Ok, whole.Span[Sector]);
    }

    [Fact]
    public async Task An_empty_descriptor_behind_the_status_is_no_obstacle()
    {
        await using BlockRig rig = await StartAsync();
        DriverBuffer data = rig.Allocate(Sector);
        rig.Prepare(BlockRequestType.In, 0);
        Assert.Equal(513u, rig.Send([rig.Header], [data, rig.Status, data.Slice(0, 0)]));
        Assert.Equal((byte)BlockStatus.Ok, rig.Status.Span[0]);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(16)]
    [InlineData(511)]
    [InlineData(513)]
    [InlineData(1000)]
    public async Task Data_of_no_whole_sectors_is_an_error(int bytes)
    {
        await using BlockRig rig = await StartAsync();
        DriverBuffer data = rig.Allocate(bytes);
        data.Span.Fill(0xEE);
        Assert.Equal(BlockStatus.IoError, rig.Request(BlockRequestType.In, 0, [data], isWritten: true).Status);
        Assert.Equal(BlockStatus.IoError, rig.Write(0, data));
        Assert.True(data.Span.IndexOfAnyExcept((byte)0xEE) < 0);
        AssertServes(rig);
    }

    [Fact]
    public async Task Addresses_and_lengths_must_be_whole_blocks()
    {
        BlockRigOptions options = new() { Device = new BlockDeviceOptions { BlockSize = 4096 } };
        await using BlockRig rig = await BlockRig.StartAsync(new MemoryDisk(Sectors * Sector), options);
        DriverBuffer data = rig.Allocate(8192);
        Assert.Equal(BlockStatus.Ok, rig.Read(8, data.Slice(0, 4096)));
        Assert.Equal(BlockStatus.Ok, rig.Write(8, data.Slice(0, 512), data.Slice(512, 3584)));
        Assert.Equal(BlockStatus.IoError, rig.Request(BlockRequestType.In, 4, [data.Slice(0, 4096)], true).Status);
        Assert.Equal(BlockStatus.IoError, rig.Request(BlockRequestType.In, 0, [data.Slice(0, 512)], true).Status);
        Assert.Equal(BlockStatus.IoError, rig.Write(0, data.Slice(0, 4608)));
        Assert.Equal(BlockStatus.IoError, rig.Range(BlockRequestType.Discard, new BlockRange(0, 4, 0)));
        Assert.Equal(BlockStatus.IoError, rig.Range(BlockRequestType.WriteZeroes, new BlockRange(1, 8, 0)));
    }

    [Theory]
    [InlineData(Sectors - 1UL, 1, true)]
    [InlineData(Sectors - 2UL, 2, true)]
    [InlineData((ulong)Sectors, 0, true)]
    [InlineData(Sectors - 1UL, 2, false)]
    [InlineData((ulong)Sectors, 1, false)]
    [InlineData(Sectors + 1UL, 0, false)]
    [InlineData((1UL << 55) - 1, 2, false)]
    [InlineData(1UL << 55, 1, false)]
    [InlineData(1UL << 54, 1, false)]
    [InlineData((1UL << 63) - 1, 1, false)]
    [InlineData(1UL << 63, 1, false)]
    [InlineData(ulong.MaxValue, 1, false)]
    [InlineData(ulong.MaxValue, 2, false)]
    [InlineData(ulong.MaxValue, 0, false)]
    public async Task Sectors_are_checked_without_overflow(ulong sector, int count, bool isGood)
    {
        await using BlockRig rig = await StartAsync();
        BlockStatus expected = isGood ? BlockStatus.Ok : BlockStatus.IoError;
        DriverBuffer[] data = count == 0 ? [] : [rig.Allocate(count * Sector)];
        Assert.Equal(expected, rig.Request(BlockRequestType.In, sector, data, isWritten: true).Status);
        Assert.Equal(expected, rig.Request(BlockRequestType.Out, sector, data, isWritten: false).Status);
        BlockRange range = new(sector, (uint)count, 0);
        Assert.Equal(expected, rig.Range(BlockRequestType.Discard, range));
        Assert.Equal(expected, rig.Range(BlockRequestType.WriteZeroes, range));
        AssertServes(rig);
    }

    [Fact]
    public async Task Buffers_of_gigabytes_are_refused_and_break_nothing()
    {
        // Untouched pages of a memfd take no memory, so the guest can be large.
        BlockRigOptions options = new() { MemoryBytes = 3UL << 30 };
        await using BlockRig rig = await BlockRig.StartAsync(new MemoryDisk(Sectors * Sector), options);
        DriverBuffer huge = rig.Memory.Allocate(0x8000_0000, 4096);
        BlockRig.WriteHeader(huge.Slice(0, BlockRequestHeader.Bytes).Span, BlockRequestType.Out, 0);
        rig.Status.Span[0] = BlockRig.NoStatus;
        Assert.Equal(1u, rig.Send([huge], [rig.Status]));
        Assert.Equal((byte)BlockStatus.IoError, rig.Status.Span[0]);

        rig.Prepare(BlockRequestType.In, 0);
        rig.Send([rig.Header], [huge, rig.Status]);
        Assert.Equal((byte)BlockStatus.IoError, rig.Status.Span[0]);
        rig.Prepare(BlockRequestType.Out, 0);
        Assert.Equal(1u, rig.Send([rig.Header, huge], [rig.Status]));
        Assert.Equal((byte)BlockStatus.IoError, rig.Status.Span[0]);
        Assert.Null(rig.Failure);
        AssertServes(rig);
    }

    [Fact]
    public async Task Read_only_devices_refuse_what_changes_them()
    {
        BlockRigOptions options = new() { Device = new BlockDeviceOptions { ReadOnly = true } };
        await using BlockRig rig = await BlockRig.StartAsync(new MemoryDisk(Sectors * Sector), options);
        Assert.NotEqual(0UL, rig.Device.DeviceFeatures & BlockFeatures.ReadOnly);
        Assert.Equal(0UL, rig.Device.DeviceFeatures & (BlockFeatures.Discard | BlockFeatures.WriteZeroes));
        DriverBuffer data = rig.Allocate(Sector);
        data.Span.Fill(1);
        Assert.Equal(BlockStatus.IoError, rig.Write(0, data));
        Assert.Equal(BlockStatus.IoError, rig.Range(BlockRequestType.Discard, new BlockRange(0, 1, 0)));
        Assert.Equal(BlockStatus.IoError, rig.Range(BlockRequestType.WriteZeroes, new BlockRange(0, 1, 0)));
        Assert.Equal(BlockStatus.Ok, rig.Flush());
        Assert.Equal(BlockStatus.Ok, rig.Read(0, data));
        Assert.True(data.Span.IndexOfAnyExcept((byte)0) < 0);
    }

    [Fact]
    public async Task A_chain_outside_guest_memory_parks_the_queue()
    {
        await using BlockRig rig = await StartAsync();
        DriverBuffer outside = rig.Allocate(Sector) with { GuestAddress = 0x10 };
        rig.Prepare(BlockRequestType.In, 0);
        rig.Submit([rig.Header], [outside, rig.Status]);
        Assert.Equal(VirtqueueFault.BufferOutsideMemory, await rig.Fault);
        await rig.StopQueueAsync();
        Assert.Equal(BlockRig.NoStatus, rig.Status.Span[0]);
    }

    private static Task<BlockRig> StartAsync() => BlockRig.StartAsync(new MemoryDisk(Sectors * Sector));

    private static void AssertServes(BlockRig rig) => Assert.Equal(BlockStatus.Ok, rig.Read(1, rig.Allocate(Sector)));
}
