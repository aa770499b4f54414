// An image goes with the virtio function that is on it from one process to the other, and back when that fails.
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Block.Driver;
using Outboard.Pci;
using Outboard.Tests.Linux;
using Outboard.Tests.VfioUser.Client;
using Outboard.VfioUser.Client;
using Outboard.Virtio.Pci;
using Outboard.Virtio.Pci.Driver;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VfioUser.Virtio;

public sealed class ImageMigrationTests : IDisposable
{
    private readonly TemporaryFile _image = TemporaryFile.OnDisk(1 << 20);
    private readonly DriverMemory _memory = new(4 << 20);

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        _memory.Dispose();
        _image.Dispose();
    }

    [Fact]
    public async Task The_image_goes_with_the_function()
    {
        await using Machine here = await Machine.StartAsync(FileDisk.Open(_image.Path));
        using VirtioPciDriver driver = await StartDriverAsync(here);
        List<byte> stream = await MigrationStream.LeaveAsync(here.Client);
        Assert.False(_image.IsLocked());
        await using Machine there = await Machine.StartAsync(FileDisk.Open(_image.Path, incoming: true));
        await MapAsync(there);
        await MigrationStream.ReceiveAsync(there.Client, stream);
        Assert.False(_image.IsLocked());
        await there.Client.SetMigrationStateAsync(MigrationState.Running, Cancellation);
        Assert.True(_image.IsLocked());
    }

    [Fact]
    public async Task A_guest_that_stays_takes_the_image_again()
    {
        await using Machine here = await Machine.StartAsync(FileDisk.Open(_image.Path));
        using VirtioPciDriver driver = await StartDriverAsync(here);
        await MigrationStream.LeaveAsync(here.Client);
        Assert.False(_image.IsLocked());
        await here.Client.SetMigrationStateAsync(MigrationState.Running, Cancellation);
        Assert.True(_image.IsLocked());
    }

    [Fact]
    public async Task A_function_that_gets_nothing_goes_on_without_the_image()
    {
        using FileDisk user = FileDisk.Open(_image.Path);
        await using Machine there = await Machine.StartAsync(FileDisk.Open(_image.Path, incoming: true));
        await there.Client.SetMigrationStateAsync(MigrationState.Resuming, Cancellation);
        await there.Client.SetMigrationStateAsync(MigrationState.Running, Cancellation);
        user.Release();
        using VirtioPciDriver driver = await StartDriverAsync(there);
        Assert.True(_image.IsLocked());
    }

    private async Task<VirtioPciDriver> StartDriverAsync(Machine machine)
    {
        await MapAsync(machine);
        VirtioPciDriver driver = await VirtioPciDriver.StartAsync(machine.Client, cancellation: Cancellation);
        VirtioPciQueue queue = await driver.StartQueueAsync(0, 16, _memory, Cancellation);
        await driver.RunAsync(Cancellation);
        BlockDriver block = new(queue, 1, 4096);
        await Task.Run(() => block.Write(0, new byte[4096]), Cancellation);
        return driver;
    }

    private Task MapAsync(Machine machine) => machine.Client.MapAsync(
        _memory.GuestAddress, _memory.File, 0, _memory.SizeBytes, Cancellation);

    /// <summary>A process with the device, and its client.</summary>
    private sealed class Machine : IAsyncDisposable
    {
        private readonly FileDisk _disk;
        private readonly VirtioPciFunction _function;
        private readonly ServedFunction _served;

        private Machine(FileDisk disk)
        {
            _disk = disk;
            _function = new VirtioPciFunction(new BlockDevice(disk));
            _served = new ServedFunction(_function);
        }

        public VfioUserClient Client { get; private set; } = null!;

        public static async Task<Machine> StartAsync(FileDisk disk)
        {
            Machine machine = new(disk);
            machine.Client = await VfioUserClient.ConnectAsync(machine._served.Path, null, Cancellation);
            return machine;
        }

        public async ValueTask DisposeAsync()
        {
            await Client.DisposeAsync();
            await _served.DisposeAsync();
            await _function.DisposeAsync();
            _disk.Dispose();
        }
    }
}
