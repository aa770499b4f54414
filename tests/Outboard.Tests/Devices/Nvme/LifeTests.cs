// Resets at any point, with commands under way; memory that comes and goes; a client that goes and another that comes.
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme;
using Outboard.Devices.Nvme.Driver;
using Outboard.Devices.Nvme.Spec;
using Outboard.Linux.Events;
using Outboard.Pci;
using Outboard.Pci.Interrupts;
using Outboard.VfioUser.Client;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

public sealed class LifeTests
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(true, 0)]
    [InlineData(true, 1)]
    [InlineData(true, 2)]
    [InlineData(false, 0)]
    [InlineData(false, 1)]
    public async Task A_reset_at_any_point_leaves_a_controller_that_works(bool isShared, int how)
    {
        Random random = new(how);
        using MemoryDisk inner = new(NvmeRig.DiskBytes);
        FaultPlan plan = new() { DelayRate = 0.3, Delay = TimeSpan.FromMilliseconds(2), ErrorRate = 0.05 };
        await using NvmeRig rig = await NvmeRig.StartAsync(isShared: isShared, disks: new FaultyDisk(inner, plan));
        NvmeCommand[] commands = MakeCommands(rig);
        for (int round = 0; round < 12; round++)
        {
            List<NvmeDriverQueue> queues = [];
            for (int id = 1; id <= 3; id++)
            {
                queues.Add(await rig.CreateQueueAsync(id, 16));
            }

            for (int i = 0; i < 30; i++)
            {
                NvmeDriverQueue queue = queues[random.Next(queues.Count)];
                queue.TryAdd(commands[random.Next(commands.Length)] with { Id = (ushort)i });
                queue.Submit();
            }

            rig.Driver.Submit(new NvmeCommand { Opcode = (byte)NvmeAdminOpcode.DeleteSubmissionQueue, Word10 = 2 });
            await Task.Delay(random.Next(4), Cancellation);
            await ResetAsync(rig, how);
            await rig.RestartAsync(shadow: round % 2 == 0);
        }

        Assert.Equal(NvmeControllerStatus.Ready, rig.Controller.Status);
    }

    [Fact]
    public async Task A_reset_does_not_wait_for_a_disk_that_holds_commands_back()
    {
        using MemoryDisk inner = new(NvmeRig.DiskBytes);
        FaultPlan plan = new() { DelayRate = 1, Delay = TimeSpan.FromMinutes(10) };
        await using NvmeRig rig = await NvmeRig.StartAsync(disks: new FaultyDisk(inner, plan));
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        foreach (NvmeCommand command in MakeCommands(rig))
        {
            Assert.True(queue.TryAdd(in command));
        }

        queue.Submit();
        rig.Driver.Submit(new NvmeCommand { Opcode = (byte)NvmeAdminOpcode.DeleteSubmissionQueue, Word10 = 1 });
        await rig.RestartAsync();
        await rig.CreateQueueAsync();
    }

    [Fact]
    public async Task Deleting_a_queue_waits_for_its_commands()
    {
        using MemoryDisk inner = new(NvmeRig.DiskBytes);
        FaultPlan plan = new() { DelayRate = 1, Delay = TimeSpan.FromMilliseconds(20) };
        await using NvmeRig rig = await NvmeRig.StartAsync(disks: new FaultyDisk(inner, plan));
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        DriverBuffer data = rig.Allocate();
        for (int i = 0; i < 8; i++)
        {
            Assert.True(queue.TryRead((ushort)i, 1, 0, 8, data));
        }

        queue.Submit();
        await rig.Driver.DeleteQueueAsync(1, Cancellation);
        NvmeFinished[] finished = new NvmeFinished[16];
        int count = queue.Collect(finished);

        // what was not taken yet is never taken
        Assert.InRange(count, 0, 8);
        Assert.All(finished[..count], one => Assert.Equal(0, one.Status));
    }

    [Fact]
    public async Task Memory_comes_and_goes_while_commands_are_under_way()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync();
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 64);
        using DriverMemory other = new(1 << 20, 0x10_0000_0000);
        DriverBuffer there = other.Allocate(4096, 4096);
        DriverBuffer here = rig.Allocate();
        bool isMapped = false;
        using CancellationTokenSource ending = new();
        Task reading = Task.Run(
            async () =>
            {
                while (!ending.IsCancellationRequested)
                {
                    for (int i = 0; i < 32; i++)
                    {
                        Assert.True(queue.TryRead((ushort)i, 1, 0, 8, i % 8 == 0 ? there : here));
                    }

                    queue.Submit();
                    foreach (NvmeFinished one in await NvmeRig.CollectAsync(queue, 32))
                    {
                        Assert.True(one.Status == 0 || one.Id % 8 == 0);
                    }
                }
            },
            Cancellation);
        for (int round = 0; round < 60; round++)
        {
            await (isMapped
                ? rig.Client.UnmapAsync(other.GuestAddress, other.SizeBytes, Cancellation)
                : rig.Client.MapAsync(other.GuestAddress, other.File, 0, other.SizeBytes, Cancellation));
            isMapped = !isMapped;
        }

        await ending.CancelAsync();
        await reading;
    }

    [Fact]
    public async Task Rings_whose_memory_goes_and_comes_back_go_on()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(shadow: false);
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        DriverBuffer data = rig.Allocate();
        await rig.Client.UnmapAsync(rig.Memory.GuestAddress, rig.Memory.SizeBytes, Cancellation);
        Assert.True(queue.TryRead(5, 1, 0, 8, data));
        await rig.Client.MapAsync(rig.Memory.GuestAddress, rig.Memory.File, 0, rig.Memory.SizeBytes, Cancellation);
        queue.Submit();
        Assert.Equal(new NvmeFinished(5, 0), (await NvmeRig.CollectAsync(queue, 1))[0]);
        Assert.Equal((1UL << 14, 512), await rig.Driver.GetSizeAsync(1, Cancellation));
    }

    [Fact]
    public async Task A_ring_that_is_not_there_fails_the_controller_until_reset()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(shadow: false);
        NvmeCommand make = new()
        {
            Opcode = (byte)NvmeAdminOpcode.CreateCompletionQueue, Pointer1 = 0x100_0000_0000, Word10 = (15 << 16) | 1,
            Word11 = 1,
        };
        Assert.Equal(NvmeStatus.Success, await rig.AdminAsync(make));
        Assert.Equal(NvmeStatus.Success, await rig.AdminAsync(
            make with { Opcode = (byte)NvmeAdminOpcode.CreateSubmissionQueue, Word11 = (1 << 16) | 1 }));
        new NvmeRings(rig.Client, rig.Memory, 1, 16, 4).WriteDoorbell(false, 3);
        await rig.Driver.WaitForStatusAsync(NvmeControllerStatus.Ready | NvmeControllerStatus.Fatal, Cancellation);
        await rig.RestartAsync();
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        Assert.Equal(
            NvmeStatus.Success, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Read, rig.Allocate(), 0)));
    }

    [Fact]
    public async Task A_client_goes_and_another_takes_the_controller()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync();
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        DriverBuffer data = rig.Fill(4096);
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Write, data, 8)));
        Assert.True(queue.TryRead(1, 1, 8, 8, rig.Allocate()));
        queue.Submit();
        await rig.Client.DisposeAsync();
        await using VfioUserClient second = await VfioUserClient.ConnectAsync(rig.ServedPath);
        await second.MapAsync(rig.Memory.GuestAddress, rig.Memory.File, 0, rig.Memory.SizeBytes, Cancellation);
        using NvmeDriver driver = await NvmeDriver.StartAsync(second, rig.Memory, cancellation: Cancellation);
        NvmeDriverQueue again = await driver.CreateQueueAsync(1, 16, cancellation: Cancellation);
        DriverBuffer read = rig.Allocate();
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(again, rig.Move(NvmeIoOpcode.Read, read, 8)));
        Assert.True(data.Span.SequenceEqual(read.Span));
    }

    [Fact]
    public async Task One_interrupt_comes_for_many_commands()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync();
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 64);
        DriverBuffer data = rig.Allocate();
        ulong interrupts = 0;
        for (int round = 0; round < 20; round++)
        {
            for (int i = 0; i < 60; i++)
            {
                Assert.True(queue.TryRead((ushort)i, 1, 0, 8, data));
            }

            queue.Submit();
            await NvmeRig.CollectAsync(queue, 60);
            interrupts += queue.Completed!.Take();
        }

        Assert.InRange(interrupts, 1u, 20u * 10);
    }

    private static NvmeCommand[] MakeCommands(NvmeRig rig) =>
    [
        rig.Move(NvmeIoOpcode.Read, rig.Allocate(), 0),
        rig.Move(NvmeIoOpcode.Write, rig.Fill(65536), 8),
        rig.Move(NvmeIoOpcode.Compare, rig.Fill(4096), 8),
        new NvmeCommand { Opcode = (byte)NvmeIoOpcode.Flush, Namespace = uint.MaxValue },
        new NvmeCommand
        {
            Opcode = (byte)NvmeIoOpcode.DatasetManagement, Namespace = 1, Word11 = 4, Word10 = 3,
            Pointer1 = ZeroPage(rig),
        },
        new NvmeCommand { Opcode = (byte)NvmeIoOpcode.WriteZeroes, Namespace = 1, Word12 = 99 },
    ];

    private static ulong ZeroPage(NvmeRig rig)
    {
        DriverBuffer page = rig.Allocate();
        page.Span.Clear();
        for (int i = 0; i < 4; i++)
        {
            page.Span[(i * 16) + 4] = 1;
        }

        return page.GuestAddress;
    }

    private static async Task ResetAsync(NvmeRig rig, int how)
    {
        switch (how)
        {
            case 0:
                break;
            case 1:
                await rig.Client.ResetAsync(Cancellation);
                break;
            default:
                await rig.Driver.WriteRegisterAsync(NvmeRegister.Configuration, 0, Cancellation);
                await rig.Driver.WriteRegisterAsync(NvmeRegister.Configuration, 0x00460001, Cancellation);
                await rig.Driver.WriteRegisterAsync(NvmeRegister.Configuration, 0, Cancellation);
                await rig.Driver.WriteRegisterAsync(NvmeRegister.Configuration, 0x00460001, Cancellation);
                await rig.Client.ResetAsync(Cancellation);
                break;
        }
    }
}
