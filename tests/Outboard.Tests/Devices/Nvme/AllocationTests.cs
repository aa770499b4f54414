// What a command costs in memory: nothing, neither its doorbell nor its way through queue, disk and completion. Counted
// on the workers' threads, and for doorbells over the whole process, so nothing runs beside it.
using System.Runtime.InteropServices;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme;
using Outboard.Devices.Nvme.Driver;
using Outboard.Devices.Nvme.Spec;
using Outboard.Tests.Linux;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

[Collection(DescriptorCounting.Name)]
public sealed class AllocationTests
{
    private const int Rounds = 500;
    private const int Depth = 32;

    /// <summary>What asking the workers' threads allocates there.</summary>
    private const int AskingBytes = 1000;

    /// <summary>Commands in several steps are counted one at a time: the runtime keeps few of their states.</summary>
    [Theory]
    [InlineData("memory")]
    [InlineData("file")]
    public async Task A_command_allocates_nothing(string kind)
    {
        using TemporaryFile file = TemporaryFile.OnDisk(NvmeRig.DiskBytes);
        await using NvmeRig rig = await NvmeRig.StartAsync(
            disks: kind == "file" ? FileDisk.Open(file.Path) : new MemoryDisk(NvmeRig.DiskBytes));
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 64);
        DriverBuffer page = rig.Allocate();
        page.Span.Clear();
        DriverBuffer ranges = rig.Allocate();
        ranges.Span.Clear();
        MemoryMarshal.Write(ranges.Span, new DatasetRange { BlockCount = 8, FirstBlock = 64 });
        NvmeCommand[] commands =
        [
            rig.Move(NvmeIoOpcode.Read, page, 0),
            rig.Move(NvmeIoOpcode.Write, page, 0),
            rig.Move(NvmeIoOpcode.Read, rig.Allocate(65536), 0),
            rig.Move(NvmeIoOpcode.Compare, page, 0),
            new() { Opcode = (byte)NvmeIoOpcode.Flush, Namespace = 1 },
            new() { Opcode = (byte)NvmeIoOpcode.Flush, Namespace = uint.MaxValue },
            new() { Opcode = (byte)NvmeIoOpcode.WriteZeroes, Namespace = 1, Word10 = 64, Word12 = 7 },
            new()
            {
                Opcode = (byte)NvmeIoOpcode.DatasetManagement, Namespace = 1, Pointer1 = ranges.GuestAddress,
                Word11 = 4,
            },
        ];
        foreach (NvmeCommand command in commands)
        {
            Run(queue, command, Depth, Rounds / 4);
        }

        foreach (NvmeCommand command in commands)
        {
            long before = await CountAsync(rig);
            int rounds = command.Opcode == (byte)NvmeIoOpcode.Flush ? Rounds / 10 : Rounds;
            int depth = command.Opcode is (byte)NvmeIoOpcode.Compare or (byte)NvmeIoOpcode.DatasetManagement
                || command.Namespace == uint.MaxValue ? 1 : Depth;
            Run(queue, command, depth, rounds);
            double each = (await CountAsync(rig) - before - AskingBytes) / (double)(rounds * depth);
            Assert.True(each < 1, $"{(NvmeIoOpcode)command.Opcode}: {each} bytes for each command");
        }
    }

    [Fact]
    public async Task A_doorbell_by_message_allocates_nothing_at_the_controller()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(shadow: false);
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 64);
        ulong offset = NvmeRegister.Doorbells + 8;
        byte[] value = new byte[4];
        double each = double.MaxValue;
        for (int pass = 0; pass < 4; pass++)
        {
            long before = GC.GetTotalAllocatedBytes(precise: true);
            for (int i = 0; i < 10_000; i++)
            {
                await rig.Controller.WriteBarAtAsync(rig.Controller.Bars[0]!, offset, value);
            }

            each = Math.Min(each, (GC.GetTotalAllocatedBytes(precise: true) - before) / 10_000.0);
        }

        Assert.True(each < 1, $"{each} bytes for each doorbell");
        Assert.Equal(
            NvmeStatus.Success, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Read, rig.Allocate(), 0)));
    }

    /// <summary>Bytes that the workers' threads have allocated so far; asking costs some itself.</summary>
    private static async Task<long> CountAsync(NvmeRig rig)
    {
        long sum = 0;
        foreach (NvmeWorker worker in rig.Controller.Workers)
        {
            await worker.InvokeAsync(() => sum += GC.GetAllocatedBytesForCurrentThread());
        }

        return sum;
    }

    private static void Run(NvmeDriverQueue queue, NvmeCommand command, int depth, int rounds)
    {
        int failures = 0;
        Span<NvmeFinished> finished = stackalloc NvmeFinished[Depth];
        for (int round = 0; round < rounds; round++)
        {
            for (int i = 0; i < depth; i++)
            {
                command.Id = (ushort)i;
                failures += queue.TryAdd(in command) ? 0 : 1;
            }

            queue.Submit();
            SpinWait spin = default;
            for (int done = 0; done < depth;)
            {
                int count = queue.Collect(finished);
                for (int i = 0; i < count; i++)
                {
                    failures += finished[i].Status;
                }

                done += count;
                spin.SpinOnce(sleep1Threshold: -1);
            }
        }

        Assert.Equal(0, failures);
    }
}
