// Commands of I/O queues: data by PRPs and SGLs, mapped and by messages; and each mistake a driver can make in one.
using System.Runtime.InteropServices;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme;
using Outboard.Devices.Nvme.Driver;
using Outboard.Devices.Nvme.Queues;
using Outboard.Devices.Nvme.Spec;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

public sealed class IoCommandTests
{
    [Theory]
    [InlineData(true, true, 512)]
    [InlineData(true, false, 4096)]
    [InlineData(false, true, 512)]
    [InlineData(false, false, 4096)]
    public async Task Blocks_are_read_as_they_were_written(bool isShared, bool shadow, int blockSize)
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(isShared: isShared, shadow: shadow, blockSize: blockSize);
        Assert.Equal(isShared && shadow, rig.Driver.UsesShadowDoorbells);
        Assert.Equal((8UL << 20) / (ulong)blockSize, (await rig.Driver.GetSizeAsync(2)).Blocks);
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        foreach ((uint bytes, uint skip) in ((uint, uint)[])
            [(4096, 0), (8192, 0), (12288, 4096 - 512 + 512), (65536, 0), (1 << 20, 0), (16384, 512)])
        {
            if (skip % (uint)blockSize != 0)
            {
                continue;
            }

            DriverBuffer written = rig.Fill(bytes);
            DriverBuffer read = rig.Allocate(bytes);
            foreach (uint number in (uint[])[1, 2])
            {
                read.Span.Clear();
                NvmeCommand write = rig.Move(NvmeIoOpcode.Write, written, 16, blockSize, number, skip);
                Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, write));
                NvmeCommand back = rig.Move(NvmeIoOpcode.Read, read, 16, blockSize, number, skip);
                Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, back));
                Assert.True(written.Span[(int)skip..].SequenceEqual(read.Span[(int)skip..]), $"{bytes} from {skip}");
                Assert.True(read.Span[..(int)skip].IndexOfAnyExcept((byte)0) < 0);
            }
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task An_sgl_scatters_data(bool isShared)
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(isShared: isShared);
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        DriverBuffer data = rig.Fill(16384);
        DriverBuffer first = rig.Allocate();
        DriverBuffer last = rig.Allocate();

        // 1 + 1023 + 1024 bytes, a segment, then 6144 and 4096 (more than is left)
        Put(first, 0, data.GuestAddress + 3, 1, SglDescriptor.DataBlock);
        Put(first, 1, data.GuestAddress + 100, 1023, SglDescriptor.DataBlock);
        Put(first, 2, data.GuestAddress + 4000, 1024, SglDescriptor.DataBlock);
        Put(first, 3, last.GuestAddress, 32, SglDescriptor.LastSegment);
        Put(last, 0, data.GuestAddress + 8192, 2048, SglDescriptor.DataBlock);
        Put(last, 1, data.GuestAddress + 11000, 4096, SglDescriptor.DataBlock);
        byte[] expected =
        [
            data.Span[3], .. data.Span.Slice(100, 1023), .. data.Span.Slice(4000, 1024),
            .. data.Span.Slice(8192, 2048), .. data.Span.Slice(11000, 4096),
        ];
        NvmeCommand command = Sgl(NvmeIoOpcode.Write, first.GuestAddress, 64, SglDescriptor.Segment, 16);
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, command));

        DriverBuffer back = rig.Allocate(8192);
        command = Sgl(NvmeIoOpcode.Read, back.GuestAddress, 8192, SglDescriptor.DataBlock, 16);
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, command));
        Assert.Equal(expected[..8192], back.Span.ToArray());
    }

    [Theory]
    [InlineData(0x01, 0x05, NvmeStatus.SglTypeInvalid)]
    [InlineData(0x40, 0x10, NvmeStatus.SglTypeInvalid)]
    [InlineData(4095, 0x00, NvmeStatus.DataSglLengthInvalid)]
    [InlineData(0, 0x00, NvmeStatus.DataSglLengthInvalid)]
    [InlineData(0, 0x20, NvmeStatus.InvalidSglSegment)]
    [InlineData(24, 0x30, NvmeStatus.InvalidSglSegment)]
    [InlineData(-16, 0x30, NvmeStatus.InvalidSglCount)]
    [InlineData(32, 0x30, NvmeStatus.DataSglLengthInvalid)]
    public async Task A_bad_sgl_is_refused(int length, byte type, object status)
    {
        await using NvmeRig rig = await NvmeRig.StartAsync();
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        DriverBuffer list = rig.Allocate();
        list.Span.Clear();
        NvmeCommand command = Sgl(NvmeIoOpcode.Write, list.GuestAddress, (uint)length, type, 8);
        Assert.Equal((NvmeStatus)status, await NvmeRig.RunAsync(queue, command));
        Assert.Equal(NvmeStatus.Success, await ReadFirstAsync(rig, queue));
    }

    [Fact]
    public async Task Sgl_segments_that_lead_in_circles_end()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync();
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        DriverBuffer list = rig.Allocate();
        Put(list, 0, list.GuestAddress, 16, SglDescriptor.Segment);
        NvmeCommand command = Sgl(NvmeIoOpcode.Write, list.GuestAddress, 16, SglDescriptor.Segment, 8);
        Assert.Equal(NvmeStatus.InvalidSglCount, await NvmeRig.RunAsync(queue, command));
        Put(list, 0, list.GuestAddress, 16, SglDescriptor.LastSegment);
        Put(list, 1, list.GuestAddress, 512, SglDescriptor.DataBlock);
        command = Sgl(NvmeIoOpcode.Write, list.GuestAddress, 32, SglDescriptor.Segment, 8);
        Assert.Equal(NvmeStatus.InvalidSglCount, await NvmeRig.RunAsync(queue, command));
        command = Sgl(NvmeIoOpcode.Write, list.GuestAddress, 16, SglDescriptor.LastSegment, 8);
        Assert.Equal(NvmeStatus.InvalidSglSegment, await NvmeRig.RunAsync(queue, command));
    }

    [Theory]
    [InlineData(1, 0x1000, 0, 1, NvmeStatus.PrpOffsetInvalid)]
    [InlineData(0, 0x1004, 4096, 2, NvmeStatus.PrpOffsetInvalid)]
    [InlineData(0, 0x1004, 4096, 9, NvmeStatus.PrpOffsetInvalid)]
    [InlineData(0, -8, 4096, 9, NvmeStatus.DataTransferError)]
    [InlineData(0, 1 << 30, 4096, 2, NvmeStatus.DataTransferError)]
    public async Task A_bad_prp_is_refused(int first, int second, int length, int pages, object status)
    {
        await using NvmeRig rig = await NvmeRig.StartAsync();
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        NvmeCommand command = new()
        {
            Opcode = (byte)NvmeIoOpcode.Write,
            Namespace = 1,
            Pointer1 = rig.Allocate().GuestAddress + (uint)first,
            Pointer2 = second < 0 ? unchecked((ulong)second) : rig.Memory.GuestAddress + (uint)second,
            Word12 = length == 0 ? 0u : (uint)(pages * 8) - 1,
        };
        Assert.Equal((NvmeStatus)status, await NvmeRig.RunAsync(queue, command));
        Assert.Equal(NvmeStatus.Success, await ReadFirstAsync(rig, queue));
    }

    [Fact]
    public async Task Mistakes_in_a_command()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync();
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        DriverBuffer data = rig.Allocate();
        NvmeCommand good = rig.Move(NvmeIoOpcode.Read, data, 0);
        const uint blocks = NvmeRig.DiskBytes / 512;
        (NvmeStatus Status, NvmeCommand Command)[] all =
        [
            (NvmeStatus.InvalidOpcode, good with { Opcode = 0x7f }),
            (NvmeStatus.InvalidOpcode, good with { Opcode = 0x0d }),
            (NvmeStatus.InvalidNamespace, good with { Namespace = 0 }),
            (NvmeStatus.InvalidNamespace, good with { Namespace = 3 }),
            (NvmeStatus.InvalidNamespace, good with { Namespace = uint.MaxValue }),
            (NvmeStatus.InvalidField, good with { Flags = 1 }),
            (NvmeStatus.InvalidField, good with { Flags = 0xc0 }),
            (NvmeStatus.InvalidField, good with { Word12 = 0xffff }),
            (NvmeStatus.LbaOutOfRange, good with { Word10 = blocks }),
            (NvmeStatus.LbaOutOfRange, good with { Word10 = blocks - 7 }),
            (NvmeStatus.LbaOutOfRange, good with { Word10 = uint.MaxValue, Word11 = uint.MaxValue }),
            (NvmeStatus.LbaOutOfRange, good with { Opcode = (byte)NvmeIoOpcode.WriteZeroes, Word10 = blocks }),
            (NvmeStatus.LbaOutOfRange, good with { Opcode = (byte)NvmeIoOpcode.Compare, Word10 = blocks }),
            (NvmeStatus.DataTransferError, good with { Pointer1 = 0x10000 }),
            (NvmeStatus.DataTransferError, good with { Pointer1 = ~0xfffUL }),
            (NvmeStatus.Success, good),
        ];
        foreach ((NvmeStatus status, NvmeCommand command) in all)
        {
            Assert.Equal(status, await NvmeRig.RunAsync(queue, command));
        }
    }

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Zeroes_deallocation_comparison_and_flush(bool isShared)
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(isShared: isShared);
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        DriverBuffer data = rig.Fill(32768);
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Write, data, 8)));
        NvmeCommand compare = rig.Move(NvmeIoOpcode.Compare, data, 8);
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, compare));

        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, new NvmeCommand
        {
            Opcode = (byte)NvmeIoOpcode.WriteZeroes, Namespace = 1, Word10 = 8, Word12 = 7 | (1 << 25),
        }));
        Assert.Equal(NvmeStatus.CompareFailure, await NvmeRig.RunAsync(queue, compare));
        data.Span[..4096].Clear();
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, compare));

        // two ranges, one of them empty
        DriverBuffer ranges = rig.Allocate();
        MemoryMarshal.Write(ranges.Span, new DatasetRange { FirstBlock = 16, BlockCount = 8 });
        MemoryMarshal.Write(ranges.Span[16..], new DatasetRange { FirstBlock = 16384, BlockCount = 0 });
        NvmeCommand manage = new()
        {
            Opcode = (byte)NvmeIoOpcode.DatasetManagement, Namespace = 1, Pointer1 = ranges.GuestAddress,
            Word10 = 1, Word11 = 1 << 2,
        };
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, manage with { Word11 = 3 }));
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, compare));
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, manage));
        data.Span.Slice(4096, 4096).Clear();
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, compare));
        MemoryMarshal.Write(ranges.Span[16..], new DatasetRange { FirstBlock = 16384, BlockCount = 1 });
        Assert.Equal(NvmeStatus.LbaOutOfRange, await NvmeRig.RunAsync(queue, manage));

        foreach (uint number in (uint[])[1, 2, uint.MaxValue])
        {
            Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(
                queue, new NvmeCommand { Opcode = (byte)NvmeIoOpcode.Flush, Namespace = number }));
        }
    }

    [Fact]
    public async Task A_read_only_namespace_refuses_writes()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(readOnly: true);
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        DriverBuffer data = rig.Fill(4096);
        foreach (NvmeIoOpcode opcode in (NvmeIoOpcode[])[NvmeIoOpcode.Write, NvmeIoOpcode.WriteZeroes])
        {
            Assert.Equal(NvmeStatus.WriteProtected, await NvmeRig.RunAsync(queue, rig.Move(opcode, data, 0)));
        }

        NvmeCommand manage = new()
        {
            Opcode = (byte)NvmeIoOpcode.DatasetManagement, Namespace = 1, Pointer1 = data.GuestAddress, Word11 = 4,
        };
        Assert.Equal(NvmeStatus.WriteProtected, await NvmeRig.RunAsync(queue, manage));
        Assert.Equal(NvmeStatus.Success, await ReadFirstAsync(rig, queue));
        Assert.Equal(1, (await rig.Driver.IdentifyAsync(NvmeIdentify.Namespace, 1))[99]);
    }

    [Fact]
    public async Task A_failing_disk_gives_media_errors()
    {
        using MemoryDisk inner = new(NvmeRig.DiskBytes);
        await using NvmeRig rig = await NvmeRig.StartAsync(
            disks: new FaultyDisk(inner, new FaultPlan { ErrorRate = 1 }));
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        DriverBuffer data = rig.Allocate();
        Assert.Equal(
            NvmeStatus.UnrecoveredReadError, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Read, data, 0)));
        Assert.Equal(NvmeStatus.WriteFault, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Write, data, 0)));
        Assert.Equal(
            NvmeStatus.UnrecoveredReadError, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Compare, data, 0)));
        Assert.Equal(NvmeStatus.InternalError, await NvmeRig.RunAsync(
            queue, new NvmeCommand { Opcode = (byte)NvmeIoOpcode.Flush, Namespace = uint.MaxValue }));
        byte[] health = await rig.ReadLogAsync(NvmeLogPage.Health, 512);
        Assert.Equal(3, BitConverter.ToInt64(health, 160));
        Assert.Equal(4, BitConverter.ToInt64(health, 176));
        byte[] errors = await rig.ReadLogAsync(NvmeLogPage.Errors, 1024);
        Assert.Equal([4L, 3, 2, 1, 0], Enumerable.Range(0, 5).Select(i => BitConverter.ToInt64(errors, i * 64)));
    }

    [Fact]
    public async Task Many_commands_of_several_queues_share_a_completion_queue_and_its_room()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync();
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 4);
        DriverBuffer data = rig.Fill(4096);
        int sent = 0;
        int done = 0;
        NvmeFinished[] finished = new NvmeFinished[4];
        while (done < 1000)
        {
            while (sent < 1000 && queue.TryRead((ushort)sent, 1, (ulong)(sent % 100), 8, data))
            {
                sent++;
            }

            queue.Submit();
            int count = queue.Collect(finished);
            Assert.All(finished[..count], one => Assert.Equal(0, one.Status));
            done += count;
            if (count == 0)
            {
                await Task.Yield();
            }
        }
    }

    private static Task<NvmeStatus> ReadFirstAsync(NvmeRig rig, NvmeDriverQueue queue) =>
        NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Read, rig.Allocate(), 0));

    private static NvmeCommand Sgl(NvmeIoOpcode opcode, ulong address, uint length, byte type, uint blocks) => new()
    {
        Opcode = (byte)opcode,
        Flags = 1 << 6,
        Id = 99,
        Namespace = 1,
        Pointer1 = address,
        Pointer2 = length | ((ulong)type << 56),
        Word12 = blocks - 1,
    };

    private static void Put(DriverBuffer list, int index, ulong address, uint length, byte type) =>
        MemoryMarshal.Write(
            list.Span[(index * SglDescriptor.Bytes)..],
            new SglDescriptor { Address = address, Length = length, ReservedAndType = (uint)type << 24 });
}
