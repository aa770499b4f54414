// A block device of ours over vfio-user, driven by our own driver of virtio over PCI: verified requests, rings of both
// kinds, several queues, with doorbells and with messages.
using System.Security.Cryptography;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Block.Driver;
using Outboard.Devices.TestCard;
using Outboard.VfioUser.Client;
using Outboard.Virtio.Pci;
using Outboard.Virtio.Pci.Driver;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VfioUser.Client;

public sealed class VirtioPciDriverTests : IAsyncLifetime
{
    private const int DiskBytes = 1 << 20;
    private readonly MemoryDisk _disk = new(DiskBytes);
    private VirtioPciFunction _function = null!;
    private ServedFunction _served = null!;
    private VfioUserClient _client = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask InitializeAsync()
    {
        BlockDevice device = new(_disk, new BlockDeviceOptions { QueueCount = 4 });
        _function = new VirtioPciFunction(
            device, new VirtioPciOptions { AdditionalFeatures = VirtioFeatures.InOrder });
        _served = new ServedFunction(_function);
        _client = await VfioUserClient.ConnectAsync(
            _served.Path, new VfioUserClientOptions { ReconnectLimit = TimeSpan.FromSeconds(20) });
    }

    public async ValueTask DisposeAsync()
    {
        await _client.DisposeAsync();
        await _served.DisposeAsync();
        await _function.DisposeAsync();
        _disk.Dispose();
    }

    [Theory]
    [InlineData(ulong.MaxValue, 1)]
    [InlineData(ulong.MaxValue, 4)]
    [InlineData(~VirtioFeatures.RingPacked, 4)]
    [InlineData(~VirtioFeatures.InOrder, 4)]
    [InlineData(0UL, 1)]
    public async Task Written_sectors_are_read_back(ulong wanted, int queues)
    {
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(_client, wanted, Cancellation);
        Assert.Equal(VirtioDeviceId.Block, driver.DeviceId);
        Assert.Equal(4, driver.QueueCount);
        Assert.Equal(wanted & VirtioFeatures.InOrder, driver.Features & VirtioFeatures.InOrder);
        byte[] capacity = new byte[8];
        await driver.ReadConfigAsync(0, capacity, Cancellation);
        Assert.Equal(DiskBytes / 512, BitConverter.ToInt64(capacity));
        using DriverMemory memory = new(4 << 20);
        await _client.MapAsync(memory.GuestAddress, memory.File, 0, memory.SizeBytes, Cancellation);
        List<BlockDriver> drivers = [];
        for (int queue = 0; queue < queues; queue++)
        {
            VirtioPciQueue link = await driver.StartQueueAsync(queue, 64, memory, Cancellation);
            Assert.True(link.HasDoorbell);
            drivers.Add(new BlockDriver(link, 8, 65536));
        }

        await driver.RunAsync(Cancellation);
        Assert.True((await driver.GetStatusAsync(Cancellation)).HasFlag(VirtioStatus.DriverOk));
        await Task.WhenAll(drivers.Select((block, queue) => Task.Run(() => Verify(block, queue), Cancellation)));
        await driver.ResetAsync(Cancellation);
        await _client.UnmapAsync(memory.GuestAddress, memory.SizeBytes, Cancellation);
    }

    [Fact]
    public async Task A_queue_is_stopped_and_started_again()
    {
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(_client, cancellation: Cancellation);
        using DriverMemory memory = new(4 << 20);
        await _client.MapAsync(memory.GuestAddress, memory.File, 0, memory.SizeBytes, Cancellation);
        for (int round = 0; round < 3; round++)
        {
            VirtioPciQueue queue = await driver.StartQueueAsync(1, 16, memory, Cancellation);
            await driver.RunAsync(Cancellation);
            BlockDriver block = new(queue, 2, 65536);
            await Task.Run(() => Verify(block, round), Cancellation);
            await driver.StopQueueAsync(queue, Cancellation);
        }

        await driver.ResetAsync(Cancellation);
    }

    /// <summary>The function lives on while its server is away; requests that wait in the ring are answered
    /// later.</summary>
    [Fact]
    public async Task Requests_outlive_the_connection()
    {
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(_client, cancellation: Cancellation);
        using DriverMemory memory = new(4 << 20);
        await _client.MapAsync(memory.GuestAddress, memory.File, 0, memory.SizeBytes, Cancellation);
        VirtioPciQueue queue = await driver.StartQueueAsync(0, 16, memory, Cancellation);
        await driver.RunAsync(Cancellation);
        BlockDriver block = new(queue, 2, 65536);
        byte[] written = RandomNumberGenerator.GetBytes(4096);
        byte[] read = new byte[4096];
        await Task.Run(() => block.Write(8192, written), Cancellation);
        await _served.StopAsync();
        Task reading = Task.Run(() => block.Read(8192, read), Cancellation);
        _served.Start();
        try
        {
            await driver.GetStatusAsync(Cancellation);
        }
        catch (IOException)
        {
            // the command that finds out about the loss fails, if the client does not know of it already
        }

        Assert.True((await driver.GetStatusAsync(Cancellation)).HasFlag(VirtioStatus.DriverOk));
        await reading.WaitAsync(TimeSpan.FromSeconds(20), Cancellation);
        Assert.Equal(written, read);
        await driver.ResetAsync(Cancellation);
    }

    [Fact]
    public async Task What_is_no_virtio_device_is_refused()
    {
        using TestCardFunction card = new();
        await using ServedFunction served = new(card);
        await using VfioUserClient client = await VfioUserClient.ConnectAsync(served.Path, null, Cancellation);
        await Assert.ThrowsAsync<InvalidDataException>(
            () => VirtioPciDriver.StartAsync(client, cancellation: Cancellation));
    }

    private static void Verify(BlockDriver block, int area)
    {
        ulong start = (ulong)area * (DiskBytes / 4);
        byte[] read = new byte[65536];
        for (int round = 0; round < 20; round++)
        {
            byte[] written = RandomNumberGenerator.GetBytes(512 << (round % 7));
            ulong offset = start + ((ulong)round * 512);
            block.Write(offset, written);
            block.Read(offset, read.AsSpan(0, written.Length));
            Assert.Equal(written, read[..written.Length]);
        }

        block.Flush();
    }
}
