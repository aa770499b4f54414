// Somebody else's back-end as a PCI function: what a driver writes reaches the back-end's storage, whatever way memory,
// kicks and calls take; and what becomes of a driver whose back-end goes away.
using System.Security.Cryptography;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Block.Driver;
using Outboard.Devices.Rng;
using Outboard.Linux.Events;
using Outboard.Pci.Interrupts;
using Outboard.Tests.VfioUser.Client;
using Outboard.Tests.VhostUser;
using Outboard.VfioUser.Client;
using Outboard.VfioUser.Protocol;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Pci.Driver;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VfioUser.Bridge;

public sealed class RemoteDeviceTests : IDisposable
{
    private const int DiskBytes = 1 << 20;
    private readonly MemoryDisk _disk = new(DiskBytes);
    private readonly DriverMemory _memory = new(4 << 20);
    private readonly List<VirtioPciQueue> _links = [];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public void Dispose()
    {
        _memory.Dispose();
        _disk.Dispose();
    }

    [Theory]
    [InlineData(0UL, ProtocolFeatures.None, 1)]
    [InlineData(0UL, ProtocolFeatures.None, 4)]
    [InlineData(VirtioFeatures.RingPacked, ProtocolFeatures.None, 4)]
    [InlineData(VirtioFeatures.RingPacked, ProtocolFeatures.ConfigureMemSlots, 1)]
    [InlineData(0UL, ProtocolFeatures.ReplyAck | ProtocolFeatures.InflightShmFd | ProtocolFeatures.ResetDevice, 1)]
    public async Task Written_sectors_are_read_back(ulong withheld, ProtocolFeatures without, int queues)
    {
        await using RemoteRig rig = await RemoteRig.StartAsync(
            Disk(4), new VhostUserBackendOptions { WithheldProtocolFeatures = without },
            new RemoteDeviceOptions { WithheldFeatures = withheld });
        await using ServedFunction served = new(rig.Function);
        await using VfioUserClient client = await VfioUserClient.ConnectAsync(served.Path, null, Cancellation);
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(client, cancellation: Cancellation);
        Assert.Equal(VirtioDeviceId.Block, driver.DeviceId);
        Assert.Equal(4, driver.QueueCount);
        Assert.Equal(withheld == 0, (driver.Features & VirtioFeatures.RingPacked) != 0);
        byte[] capacity = new byte[8];
        await driver.ReadConfigAsync(0, capacity, Cancellation);
        Assert.Equal(DiskBytes / 512, BitConverter.ToInt64(capacity));
        for (int round = 0; round < 2; round++)
        {
            List<BlockDriver> drivers = await StartAsync(client, driver, queues, shares: round == 0);
            await Task.WhenAll(drivers.Select((block, queue) => Task.Run(() => Verify(block, queue), Cancellation)));
            await driver.ResetAsync(Cancellation);
            Assert.Equal(0, await rig.Device.CountDirectAsync());
            if (round == 0)
            {
                driver.Dispose();
                using VirtioPciDriver next = await VirtioPciDriver.StartAsync(client, cancellation: Cancellation);
                drivers = await StartAsync(client, next, queues, shares: false);
                await Task.WhenAll(drivers.Select((block, i) => Task.Run(() => Verify(block, i), Cancellation)));
                await next.ResetAsync(Cancellation);
                break;
            }
        }

        await client.UnmapAsync(_memory.GuestAddress, _memory.SizeBytes, Cancellation);
        Assert.Empty(rig.Log.Warnings);
    }

    /// <summary>An interrupt that nothing holds back is the back-end's own to raise; a masked one waits.</summary>
    [Fact]
    public async Task Interrupts_go_past_this_process_unless_they_are_masked()
    {
        FakeDevice device = new();
        await using RemoteRig rig = await RemoteRig.StartAsync(
            device, null, new RemoteDeviceOptions { Type = VirtioDeviceId.Entropy });
        await using ServedFunction served = new(rig.Function);
        await using VfioUserClient client = await VfioUserClient.ConnectAsync(served.Path, null, Cancellation);
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(client, cancellation: Cancellation);
        VirtioPciQueue queue = await StartOneAsync(client, driver);
        EventFd call = queue.Call;
        Assert.Equal(1, await rig.Device.CountDirectAsync());
        Ask(0);
        Assert.NotEqual(0UL, call.Wait(20_000));
        Collect(0);
        await client.SetIrqsAsync(
            InterruptKind.Msix, SetIrqsFlags.DataNone | SetIrqsFlags.Mask, 1, 1, Cancellation);
        Assert.Equal(0, await rig.Device.CountDirectAsync());
        call.Take();
        Ask(1);
        await Eventually.TrueAsync(() => device.Handled == 2, "the request is carried out");
        Assert.Equal(0UL, call.Wait(50));
        await client.SetIrqsAsync(
            InterruptKind.Msix, SetIrqsFlags.DataNone | SetIrqsFlags.Unmask, 1, 1, Cancellation);
        Assert.NotEqual(0UL, call.Wait(20_000));
        Assert.Equal(1, await rig.Device.CountDirectAsync());
        Collect(1);

        // nobody listens, then somebody does again
        await client.BindAsync(InterruptKind.Msix, 0, null, Cancellation);
        Assert.Equal(0, await rig.Device.CountDirectAsync());
        await client.BindAsync(InterruptKind.Msix, 1, [call], Cancellation);
        Assert.Equal(1, await rig.Device.CountDirectAsync());
        call.Take();
        Ask(2);
        Assert.NotEqual(0UL, call.Wait(20_000));
        Collect(2);
        await driver.ResetAsync(Cancellation);

        void Ask(uint token)
        {
            Assert.False(queue.Ring.ArmCalls());
            Submit(queue, token);
        }

        void Collect(uint token)
        {
            Assert.True(queue.Ring.TryCollect(out uint collected, out _));
            Assert.Equal(token, collected);
        }
    }

    [Fact]
    public async Task The_configuration_space_is_read_written_and_changes()
    {
        FakeDevice device = new();
        await using RemoteRig rig = await RemoteRig.StartAsync(
            device, null, new RemoteDeviceOptions { Type = VirtioDeviceId.Socket });
        Assert.Equal(8, rig.Device.Config.SizeBytes);
        int changes = 0;
        rig.Device.ConfigChanged += () => Interlocked.Increment(ref changes);
        device.ChangeCapacity(77);
        await Eventually.TrueAsync(() => Volatile.Read(ref changes) == 1, "the change is told");
        Assert.Equal(77UL, rig.Device.Config.Get(FakeDevice.Capacity));
        await rig.Device.WriteConfigAsync(0, new byte[] { 5 });
        await rig.Device.WriteConfigAsync(7, new byte[] { 5, 5 });
        await rig.Device.WriteConfigAsync(uint.MaxValue, new byte[] { 5 });
        Assert.Equal(0, device.ConfigWrites);
        Assert.Equal(77UL, rig.Device.Config.Get(FakeDevice.Capacity));
    }

    [Fact]
    public async Task What_a_driver_wrote_is_written_again_for_the_next_back_end()
    {
        BlockDeviceOptions cached = new();
        await using RemoteRig rig = await RemoteRig.StartAsync(new BlockDevice(_disk, cached));
        const uint writeback = 32;
        byte[] before = new byte[1];
        rig.Device.Config.Read(writeback, before);
        byte written = (byte)(1 - before[0]);
        await rig.Device.WriteConfigAsync(writeback, new[] { written });
        Assert.Equal(written, Byte(rig, writeback));
        await rig.EndAsync();
        BlockDevice next = new(_disk, cached);
        rig.Serve(next);
        await Eventually.TrueAsync(() => rig.Device is { LostBackends: 1, IsConnected: true }, "the next one is there");
        Assert.Equal(written, Byte(rig, writeback));
        byte[] there = new byte[1];
        next.Config.Read(writeback, there);
        Assert.Equal(written, there[0]);
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(VirtioFeatures.RingPacked)]
    public async Task Requests_outlive_the_back_end(ulong withheld)
    {
        FakeDevice device = new() { Holds = true };
        await using RemoteRig rig = await RemoteRig.StartAsync(
            device, null, new RemoteDeviceOptions { WithheldFeatures = withheld, Type = VirtioDeviceId.Entropy });
        await using ServedFunction served = new(rig.Function);
        await using VfioUserClient client = await VfioUserClient.ConnectAsync(served.Path, null, Cancellation);
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(client, cancellation: Cancellation);
        VirtioPciQueue queue = await StartOneAsync(client, driver);
        for (uint round = 0; round < 3; round++)
        {
            Submit(queue, round);
            FakeDevice holding = device;
            await Eventually.TrueAsync(() => holding.Held == 1, "the request is held");
            await rig.EndAsync();
            await Eventually.TrueAsync(() => !rig.Device.IsConnected, "the loss is seen");
            device = new FakeDevice();
            rig.Serve(device);
            await Eventually.TrueAsync(() => queue.Ring.TryCollect(out uint token, out _) && token == round, "answer");
            device.Holds = true;
        }

        Assert.Equal(3, rig.Device.LostBackends);
        Assert.False((await driver.GetStatusAsync(Cancellation)).HasFlag(VirtioStatus.DeviceNeedsReset));
        device.CompleteHeld();
    }

    /// <summary>Without a record nobody knows what was in flight: the driver has to reset, and then all is
    /// well.</summary>
    [Fact]
    public async Task A_driver_is_asked_for_a_reset_when_requests_are_lost()
    {
        VhostUserBackendOptions plain = new() { WithheldProtocolFeatures = ProtocolFeatures.InflightShmFd };
        FakeDevice device = new ForgetfulDevice { Holds = true };
        await using RemoteRig rig = await RemoteRig.StartAsync(
            device, plain, new RemoteDeviceOptions
            {
                Type = VirtioDeviceId.Entropy, WithheldFeatures = VirtioFeatures.RingPacked,
            });
        await using ServedFunction served = new(rig.Function);
        await using VfioUserClient client = await VfioUserClient.ConnectAsync(served.Path, null, Cancellation);
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(client, cancellation: Cancellation);
        VirtioPciQueue queue = await StartOneAsync(client, driver);
        Submit(queue, 0);
        await Eventually.TrueAsync(() => device.Held == 1, "the request is held");
        await rig.EndAsync();
        Assert.NotEqual(0UL, driver.ConfigChanged.Wait(20_000));
        Assert.True((await driver.GetStatusAsync(Cancellation)).HasFlag(VirtioStatus.DeviceNeedsReset));
        device = new FakeDevice();
        rig.Serve(device, plain);
        await driver.ResetAsync(Cancellation);
        driver.Dispose();
        using VirtioPciDriver again = await VirtioPciDriver.StartAsync(client, cancellation: Cancellation);
        queue = await StartOneAsync(client, again, shares: false);
        Submit(queue, 1);
        await Eventually.TrueAsync(() => queue.Ring.TryCollect(out uint token, out _) && token == 1, "answer");

        // with nothing in flight there is nothing to lose
        await rig.EndAsync();
        await Eventually.TrueAsync(() => !rig.Device.IsConnected, "the loss is seen");
        rig.Serve(new FakeDevice(), plain);
        Submit(queue, 2);
        await Eventually.TrueAsync(() => queue.Ring.TryCollect(out uint token, out _) && token == 2, "answer");
    }

    [Fact]
    public async Task Another_device_is_not_taken_for_the_one_that_was_lost()
    {
        await using RemoteRig rig = await RemoteRig.StartAsync(Disk(1));
        await rig.EndAsync();
        await Eventually.TrueAsync(() => !rig.Device.IsConnected, "the loss is seen");
        using MemoryDisk larger = new(2 * DiskBytes);
        rig.Serve(new BlockDevice(larger));
        await Eventually.TrueAsync(
            () => rig.Log.Warnings.Any(line => line.Contains("config: differs", StringComparison.Ordinal)), "refusal");
        Assert.False(rig.Device.IsConnected);
        await rig.EndAsync();
        rig.Serve(Disk(1));
        await Eventually.TrueAsync(() => rig.Device.IsConnected, "the right one is taken");
    }

    /// <summary>Memory comes and goes while queues run; a client leaves and another one comes.</summary>
    [Theory]
    [InlineData(ProtocolFeatures.None)]
    [InlineData(ProtocolFeatures.ConfigureMemSlots)]
    public async Task Queues_outlive_changes_of_memory(ProtocolFeatures without)
    {
        await using RemoteRig rig = await RemoteRig.StartAsync(
            Disk(2), new VhostUserBackendOptions { WithheldProtocolFeatures = without });
        await using ServedFunction served = new(rig.Function);
        await using VfioUserClient client = await VfioUserClient.ConnectAsync(
            served.Path, new VfioUserClientOptions { ReconnectLimit = TimeSpan.FromSeconds(20) }, Cancellation);
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(client, cancellation: Cancellation);
        List<BlockDriver> drivers = await StartAsync(client, driver, 2);
        using DriverMemory more = new(1 << 16, 0x8000_0000);
        for (int round = 0; round < 3; round++)
        {
            Task writing = Task.Run(() => Verify(drivers[0], 0), Cancellation);
            await client.MapAsync(more.GuestAddress, more.File, 0, more.SizeBytes, Cancellation);
            await client.UnmapAsync(more.GuestAddress, more.SizeBytes, Cancellation);
            await writing;
            await client.UnmapAsync(_memory.GuestAddress, _memory.SizeBytes, Cancellation);
            await client.MapAsync(_memory.GuestAddress, _memory.File, 0, _memory.SizeBytes, Cancellation);
            Verify(drivers[1], 1);
        }

        await served.StopAsync();
        served.Start();
        Task reading = Task.Run(() => Verify(drivers[1], 1), Cancellation);
        Assert.False((await driver.GetStatusOrRetryAsync()).HasFlag(VirtioStatus.DeviceNeedsReset));
        await reading.WaitAsync(Eventually.Limit, Cancellation);
        await driver.ResetAsync(Cancellation);
        Assert.Empty(rig.Log.Warnings);
    }

    [Fact]
    public async Task What_cannot_be_a_device_is_refused()
    {
        await Assert.ThrowsAsync<IOException>(() => RemoteRig.StartAsync(
            Disk(1), new VhostUserBackendOptions { WithheldFeatures = VirtioFeatures.Version1 }));
        IOException unknown = await Assert.ThrowsAsync<IOException>(() => RemoteRig.StartAsync(
            new RngDevice(EntropySource.System)));
        Assert.Contains("type of the device", unknown.Message, StringComparison.Ordinal);
    }

    private BlockDevice Disk(int queues) => new(_disk, new BlockDeviceOptions { QueueCount = queues });

    private static byte Byte(RemoteRig rig, uint offset)
    {
        byte[] value = new byte[1];
        rig.Device.Config.Read(offset, value);
        return value[0];
    }

    private async Task<List<BlockDriver>> StartAsync(
        VfioUserClient client, VirtioPciDriver driver, int queues, bool shares = true)
    {
        if (shares)
        {
            await client.MapAsync(_memory.GuestAddress, _memory.File, 0, _memory.SizeBytes, Cancellation);
        }

        List<BlockDriver> drivers = [];
        for (int queue = 0; queue < queues; queue++)
        {
            VirtioPciQueue link = await driver.StartQueueAsync(queue, 64, _memory, Cancellation);
            Assert.True(link.HasDoorbell);
            _links.Add(link);
            drivers.Add(new BlockDriver(link, 4, 65536));
        }

        await driver.RunAsync(Cancellation);
        return drivers;
    }

    private async Task<VirtioPciQueue> StartOneAsync(VfioUserClient client, VirtioPciDriver driver, bool shares = true)
    {
        if (shares)
        {
            await client.MapAsync(_memory.GuestAddress, _memory.File, 0, _memory.SizeBytes, Cancellation);
        }

        VirtioPciQueue queue = await driver.StartQueueAsync(0, 16, _memory, Cancellation);
        await driver.RunAsync(Cancellation);
        return queue;
    }

    private void Submit(VirtioPciQueue queue, uint token)
    {
        DriverBuffer buffer = _memory.Allocate(8);
        Assert.True(queue.Ring.TryAdd([buffer.Slice(0, 4)], [buffer.Slice(4, 4)], token));
        queue.Submit();
    }

    private static void Verify(BlockDriver block, int area)
    {
        ulong start = (ulong)area * (DiskBytes / 4);
        byte[] read = new byte[65536];
        for (int round = 0; round < 10; round++)
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

/// <summary>Lets its requests go when it stops, as one does that is killed.</summary>
internal sealed class ForgetfulDevice : FakeDevice
{
    protected internal override void OnQueueStopping(int queue)
    {
        while (Held > 0)
        {
            TakeHeld().LetGo();
        }
    }
}

internal static class PatientDriver
{
    /// <summary>The command that finds out that the server was lost fails; the next one does not.</summary>
    public static async Task<VirtioStatus> GetStatusOrRetryAsync(this VirtioPciDriver driver)
    {
        try
        {
            return await driver.GetStatusAsync(TestContext.Current.CancellationToken);
        }
        catch (IOException)
        {
            return await driver.GetStatusAsync(TestContext.Current.CancellationToken);
        }
    }
}
