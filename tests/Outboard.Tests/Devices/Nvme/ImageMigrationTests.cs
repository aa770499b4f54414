// An image has one user at a time: it goes with the controller from one process to the other, and back when that fails.
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme.Driver;
using Outboard.Devices.Nvme.Spec;
using Outboard.Pci;
using Outboard.Tests.Linux;
using Outboard.Tests.VfioUser.Client;
using Outboard.VfioUser.Client;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

public sealed class ImageMigrationTests : IDisposable
{
    private const uint Enable = 0x00460001;
    private readonly TemporaryFile _image = TemporaryFile.OnDisk(1 << 20);

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public void Dispose() => _image.Dispose();

    [Fact]
    public async Task The_image_goes_with_the_controller()
    {
        await using NvmeRig rig = await StartAsync();
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        DriverBuffer data = rig.Fill(4096);
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Write, data, 8)));
        Assert.True(_image.IsLocked());
        List<byte> stream = await MigrationStream.LeaveAsync(rig.Client);
        Assert.False(_image.IsLocked());

        using FileDisk disk = FileDisk.Open(_image.Path, incoming: true);
        await using NvmeMachine there = await NvmeMachine.StartAsync(disk);
        await there.ReceiveAsync(rig, stream);
        Assert.False(_image.IsLocked());
        await there.Client.SetMigrationStateAsync(MigrationState.Running, Cancellation);
        Assert.True(_image.IsLocked());
        DriverBuffer found = rig.Allocate();
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Read, found, 8)));
        Assert.True(found.Span.SequenceEqual(data.Span));
    }

    /// <summary>The guest goes on here: whoever waits for the image there does not get it.</summary>
    [Fact]
    public async Task A_guest_that_stays_takes_the_image_again()
    {
        await using NvmeRig rig = await StartAsync();
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        List<byte> stream = await MigrationStream.LeaveAsync(rig.Client);
        await rig.Client.SetMigrationStateAsync(MigrationState.Running, Cancellation);
        Assert.True(_image.IsLocked());
        using FileDisk disk = FileDisk.Open(_image.Path, incoming: true);
        await using NvmeMachine there = await NvmeMachine.StartAsync(disk);
        await MigrationStream.ReceiveAsync(there.Client, stream);
        await Assert.ThrowsAsync<VfioUserException>(
            () => there.Client.SetMigrationStateAsync(MigrationState.Running, Cancellation));
        Assert.Equal(MigrationState.Error, await there.Client.GetMigrationStateAsync(Cancellation));
        Assert.Equal(
            NvmeStatus.Success, await NvmeRig.RunAsync(queue, rig.Move(NvmeIoOpcode.Read, rig.Allocate(), 8)));
    }

    [Fact]
    public async Task A_controller_that_gets_nothing_goes_on_without_the_image()
    {
        using FileDisk user = FileDisk.Open(_image.Path);
        using FileDisk disk = FileDisk.Open(_image.Path, incoming: true);
        await using NvmeMachine there = await NvmeMachine.StartAsync(disk);
        await there.Client.SetMigrationStateAsync(MigrationState.Resuming, Cancellation);
        await there.Client.SetMigrationStateAsync(MigrationState.Running, Cancellation);
    }

    /// <summary>Enabling waits for the image, and for nothing else; who disables it meanwhile need not wait.</summary>
    [Fact]
    public async Task An_incoming_image_is_taken_when_the_controller_is_enabled()
    {
        FileDisk user = FileDisk.Open(_image.Path);
        using FileDisk disk = FileDisk.Open(_image.Path, incoming: true);
        await using NvmeMachine machine = await NvmeMachine.StartAsync(disk);
        await WriteAsync(machine.Client, NvmeRegister.AdminQueueAttributes, 0x000f000f);
        await WriteAsync(machine.Client, NvmeRegister.Configuration, Enable);
        Assert.Equal(NvmeControllerStatus.None, await ReadStatusAsync(machine.Client));
        await WriteAsync(machine.Client, NvmeRegister.Configuration, 0);
        await WriteAsync(machine.Client, NvmeRegister.Configuration, Enable);
        await WriteAsync(machine.Client, NvmeRegister.Configuration, 0);
        await WriteAsync(machine.Client, NvmeRegister.Configuration, Enable);
        using (FileStream growing = new(_image.Path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            growing.SetLength(2 << 20);
        }

        user.Dispose();
        await UntilAsync(machine.Client, NvmeControllerStatus.Ready);
        Assert.True(_image.IsLocked());
        Assert.Equal((2 << 20) / 512, machine.Controller.Namespaces[0].BlockCount);
        await WriteAsync(machine.Client, NvmeRegister.Configuration, 0);
        await UntilAsync(machine.Client, NvmeControllerStatus.None);

        // it stays: the guest is here
        Assert.True(_image.IsLocked());
    }

    [Fact]
    public async Task A_reset_does_not_wait_for_an_image_to_be_used()
    {
        using FileDisk user = FileDisk.Open(_image.Path);
        using FileDisk disk = FileDisk.Open(_image.Path, incoming: true);
        await using NvmeMachine machine = await NvmeMachine.StartAsync(disk);
        await WriteAsync(machine.Client, NvmeRegister.AdminQueueAttributes, 0x000f000f);
        await WriteAsync(machine.Client, NvmeRegister.Configuration, Enable);
        await machine.Client.ResetAsync(Cancellation);
        Assert.Equal(NvmeControllerStatus.None, await ReadStatusAsync(machine.Client));
        await WriteAsync(machine.Client, NvmeRegister.AdminQueueAttributes, 0x000f000f);
        await WriteAsync(machine.Client, NvmeRegister.Configuration, Enable);

        // nobody lets go of it: the controller has failed, and can be disabled
        await UntilAsync(machine.Client, NvmeControllerStatus.Fatal);
        await WriteAsync(machine.Client, NvmeRegister.Configuration, 0);
        await UntilAsync(machine.Client, NvmeControllerStatus.None);
    }

    /// <summary>The guest is elsewhere, with the image: queues that are here must not go on by themselves.</summary>
    [Fact]
    public async Task A_client_that_comes_after_the_guest_has_left_finds_a_controller_after_a_reset()
    {
        using FileDisk own = FileDisk.Open(_image.Path);
        await using NvmeMachine machine = await NvmeMachine.StartAsync(own);
        await WriteAsync(machine.Client, NvmeRegister.AdminQueueAttributes, 0x000f000f);
        await WriteAsync(machine.Client, NvmeRegister.Configuration, Enable);
        await UntilAsync(machine.Client, NvmeControllerStatus.Ready);
        await MigrationStream.LeaveAsync(machine.Client);
        await machine.ReconnectAsync();
        Assert.Equal(NvmeControllerStatus.None, await ReadStatusAsync(machine.Client));
        Assert.False(_image.IsLocked());
        await WriteAsync(machine.Client, NvmeRegister.AdminQueueAttributes, 0x000f000f);
        await WriteAsync(machine.Client, NvmeRegister.Configuration, Enable);
        await UntilAsync(machine.Client, NvmeControllerStatus.Ready);
        Assert.True(_image.IsLocked());
    }

    /// <summary>Errors and counts are the guest's view of its disk, which is the same one everywhere.</summary>
    [Fact]
    public async Task The_error_log_and_the_health_log_go_with_the_controller()
    {
        await using NvmeRig rig = await StartAsync();
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        NvmeCommand write = rig.Move(NvmeIoOpcode.Write, rig.Fill(4096), 0);
        for (int i = 0; i < 3; i++)
        {
            Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, write));
        }

        for (int i = 0; i < 20; i++)
        {
            rig.Controller.Errors.Add(1, (ushort)i, NvmeStatus.WriteFault);
        }

        byte[] errors = await rig.ReadLogAsync(NvmeLogPage.Errors, 1024);
        byte[] health = await rig.ReadLogAsync(NvmeLogPage.Health, 512);
        Assert.Equal(3UL, BitConverter.ToUInt64(health, 80));
        List<byte> stream = await MigrationStream.LeaveAsync(rig.Client);
        using FileDisk disk = FileDisk.Open(_image.Path, incoming: true);
        await using NvmeMachine there = await NvmeMachine.StartAsync(disk);
        await there.ArriveAsync(rig, stream);
        Assert.Equal(errors, await rig.ReadLogAsync(NvmeLogPage.Errors, 1024));
        Assert.Equal(health, await rig.ReadLogAsync(NvmeLogPage.Health, 512));
        Assert.Equal(NvmeStatus.Success, await NvmeRig.RunAsync(queue, write));
        there.Controller.Errors.Add(1, 99, NvmeStatus.WriteFault);
        health = await rig.ReadLogAsync(NvmeLogPage.Health, 512);
        Assert.Equal(4UL, BitConverter.ToUInt64(health, 80));
        Assert.Equal(BitConverter.ToUInt64(errors) + 1, BitConverter.ToUInt64(health, 176));
    }

    private Task<NvmeRig> StartAsync() =>
        NvmeRig.StartAsync(NvmeMachine.Options, disks: FileDisk.Open(_image.Path));

    private static Task WriteAsync(VfioUserClient client, int register, uint value) =>
        client.WriteAsync(0, (ulong)register, BitConverter.GetBytes(value), Cancellation);

    private static async Task<NvmeControllerStatus> ReadStatusAsync(VfioUserClient client)
    {
        byte[] value = new byte[sizeof(uint)];
        await client.ReadAsync(0, NvmeRegister.Status, value, Cancellation);
        return (NvmeControllerStatus)BitConverter.ToUInt32(value);
    }

    private static async Task UntilAsync(VfioUserClient client, NvmeControllerStatus wanted)
    {
        long start = Environment.TickCount64;
        while (await ReadStatusAsync(client) != wanted)
        {
            Assert.True(Environment.TickCount64 - start < 20_000, $"the controller is not {wanted}");
            await Task.Delay(1, Cancellation);
        }
    }
}
