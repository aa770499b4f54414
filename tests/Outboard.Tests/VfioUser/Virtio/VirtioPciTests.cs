// A virtio device as a PCI function, driven over the wire: capabilities, negotiation, queues of both kinds, interrupts,
// resets, memory that goes away and comes back.
using System.Security.Cryptography;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Pci;
using Outboard.Pci.Interrupts;
using Outboard.Tests.VhostUser;
using Outboard.VfioUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Pci;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VfioUser.Virtio;

public sealed class VirtioPciTests : ServerTest
{
    private const int QueueSize = 16;
    private readonly TestDevice _device = new();
    private readonly VirtioPciFunction _function;

    public VirtioPciTests() => _function = new VirtioPciFunction(_device);

    private protected override PciFunction Function => _function;

    [Fact]
    public async Task Parts_are_where_the_capabilities_say()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        WireDriver driver = new(client);
        await driver.FindPartsAsync();
        Assert.Equal(new byte[] { 1, 2, 3, 4, 5 }, driver.Parts.Keys.Order());
        Assert.Equal((0, 0u, 64u), driver.Parts[VirtioPci.CommonConfig]);
        Assert.Equal((0, 0x3000u, 8u), driver.Parts[VirtioPci.NotifyConfig]);
        Assert.Equal((0, 0x2000u, 8u), driver.Parts[VirtioPci.DeviceConfig]);
        Assert.Equal([0xf4, 0x1a, 0x44, 0x10], await client.ReadRegionAsync(7, 0, 4));
        Assert.Equal(2, await driver.ReadAsync<ushort>(VirtioPciRegister.QueueCount));
        Assert.Equal(
            VirtioFeatures.OfferedByRings | VirtioFeatures.RingReset | VirtioFeatures.NotificationData | 0x20,
            await driver.OfferedAsync());
        WireMessage irqs = await client.CallAsync(
            VfioUserCommand.DeviceGetIrqInfo, WireClient.Bytes(new IrqInfoPayload(16, 0, 2, 0)));
        Assert.Equal(3u, irqs.Read<IrqInfoPayload>().Count);
    }

    [Theory]
    [InlineData(WireDriver.Split, true)]
    [InlineData(WireDriver.Packed | 0x20, true)]
    [InlineData(0UL, false)]
    [InlineData(0x20UL, false)]
    [InlineData(WireDriver.Split | 1, false)]
    [InlineData(WireDriver.Split | VirtioFeatures.ProtocolFeatures, false)]
    public async Task Features_are_agreed_upon_or_not(ulong features, bool isAccepted)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        WireDriver driver = new(client);
        Assert.Equal(isAccepted ? 11 : 3, await driver.NegotiateAsync(features));
        await driver.StartAsync();
        Assert.Equal(isAccepted ? 15 : 3, await driver.ReadAsync<byte>(VirtioPciRegister.DeviceStatus));
        Assert.Equal(isAccepted ? features : 0, _device.NegotiatedFeatures);
    }

    [Theory]
    [InlineData(WireDriver.Split)]
    [InlineData(WireDriver.Packed)]
    public async Task A_queue_runs_and_interrupts_by_its_vector(ulong features)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd used = new();
        using DriverMemory memory = new(1 << 16);
        (WireDriver driver, DriverQueue ring) = await StartAsync(client, memory, features, vector: 2);
        await driver.BindAsync(2, used);
        Assert.Equal(TestDevice.Answer, await WireDriver.AskAsync(ring, memory, () => driver.NotifyAsync(1)));
        Assert.NotEqual(0UL, used.Wait(timeoutMs: 20_000));
        Assert.Equal(0, (await client.ReadRegionAsync(0, 0x1000, 1))[0]);
    }

    [Fact]
    public async Task A_doorbell_is_rung_without_a_message()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using DriverMemory memory = new(1 << 16);
        (_, DriverQueue ring) = await StartAsync(client, memory, WireDriver.Split);
        WireMessage fds = await client.CallAsync(
            VfioUserCommand.DeviceGetRegionIoFds, WireClient.Bytes(new RegionIoFdsPayload(4096, 0, 0, 0)));
        Assert.Equal(2, fds.Descriptors.Length);
        Assert.Equal(0x3004UL, fds.Read<IoEventFdEntry>(16 + 40).Offset);
        using EventFd other = new(fds.Descriptors[0]);
        using EventFd doorbell = new(fds.Descriptors[1]);
        for (int i = 0; i < 3; i++)
        {
            byte[] answer = await WireDriver.AskAsync(ring, memory, () =>
            {
                doorbell.Signal();
                return Task.CompletedTask;
            });
            Assert.Equal(TestDevice.Answer, answer);
        }
    }

    [Fact]
    public async Task Without_vectors_the_pin_is_asserted_until_the_isr_is_read()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd pin = new();
        using DriverMemory memory = new(1 << 16);
        (WireDriver driver, DriverQueue ring) =
            await StartAsync(client, memory, WireDriver.Split, usesMsix: false);
        await client.CallAsync(VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(0x24, 0, 0, 1), pin.Descriptor);
        await WireDriver.AskAsync(ring, memory, () => driver.NotifyAsync(1));
        Assert.Equal(1UL, pin.Wait(timeoutMs: 20_000));
        Assert.Equal(8, await client.ReadRegionAsync<ushort>(7, 6) & 8);
        Assert.Equal([1], await client.ReadRegionAsync(0, 0x1000, 1));
        Assert.Equal([0], await client.ReadRegionAsync(0, 0x1000, 1));
        Assert.Equal(0, await client.ReadRegionAsync<ushort>(7, 6) & 8);
    }

    /// <summary>News that comes while the register is read: it is in the answer, or it asserts the pin.</summary>
    [Fact]
    public async Task The_pin_tells_of_all_news_that_no_read_took()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using DriverMemory memory = new(1 << 16);
        await StartAsync(client, memory, WireDriver.Split, usesMsix: false);
        for (uint round = 0; round < 500; round++)
        {
            Task change = Task.Run(() => _device.Change(round), TestContext.Current.CancellationToken);
            await client.ReadRegionAsync(0, 0x1000, 1);
            await change;
            bool isAsserted = (await client.ReadRegionAsync<ushort>(7, 6) & 8) != 0;
            Assert.Equal(isAsserted, (await client.ReadRegionAsync(0, 0x1000, 1))[0] != 0);
        }
    }

    /// <summary>No capability, no BAR for it, and no vector that a driver could choose.</summary>
    [Fact]
    public async Task A_function_without_msix_has_the_pin_only()
    {
        await using VirtioPciFunction function = new(_device, new VirtioPciOptions { HasMsix = false });
        Assert.Null(function.Interrupts.Msix);
        Assert.Null(function.Bars[1]);
        Assert.Equal(0, function.Interrupts[InterruptKind.Msix].Count);
        Assert.Equal(1, function.Interrupts[InterruptKind.Intx].Count);
        await function.WriteBarAtAsync(function.Bars[0]!, VirtioPciRegister.ConfigVector, new byte[] { 1, 0 });
        byte[] vector = new byte[2];
        function.ReadBarAt(function.Bars[0]!, VirtioPciRegister.ConfigVector, vector);
        Assert.Equal([0xff, 0xff], vector);
    }

    [Fact]
    public async Task The_configuration_is_read_written_and_announced()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd changed = new();
        using DriverMemory memory = new(1 << 16);
        (WireDriver driver, _) = await StartAsync(client, memory, WireDriver.Split);
        await driver.WriteAsync(VirtioPciRegister.ConfigVector, (ushort)0);
        await driver.BindAsync(0, changed);
        byte before = await driver.ReadAsync<byte>(VirtioPciRegister.ConfigGeneration);
        _device.Change(0x11223344);
        Assert.Equal(1UL, changed.Take());
        Assert.NotEqual(before, await driver.ReadAsync<byte>(VirtioPciRegister.ConfigGeneration));
        Assert.Equal(0x11223344u, await client.ReadRegionAsync<uint>(0, 0x2000));
        await client.WriteRegionAsync(0, 0x2000, 0xffffffff_ffffffffUL);
        Assert.Equal(0xffffffff_11223344UL, await client.ReadRegionAsync<ulong>(0, 0x2000));
        Assert.Equal(0UL, await client.ReadRegionAsync<ulong>(0, 0x2008));
    }

    [Fact]
    public async Task Vectors_that_are_not_there_are_none()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        WireDriver driver = new(client);
        foreach ((ushort written, ushort read) in ((ushort, ushort)[])[(2, 2), (3, 0xffff), (0xffff, 0xffff), (0, 0)])
        {
            await driver.WriteAsync(VirtioPciRegister.QueueVector, written);
            await driver.WriteAsync(VirtioPciRegister.ConfigVector, written);
            Assert.Equal(read, await driver.ReadAsync<ushort>(VirtioPciRegister.QueueVector));
            Assert.Equal(read, await driver.ReadAsync<ushort>(VirtioPciRegister.ConfigVector));
        }
    }

    [Theory]
    [InlineData(WireDriver.Split)]
    [InlineData(WireDriver.Packed)]
    public async Task A_queue_is_reset_alone_and_set_up_again(ulong features)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using DriverMemory memory = new(1 << 16);
        (WireDriver driver, DriverQueue ring) = await StartAsync(client, memory, features);
        await WireDriver.AskAsync(ring, memory, () => driver.NotifyAsync(1));
        await driver.WriteAsync(VirtioPciRegister.QueueReset, (ushort)1);
        Assert.Equal(0, await driver.ReadAsync<ushort>(VirtioPciRegister.QueueReset));
        Assert.Equal(0, await driver.ReadAsync<ushort>(VirtioPciRegister.QueueEnable));
        DriverQueue next = DriverQueue.Create(1, 8, memory, features);
        await driver.EnableAsync(next, 1);
        Assert.Equal(TestDevice.Answer, await WireDriver.AskAsync(next, memory, () => driver.NotifyAsync(1)));
    }

    [Fact]
    public async Task Status_zero_resets_everything()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using DriverMemory memory = new(1 << 16);
        (WireDriver driver, DriverQueue ring) = await StartAsync(client, memory, WireDriver.Split);
        await WireDriver.AskAsync(ring, memory, () => driver.NotifyAsync(1));
        await driver.SetStatusAsync(0);
        Assert.Equal(0, await driver.ReadAsync<byte>(VirtioPciRegister.DeviceStatus));
        await driver.WriteAsync(VirtioPciRegister.QueueSelect, (ushort)1);
        Assert.Equal(0, await driver.ReadAsync<ushort>(VirtioPciRegister.QueueEnable));
        Assert.Equal(64, await driver.ReadAsync<ushort>(VirtioPciRegister.QueueSize));
        Assert.Equal(0UL, await driver.ReadAsync<ulong>(VirtioPciRegister.QueueDescriptors));
        Assert.Equal(0UL, _device.NegotiatedFeatures);
        (driver, ring) = await StartAsync(client, memory, WireDriver.Packed, shares: false);
        Assert.Equal(TestDevice.Answer, await WireDriver.AskAsync(ring, memory, () => driver.NotifyAsync(1)));
    }

    /// <summary>A machine moves its memory about: requests wait, and the queue goes on where it was.</summary>
    [Theory]
    [InlineData(WireDriver.Split)]
    [InlineData(WireDriver.Packed)]
    public async Task A_queue_outlives_its_memory(ulong features)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using DriverMemory memory = new(1 << 16);
        (WireDriver driver, DriverQueue ring) = await StartAsync(client, memory, features);
        for (int i = 0; i < QueueSize + 3; i++)
        {
            await driver.UnshareAsync(memory);
            await driver.ShareAsync(memory);
            Assert.Equal(TestDevice.Answer, await WireDriver.AskAsync(ring, memory, () => driver.NotifyAsync(1)));
        }

        await client.MapAsync(0x8000_0000, 0x1000, null);
        Assert.Equal(TestDevice.Answer, await WireDriver.AskAsync(ring, memory, () => driver.NotifyAsync(1)));
    }

    [Fact]
    public async Task A_client_that_comes_back_finds_the_device_as_it_was()
    {
        using DriverMemory memory = new(1 << 16);
        DriverQueue ring;
        using (WireClient client = await ConnectNegotiatedAsync())
        {
            (WireDriver first, ring) = await StartAsync(client, memory, WireDriver.Split);
            await WireDriver.AskAsync(ring, memory, () => first.NotifyAsync(1));
        }

        using WireClient next = await ConnectNegotiatedAsync();
        WireDriver driver = new(next);
        await driver.FindPartsAsync();
        Assert.Equal(15, await driver.ReadAsync<byte>(VirtioPciRegister.DeviceStatus));
        await driver.ShareAsync(memory);
        Assert.Equal(TestDevice.Answer, await WireDriver.AskAsync(ring, memory, () => driver.NotifyAsync(1)));
    }

    [Fact]
    public async Task A_broken_ring_asks_for_a_reset_and_gets_well_by_it()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd changed = new();
        using DriverMemory memory = new(1 << 16);
        (WireDriver driver, DriverQueue ring) = await StartAsync(client, memory, WireDriver.Split);
        await driver.WriteAsync(VirtioPciRegister.ConfigVector, (ushort)0);
        await driver.BindAsync(0, changed);
        Assert.True(memory.Memory.TryGetWindow(ring.Addresses.Available, 4, out MemoryWindow window));
        window.Write(2, (ushort)1000);
        await driver.NotifyAsync(1);
        Assert.NotEqual(0UL, changed.Wait(timeoutMs: 20_000));
        Assert.Equal(0x4f, await driver.ReadAsync<byte>(VirtioPciRegister.DeviceStatus));
        (driver, ring) = await StartAsync(client, memory, WireDriver.Split, shares: false);
        Assert.Equal(TestDevice.Answer, await WireDriver.AskAsync(ring, memory, () => driver.NotifyAsync(1)));
    }

    /// <summary>A size that no split ring has, or rings that are nowhere: the driver's mistake, and no harm.</summary>
    [Fact]
    public async Task Queues_that_cannot_be_started()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using DriverMemory memory = new(1 << 16);
        WireDriver driver = new(client);
        await driver.ShareAsync(memory);
        await driver.NegotiateAsync(WireDriver.Split);
        await driver.WriteAsync(VirtioPciRegister.QueueSelect, (ushort)1);
        await driver.WriteAsync(VirtioPciRegister.QueueSize, (ushort)12);
        foreach (int field in (int[])[
            VirtioPciRegister.QueueDescriptors, VirtioPciRegister.QueueDriver, VirtioPciRegister.QueueDevice])
        {
            await driver.WriteAsync(field, memory.GuestAddress);
        }

        await driver.WriteAsync(VirtioPciRegister.QueueEnable, (ushort)1);
        Assert.Equal(0x4b, await driver.ReadAsync<byte>(VirtioPciRegister.DeviceStatus));
        await driver.NegotiateAsync(WireDriver.Split);
        await driver.WriteAsync(VirtioPciRegister.QueueSelect, (ushort)1);
        await driver.WriteAsync(VirtioPciRegister.QueueDescriptors, 0x1234_5678_0000UL);
        await driver.WriteAsync(VirtioPciRegister.QueueEnable, (ushort)1);
        await driver.StartAsync();
        Assert.Equal(15, await driver.ReadAsync<byte>(VirtioPciRegister.DeviceStatus));
    }

    [Fact]
    public async Task The_window_in_the_configuration_space_reaches_the_bars()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        WireDriver driver = new(client);
        await driver.FindPartsAsync();
        ulong at = driver.ConfigAccess;
        await client.WriteRegionAsync(7, at + 4, (byte)0);
        await client.WriteRegionAsync(7, at + 8, (uint)VirtioPciRegister.QueueCount);
        await client.WriteRegionAsync(7, at + 12, 2u);
        Assert.Equal(2, await client.ReadRegionAsync<ushort>(7, at + 16));
        await client.WriteRegionAsync(7, at + 8, (uint)VirtioPciRegister.DeviceStatus);
        await client.WriteRegionAsync(7, at + 12, 1u);
        await client.WriteRegionAsync(7, at + 16, (byte)3);
        Assert.Equal(3, await driver.ReadAsync<byte>(VirtioPciRegister.DeviceStatus));
        foreach ((byte bar, uint offset, uint length) in ((byte, uint, uint)[])
            [(9, 0, 4), (0, 0xffffffff, 4), (0, 0x4000, 4), (0, 1, 4), (0, 0, 3), (0, 0, 0xffffffff), (3, 0, 1)])
        {
            await client.WriteRegionAsync(7, at + 4, bar);
            await client.WriteRegionAsync(7, at + 8, offset);
            await client.WriteRegionAsync(7, at + 12, length);
            await client.WriteRegionAsync(7, at + 16, 0u);
            await client.ReadRegionAsync(7, at + 16, 4);
        }

        Assert.Equal(3, await driver.ReadAsync<byte>(VirtioPciRegister.DeviceStatus));
    }

    /// <summary>Accesses of any width anywhere, with a queue that runs: the driver may be anybody.</summary>
    [Fact]
    public async Task Random_accesses_break_nothing()
    {
        const int seed = 20261121;
        Random random = new(seed);
        using WireClient client = await ConnectNegotiatedAsync();
        using DriverMemory memory = new(1 << 16);
        (WireDriver driver, _) = await StartAsync(client, memory, WireDriver.Split);
        for (int i = 0; i < 3000; i++)
        {
            uint region = (uint)random.Next(0, 2);
            ulong offset = (ulong)random.Next(0, random.Next(2) == 0 ? 64 : 0x800);
            offset += region == 0 && random.Next(3) == 0 ? (ulong)random.Next(4) << 12 : 0;
            int width = random.Next(1, 17);
            if (random.Next(2) == 0)
            {
                byte[] data = random.Next(2) == 0 ? new byte[width] : RandomNumberGenerator.GetBytes(width);
                await client.WriteRegionAsync(region, offset, data);
            }
            else
            {
                await client.ReadRegionAsync(region, offset, (uint)width);
            }
        }

        DriverQueue ring;
        (driver, ring) = await StartAsync(client, memory, WireDriver.Split, shares: false);
        Assert.Equal(TestDevice.Answer, await WireDriver.AskAsync(ring, memory, () => driver.NotifyAsync(1)));
    }

    private protected override ValueTask EndFunctionAsync() => _function.DisposeAsync();

    private static async Task<(WireDriver Driver, DriverQueue Ring)> StartAsync(
        WireClient client, DriverMemory memory, ulong features, bool usesMsix = true, bool shares = true,
        ushort vector = 1)
    {
        WireDriver driver = new(client);
        await driver.FindPartsAsync();
        if (shares)
        {
            await driver.ShareAsync(memory);
        }

        if (usesMsix)
        {
            await driver.EnableMsixAsync();
        }

        Assert.Equal(11, await driver.NegotiateAsync(features));
        DriverQueue ring = DriverQueue.Create(1, QueueSize, memory, features);
        await driver.EnableAsync(ring, usesMsix ? vector : VirtioPci.NoVector);
        await driver.StartAsync();
        return (driver, ring);
    }

    private sealed class TestDevice() : VirtioDevice(
        VirtioDeviceId.Entropy, [32, 64], new ConfigSpace(8, new ConfigField(4, 4, IsWritable: true)))
    {
        public static readonly byte[] Answer = [.. Enumerable.Repeat((byte)0x5a, 16)];

        public override ulong DeviceFeatures => 0x20;

        public void Change(uint value)
        {
            Config.Set(new ConfigField(0, 4), value);
            NotifyConfigChanged();
        }

        protected internal override uint HandleRequest(int queue, scoped in DescriptorChain chain) =>
            (uint)chain.Writable.CopyFrom(0, Answer);
    }
}
