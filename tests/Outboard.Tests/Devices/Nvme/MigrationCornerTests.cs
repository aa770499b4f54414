// A controller that moves from where controllers rarely are: doorbells anywhere, other interrupts than MSI-X, on its
// way twice, failed, with memory far up.
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme;
using Outboard.Devices.Nvme.Driver;
using Outboard.Devices.Nvme.Spec;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Pci;
using Outboard.Pci.Driver;
using Outboard.Pci.Interrupts;
using Outboard.Tests.VfioUser.Client;
using Outboard.VfioUser.Client;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

public sealed class MigrationCornerTests : IDisposable
{
    private readonly MemoryDisk _disk = new(NvmeRig.DiskBytes);

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public void Dispose() => _disk.Dispose();

    /// <summary>Doorbells in memory are no registers, which stay where they were when the queue was made.</summary>
    [Theory]
    [InlineData(true, 21)]
    [InlineData(true, 37)]
    [InlineData(false, 21)]
    public async Task Doorbells_may_stand_anywhere(bool shadow, int before)
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(NvmeMachine.Options, shadow: shadow, disks: _disk);
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 32);
        await ReadAsync(rig, queue, before);
        List<byte> stream = await MigrationStream.LeaveAsync(rig.Client);
        await using NvmeMachine there = await NvmeMachine.StartAsync(_disk);
        await there.ArriveAsync(rig, stream);
        await ReadAsync(rig, queue, 70);
    }

    [Fact]
    public async Task Doorbells_that_are_put_into_memory_after_a_move_are_where_the_queues_are()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(NvmeMachine.Options, shadow: false, disks: _disk);
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 32);
        await ReadAsync(rig, queue, 5);
        List<byte> stream = await MigrationStream.LeaveAsync(rig.Client);
        await using NvmeMachine there = await NvmeMachine.StartAsync(_disk);
        await there.ArriveAsync(rig, stream);
        DriverBuffer values = rig.Allocate(), events = rig.Allocate();
        Assert.Equal(NvmeStatus.Success, await rig.AdminAsync(new NvmeCommand
        {
            Opcode = (byte)NvmeAdminOpcode.DoorbellBufferConfig,
            Pointer1 = values.GuestAddress,
            Pointer2 = events.GuestAddress,
        }));
        Assert.Equal(5u, BitConverter.ToUInt32(values.Span[(2 * sizeof(uint))..]));
    }

    [Fact]
    public async Task A_controller_without_msix_moves_too_but_not_to_one_with_it()
    {
        NvmeOptions options = NvmeMachine.Options with { HasMsix = false };
        await using NvmeRig rig = await NvmeRig.StartAsync(options, shadow: false, disks: _disk);
        using EventFd vector = new();
        await rig.Client.WriteAsync(
            PciHandle.Config, (ulong)rig.Controller.Interrupts.Msi!.Offset + 2, new byte[] { 1, 0 }, Cancellation);
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 16, hasInterrupt: false);
        await ReadAsync(rig, queue, 3);
        List<byte> stream = await MigrationStream.LeaveAsync(rig.Client);

        await using NvmeMachine other = await NvmeMachine.StartAsync(_disk);
        await Assert.ThrowsAsync<VfioUserException>(() => other.ArriveAsync(rig, stream));
        await using NvmeMachine there = await NvmeMachine.StartAsync(_disk, options);
        await there.Client.BindAsync(InterruptKind.Msi, 0, [vector], Cancellation);
        await there.ArriveAsync(rig, stream);
        Assert.NotEqual(0UL, vector.Wait(20_000));
        await ReadAsync(rig, queue, 3);
        Assert.True(there.Controller.UsesVectors);
    }

    /// <summary>The machine there was never let run: what goes on from there is what came.</summary>
    [Fact]
    public async Task A_state_that_has_arrived_may_leave_again_at_once()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(NvmeMachine.Options, disks: _disk);
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 32);
        await ReadAsync(rig, queue, 3);
        List<byte> stream = await MigrationStream.LeaveAsync(rig.Client);
        await using NvmeMachine there = await NvmeMachine.StartAsync(_disk);
        await there.ReceiveAsync(rig, stream);
        List<byte> again = await MigrationStream.LeaveAsync(there.Client);
        Assert.Equal(stream, again);
        await using NvmeMachine beyond = await NvmeMachine.StartAsync(_disk);
        await beyond.ArriveAsync(rig, again);
        await ReadAsync(rig, queue, 3);
    }

    /// <summary>Only a client that breaks the rules lets a driver work before the state is used.</summary>
    [Fact]
    public async Task A_controller_that_was_enabled_meanwhile_does_not_become_another()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(NvmeMachine.Options, disks: _disk);
        await rig.CreateQueueAsync(1, 32);
        List<byte> stream = await MigrationStream.LeaveAsync(rig.Client);
        await using NvmeMachine there = await NvmeMachine.StartAsync(_disk);
        await there.ReceiveAsync(rig, stream);
        await WriteAsync(there.Client, NvmeRegister.AdminQueueAttributes, 0x000f000f);
        await WriteAsync(there.Client, NvmeRegister.Configuration, 0x00460001);
        await Assert.ThrowsAsync<VfioUserException>(
            () => there.Client.SetMigrationStateAsync(MigrationState.Running, Cancellation));
        await there.Client.ResetAsync(Cancellation);
        await MigrationStream.ArriveAsync(there.Client, stream);
        await rig.CreateQueueAsync(2, 32);
    }

    /// <summary>What failed when it was enabled is enabled for its driver, until that disables it.</summary>
    [Fact]
    public async Task A_controller_that_has_failed_moves_and_can_be_disabled()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(NvmeMachine.Options, disks: _disk);
        await rig.Driver.StopAsync(Cancellation);
        const uint unknownCommandSet = 1 << 4;
        await WriteAsync(rig.Client, NvmeRegister.Configuration, 0x00460001 | unknownCommandSet);
        Assert.Equal((uint)NvmeControllerStatus.Fatal, await ReadAsync(rig.Client, NvmeRegister.Status));
        List<byte> stream = await MigrationStream.LeaveAsync(rig.Client);
        await using NvmeMachine there = await NvmeMachine.StartAsync(_disk);
        await there.ArriveAsync(rig, stream);
        Assert.Equal((uint)NvmeControllerStatus.Fatal, await ReadAsync(there.Client, NvmeRegister.Status));
        using NvmeDriver driver = await NvmeDriver.StartAsync(there.Client, rig.Memory, true, Cancellation);
        await driver.StopAsync(Cancellation);
        Assert.Equal(0u, await ReadAsync(there.Client, NvmeRegister.Status));
    }

    /// <summary>A controller that is halted writes nothing any more, not even what it wants to be told.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Nothing_is_written_after_the_last_look_at_the_log(bool usesVectors)
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(NvmeMachine.Options, disks: _disk);
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 32);
        if (!usesVectors)
        {
            await rig.DisableVectorsAsync();
        }

        await rig.Client.StartDirtyLogAsync(cancellation: Cancellation);
        for (int round = 0; round < 10; round++)
        {
            await ReadAsync(rig, queue, 2);
            await rig.Client.SetMigrationStateAsync(MigrationState.StopCopy, Cancellation);
            await TakeLogAsync(rig);
            for (int look = 0; look < 10; look++)
            {
                await rig.Controller.WorkerFor(1).InvokeAsync(() => { });
                Assert.All(await TakeLogAsync(rig), bits => Assert.Equal(0, bits));
            }

            await rig.Client.SetMigrationStateAsync(MigrationState.Running, Cancellation);
        }
    }

    /// <summary>Memory beyond what the log covers counts as written.</summary>
    [Fact]
    public async Task Memory_far_up_does_not_keep_a_log_from_being_started()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(NvmeMachine.Options, disks: _disk);
        const ulong high = 1UL << 62;
        await rig.Client.MapAsync(high, rig.Memory.File, 0, 8192, Cancellation);
        await rig.Client.StartDirtyLogAsync(cancellation: Cancellation);
        byte[] bits = await rig.Client.TakeDirtyLogAsync(high, 8192, cancellation: Cancellation);
        Assert.Equal(3, bits[0]);
        NvmeDriverQueue queue = await rig.CreateQueueAsync(1, 32);
        await TakeLogAsync(rig);
        await ReadAsync(rig, queue, 1);
        Assert.Contains(await TakeLogAsync(rig), one => one != 0);
    }

    private static Task<byte[]> TakeLogAsync(NvmeRig rig) => rig.Client.TakeDirtyLogAsync(
        rig.Memory.GuestAddress, rig.Memory.SizeBytes, cancellation: Cancellation);

    private static Task WriteAsync(VfioUserClient client, int register, uint value) =>
        client.WriteAsync(0, (ulong)register, BitConverter.GetBytes(value), Cancellation);

    private static async Task<uint> ReadAsync(VfioUserClient client, int register)
    {
        byte[] value = new byte[sizeof(uint)];
        await client.ReadAsync(0, (ulong)register, value, Cancellation);
        return BitConverter.ToUInt32(value);
    }

    /// <summary>Reads blocks, one after another.</summary>
    private static async Task ReadAsync(NvmeRig rig, NvmeDriverQueue queue, int commands)
    {
        DriverBuffer data = rig.Allocate();
        for (int i = 0; i < commands; i++)
        {
            Assert.True(queue.TryRead((ushort)i, 1, (ulong)i, 1, data));
            queue.Submit();
            Assert.Equal(0, (await NvmeRig.CollectAsync(queue, 1))[0].Status);
        }
    }
}
