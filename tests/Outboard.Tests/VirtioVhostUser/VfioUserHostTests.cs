// The device over vfio-user: every kind of traffic through it, with notifications of their own and memory in a file.
using System.Buffers.Binary;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Pci.Interrupts;
using Outboard.Tests.VhostUser;
using Outboard.VfioUser.Client;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Pci.Driver;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

[Collection(VhostUserCollection.Name)]
public sealed class VfioUserHostTests
{
    private const int AuxiliaryBar = 4;
    private const ulong Low = 0x1_0000_0000;
    private const ulong High = 0x2_0000_0000;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    /// <summary>Memory in two parts with a gap before each: drivers of every dialect find both.</summary>
    [Theory]
    [InlineData(ulong.MaxValue, false)]
    [InlineData(ulong.MaxValue, true)]
    [InlineData(0UL, false)]
    [InlineData(0UL, true)]
    public async Task A_disk_keeps_its_data(ulong features, bool isPacked)
    {
        OpenThings before = OpenThings.Count();
        await using (VfioUserRig rig = await VfioUserRig.StartAsync(features))
        {
            using MemoryDisk disk = new(8 << 20);
            await rig.StartBackendAsync(new BlockDevice(disk, new BlockDeviceOptions { QueueCount = 2 }));
            FrontendDisk content = new();
            for (int connection = 0; connection < 3; connection++)
            {
                await using VhostUserFrontend frontend = await rig.ConnectFrontendAsync(
                    new VhostUserFrontendOptions { UsePacked = isPacked });
                Assert.Equal(2, frontend.QueueCount);
                Assert.False(frontend.Has(ProtocolFeatures.LogShmFd));
                DriverMemory high = rig.Memory(32 << 20, 8 << 20, High);
                DriverMemory low = rig.Memory(4 << 20, 8 << 20, Low);
                await frontend.SetMemTableAsync([high, low], Cancellation);
                await content.UseAsync(frontend, low, high);
            }
        }

        await before.AssertNothingLeftAsync();
    }

    [Fact]
    public async Task A_change_of_the_configuration_is_told()
    {
        await using VfioUserRig rig = await VfioUserRig.StartAsync();
        FakeDevice device = new();
        await rig.StartBackendAsync(device);
        await using VhostUserFrontend frontend = await rig.ConnectFrontendAsync();
        TaskCompletionSource told = new();
        frontend.ConfigChanged += () => told.TrySetResult();
        device.ChangeCapacity(0x1234);
        await told.Task.WaitAsync(Eventually.Limit);
        byte[] capacity = await frontend.GetConfigAsync(0, sizeof(ulong));
        Assert.Equal(0x1234UL, BinaryPrimitives.ReadUInt64LittleEndian(capacity));
    }

    /// <summary>The record lies in the file, too: it outlives the driver, and whoever serves the device.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Requests_in_flight_outlive_both_sides(bool restartsDevice)
    {
        await using VfioUserRig rig = await VfioUserRig.StartAsync();
        FakeDevice holding = new() { Holds = true };
        await rig.StartBackendAsync(holding);
        DriverMemory memory = rig.Memory(0, 1 << 20, Low);
        DriverBuffer request = memory.Allocate(16);
        DriverBuffer answer = memory.Allocate(16);
        request.Span.Fill(0x37);
        FrontendQueue queue;
        InflightRegion region;
        await using (VhostUserFrontend first = await rig.ConnectFrontendAsync())
        {
            await first.ShareMemoryAsync(memory);
            using InflightRegion unused = await first.GetInflightFdAsync(1, 16);
            region = await first.GetInflightFdAsync(1, 16);
            await first.SetInflightFdAsync(region);
            queue = await first.StartQueueAsync(0, 16, memory);
            queue.Ring.TryAdd([request], [answer], 0);
            queue.Submit();
            await Eventually.TrueAsync(() => holding.Held == 1, "the request is in flight");
            await rig.StopBackendAsync();
        }

        if (restartsDevice)
        {
            await rig.RestartDeviceAsync();
        }

        using (queue)
        using (region)
        {
            await rig.StartBackendAsync(new FakeDevice());
            await using VhostUserFrontend second = await rig.ConnectFrontendAsync();
            await second.ShareMemoryAsync(memory);
            await second.SetInflightFdAsync(region);
            await second.ResumeQueueAsync(queue, queue.Ring.UsedBase);
            while (!queue.Ring.TryCollect(out _, out _))
            {
                Assert.True(queue.WaitForUsed(20_000), "no call came");
            }

            Assert.Equal(request.Span, answer.Span);
        }
    }

    [Fact]
    public async Task Memory_that_is_not_in_the_file_is_refused()
    {
        await using VfioUserRig rig = await VfioUserRig.StartAsync();
        await rig.StartBackendAsync(new FakeDevice());
        await using (VhostUserFrontend stranger = await rig.ConnectFrontendAsync())
        {
            using DriverMemory memory = new(1 << 20);
            await Assert.ThrowsAsync<ProtocolException>(() => stranger.ShareMemoryAsync(memory));
        }

        Assert.Contains(rig.Log.Warnings, line => line.Contains("memory-backend-file", StringComparison.Ordinal));

        // the last sixteenth is for the record
        await using (VhostUserFrontend greedy = await rig.ConnectFrontendAsync())
        {
            DriverMemory memory = rig.Memory(0, VfioUserRig.WindowBytes, Low);
            await Assert.ThrowsAsync<ProtocolException>(() => greedy.ShareMemoryAsync(memory));
        }

        await using VhostUserFrontend good = await rig.ConnectFrontendAsync();
        await good.ShareMemoryAsync(rig.Memory(0, VfioUserRig.WindowBytes / 16 * 15, Low));
    }

    /// <summary>A driver that computes places cannot be told of two regions at the same one; ours can.</summary>
    [Theory]
    [InlineData(ulong.MaxValue, true)]
    [InlineData(0UL, false)]
    public async Task Regions_that_share_memory(ulong features, bool isServed)
    {
        await using VfioUserRig rig = await VfioUserRig.StartAsync(features);
        await rig.StartBackendAsync(new FakeDevice());
        await using VhostUserFrontend frontend = await rig.ConnectFrontendAsync();
        DriverMemory[] table = [rig.Memory(0, 1 << 20, Low), rig.Memory(4096, 1 << 20, High)];
        Task setting = frontend.SetMemTableAsync(table, Cancellation);
        if (isServed)
        {
            await setting;
        }
        else
        {
            await Assert.ThrowsAsync<ProtocolException>(() => setting);
        }
    }

    [Fact]
    public async Task Vectors_of_notifications_and_doorbells_of_any_width()
    {
        await using VfioUserRig rig = await VfioUserRig.StartAsync();
        await using VfioUserClient client = await rig.ConnectClientAsync();
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(client, cancellation: Cancellation);
        Assert.True(driver.HasAuxiliary);
        Assert.Equal((2 * VfioUserRig.Rings) + 1, driver.AuxiliaryDoorbells);
        int vectors = await client.CountVectorsAsync(InterruptKind.Msix, Cancellation);
        Assert.Equal(1 + driver.QueueCount + VfioUserRig.Rings, vectors);
        await driver.OpenAuxiliaryAsync(Cancellation);
        Assert.Equal(8, driver.AuxiliaryEvents);
        for (int notification = 0; notification < VfioUserRig.Rings; notification++)
        {
            Assert.Equal((ushort)0xffff, await SelectAsync(client, notification));
            await WriteAsync(client, 0x1002, (ushort)(3 + notification));
            Assert.Equal((ushort)(3 + notification), await SelectAsync(client, notification));
        }

        // what is not there has no vector, and takes none
        await SelectAsync(client, VfioUserRig.Rings);
        await WriteAsync(client, 0x1002, (ushort)1);
        Assert.Equal((ushort)0xffff, await SelectAsync(client, VfioUserRig.Rings));
        await SelectAsync(client, 1);
        await WriteAsync(client, 0x1002, (ushort)vectors);
        Assert.Equal((ushort)0xffff, await SelectAsync(client, 1));

        // both fields at once, and half of one
        await WriteAsync(client, 0x1000, 2 | (5U << 16));
        Assert.Equal((ushort)5, await SelectAsync(client, 2));
        await WriteAsync(client, 0x1003, (byte)1);
        Assert.Equal((ushort)5, await SelectAsync(client, 2));
        foreach (ulong offset in (ulong[])[0, 1, 4, 32, 36, 0xffc, 0x1004, 0x1ffc])
        {
            await WriteAsync(client, offset, (byte)0xff);
            await WriteAsync(client, offset, 0xffff_ffffU);
        }

        byte[] all = new byte[0x2000];
        await client.ReadAsync(AuxiliaryBar, 0, all, Cancellation);
        Assert.All(all.Take(0x1000).Concat(all.Skip(0x1004)), value => Assert.Equal(0, value));
        await driver.ResetAsync(Cancellation);
        Assert.Equal((ushort)0xffff, await SelectAsync(client, 0));
        await driver.BindAuxiliaryAsync(0, 3, Cancellation);
        await Assert.ThrowsAsync<ArgumentException>(() => driver.BindAuxiliaryAsync(1, 3, Cancellation));
        await Assert.ThrowsAsync<InvalidDataException>(
            () => driver.BindAuxiliaryAsync(VfioUserRig.Rings, 4, Cancellation));
    }

    [Fact]
    public async Task A_driver_that_breaks_a_rule_has_to_reset()
    {
        await using VfioUserRig rig = await VfioUserRig.StartAsync();
        await using (PciAccess driver = await rig.ConnectDriverAsync())
        {
            await driver.WriteStatusAsync(0x80, Cancellation);
            Assert.NotEqual(0UL, driver.Interrupts[0].Wait(20_000));
            await driver.WriteStatusAsync(VirtioVhostUserSpec.BackendUp, Cancellation);
            Assert.Equal(0U, await driver.ReadStatusAsync(Cancellation));
        }

        await using PciAccess next = await rig.ConnectDriverAsync();
        await next.WriteStatusAsync(VirtioVhostUserSpec.BackendUp, Cancellation);
        Assert.Equal(VirtioVhostUserSpec.BackendUp, await next.ReadStatusAsync(Cancellation));
    }

    /// <summary>A machine has stopped the device, and nobody has reset it.</summary>
    [Fact]
    public async Task A_device_that_a_killed_driver_left_is_taken_over()
    {
        await using VfioUserRig rig = await VfioUserRig.StartAsync();
        await using VfioUserClient client = await rig.ConnectClientAsync();
        using DriverMemory memory = new(2 << 20);
        await client.MapAsync(memory.GuestAddress, memory.File, 0, memory.SizeBytes, Cancellation);
        using (VirtioPciDriver killed = await VirtioPciDriver.StartAsync(client, cancellation: Cancellation))
        {
            await killed.StartQueueAsync(0, 32, memory, Cancellation);
            Assert.Equal(
                VirtioStatus.Acknowledge | VirtioStatus.Driver | VirtioStatus.FeaturesOk,
                await killed.GetStatusAsync(Cancellation));
        }

        await using PciAccess next = await PciAccess.StartAsync(client, memory, cancellation: Cancellation);
        await next.WriteStatusAsync(VirtioVhostUserSpec.BackendUp, Cancellation);
        Assert.Equal(VirtioVhostUserSpec.BackendUp, await next.ReadStatusAsync(Cancellation));
    }

    [Fact]
    public async Task A_device_that_is_lost_ends_the_source()
    {
        await using VfioUserRig rig = await VfioUserRig.StartAsync();
        using VirtioVhostUserSource source = new(await rig.ConnectDriverAsync(), rig.Log);
        Task waiting = source.NextAsync(Timeout.InfiniteTimeSpan, Cancellation);
        await rig.Served.StopAsync();
        await Assert.ThrowsAnyAsync<Exception>(() => waiting.WaitAsync(Eventually.Limit, Cancellation));
        rig.Served.Start();
    }

    private static async Task<ushort> SelectAsync(VfioUserClient client, int notification)
    {
        await WriteAsync(client, 0x1000, (ushort)notification);
        byte[] vector = new byte[sizeof(ushort)];
        await client.ReadAsync(AuxiliaryBar, 0x1002, vector, Cancellation);
        return BinaryPrimitives.ReadUInt16LittleEndian(vector);
    }

    private static Task WriteAsync<T>(VfioUserClient client, ulong offset, T value)
        where T : unmanaged => client.WriteAsync(AuxiliaryBar, offset, WirePeer.Bytes(value), Cancellation);
}
