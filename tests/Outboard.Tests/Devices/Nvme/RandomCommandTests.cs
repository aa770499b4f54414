// Random commands, doorbells and registers from a seed: the controller answers what can be answered, ends nowhere, and
// after a reset serves as ever.
using System.Runtime.InteropServices;
using Outboard.Devices.Nvme.Driver;
using Outboard.Devices.Nvme.Spec;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

public sealed class RandomCommandTests
{
    [Theory]
    [InlineData(1, true)]
    [InlineData(2, true)]
    [InlineData(3, false)]
    public async Task Random_commands_are_all_answered(int seed, bool isShared)
    {
        Random random = new(seed);
        await using NvmeRig rig = await NvmeRig.StartAsync(isShared: isShared);
        DriverBuffer pages = MakePages(rig);
        int rounds = isShared ? 100 : 15;
        for (int round = 0; round < rounds; round++)
        {
            NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 32);
            int count = random.Next(1, 31);
            for (int i = 0; i < count; i++)
            {
                NvmeCommand command = MakeCommand(random, pages) with { Id = (ushort)i };
                command.Opcode = random.Next(4) == 0 ? (byte)random.Next(256) : (byte)random.Next(10);
                Assert.True(queue.TryAdd(in command));
            }

            queue.Submit();
            List<NvmeFinished> finished = await NvmeRig.CollectAsync(queue, count);
            Assert.Equal(count, finished.DistinctBy(one => one.Id).Count());
            await rig.Driver.DeleteQueueAsync(1, TestContext.Current.CancellationToken);
            FillLists(random, pages);
        }

        await RequireServiceAsync(rig);
    }

    [Theory]
    [InlineData(4)]
    [InlineData(5)]
    public async Task Random_admin_commands_are_all_answered(int seed)
    {
        Random random = new(seed);
        await using NvmeRig rig = await NvmeRig.StartAsync();
        DriverBuffer pages = MakePages(rig);
        for (int round = 0; round < 300; round++)
        {
            NvmeCommand command = MakeCommand(random, pages);
            command.Flags &= random.Next(2) == 0 ? (byte)0 : byte.MaxValue;
            command.Opcode = random.Next(8) == 0 ? (byte)random.Next(256) : (byte)random.Next(13);
            command.Word10 = random.Next(2) == 0 ? (uint)random.Next(0, 12) | (15u << 16) : (uint)random.Next();
            command.Word11 = (uint)random.Next(4) | ((uint)random.Next(6) << 16);
            if (command.Opcode is not ((byte)NvmeAdminOpcode.AsynchronousEventRequest
                or (byte)NvmeAdminOpcode.DoorbellBufferConfig))
            {
                await rig.AdminAsync(command);
            }
        }

        await rig.RestartAsync();
        await RequireServiceAsync(rig);
    }

    [Fact]
    public async Task Random_writes_to_the_registers_harm_nobody()
    {
        Random random = new(6);
        await using NvmeRig rig = await NvmeRig.StartAsync();
        for (int round = 0; round < 30; round++)
        {
            NvmeDriverQueue queue = await rig.CreateQueueAsync();
            queue.TryRead(1, 1, 0, 8, rig.Allocate());
            queue.Submit();
            for (int i = 0; i < 100; i++)
            {
                byte[] data = new byte[1 << random.Next(4)];
                random.NextBytes(data);
                ulong offset = (ulong)(random.Next(2) == 0 ? random.Next(0x40) : 0x1000 + random.Next(0x60));
                rig.Client.Post(0, offset, data);
            }

            await rig.RestartAsync(round % 2 == 0);
        }

        await RequireServiceAsync(rig);
    }

    /// <summary>Pages for lists and data, and behind them room for data that begins in the last one.</summary>
    private static DriverBuffer MakePages(NvmeRig rig)
    {
        DriverBuffer pages = rig.Fill(16 << 12);
        rig.Allocate(2 << 20);
        return pages;
    }

    private static async Task RequireServiceAsync(NvmeRig rig)
    {
        NvmeDriverQueue queue = await rig.CreateQueueAsync(2);
        DriverBuffer data = rig.Fill(4096);
        DriverBuffer read = rig.Allocate();
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Write, data, 0)));
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Read, read, 0)));
        Assert.True(data.Span.SequenceEqual(read.Span));
    }

    private static NvmeCommand MakeCommand(Random random, DriverBuffer pages) => new()
    {
        Flags = random.Next(4) switch { 0 => (byte)random.Next(256), 1 => 1 << 6, _ => 0 },
        Namespace = random.Next(8) == 0 ? (uint)random.Next() : (uint)random.Next(0, 4),
        Pointer1 = Address(random, pages),
        Pointer2 = random.Next(2) == 0
            ? Address(random, pages)
            : (uint)random.Next(0, 5000) | ((ulong)random.Next(0, 4) << 60),
        Word10 = random.Next(8) == 0 ? (uint)random.Next() : (uint)random.Next(0, 17000),
        Word11 = random.Next(8) == 0 ? (uint)random.Next() : random.Next(2) == 0 ? 4u : 0,
        Word12 = (uint)random.Next(0, random.Next(2) == 0 ? 64 : 4096) | ((uint)random.Next(256) << 24),
    };

    private static ulong Address(Random random, DriverBuffer pages)
    {
        ulong place = random.Next(12) == 0
            ? (ulong)random.NextInt64()
            : pages.GuestAddress + ((uint)random.Next(16) << 12);
        return random.Next(4) == 0 ? place + (ulong)random.Next(4096) : place;
    }

    private static void FillLists(Random random, DriverBuffer pages)
    {
        Span<ulong> words = MemoryMarshal.Cast<byte, ulong>(pages.Span);
        for (int i = 0; i < words.Length; i++)
        {
            words[i] = i % 2 == 0 || random.Next(2) == 0
                ? Address(random, pages)
                : (uint)random.Next(0, 300) * 16 | ((ulong)random.Next(0, 4) << 60);
        }
    }
}
