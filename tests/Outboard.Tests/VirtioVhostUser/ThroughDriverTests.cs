// Every kind of traffic between a front-end and a back-end, with the device and its driver between them.
using System.Buffers.Binary;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Device;
using Outboard.VirtioVhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

[Collection(VhostUserCollection.Name)]
public sealed class ThroughDriverTests
{
    private const int PageBytes = 4096;

    [Theory]
    [InlineData(ulong.MaxValue, false, false, false)]
    [InlineData(ulong.MaxValue, true, true, false)]
    [InlineData(ApplianceRig.PlainFeatures, false, true, false)]
    [InlineData(ApplianceRig.PlainFeatures, true, false, false)]
    [InlineData(ulong.MaxValue, false, false, true)]
    [InlineData(ulong.MaxValue, false, true, true)]
    [InlineData(ApplianceRig.PlainFeatures, false, true, true)]
    public Task A_disk_keeps_its_data(ulong features, bool sharesInterrupt, bool isPacked, bool isVhostPci) =>
        KeepDataAsync(
            new InProcessOptions { Features = features, SharesInterrupt = sharesInterrupt }, ApplianceRig.Options,
            isPacked, isVhostPci);

    [Theory]
    [InlineData(ulong.MaxValue, true)]
    [InlineData(ApplianceRig.PlainFeatures, false)]
    public Task A_disk_keeps_its_data_where_sessions_are_numbered(ulong features, bool sharesInterrupt) =>
        KeepDataAsync(
            new InProcessOptions { Features = features, SharesInterrupt = sharesInterrupt },
            ApplianceRig.Options with { NumbersSessions = true }, isPacked: false, isVhostPci: false);

    private static async Task KeepDataAsync(
        InProcessOptions access, VirtioVhostUserOptions options, bool isPacked, bool isVhostPci)
    {
        OpenThings before = OpenThings.Count();
        await using (ApplianceRig rig = await ApplianceRig.StartAsync(access, options, isVhostPci: isVhostPci))
        {
            using MemoryDisk disk = new(8 << 20);
            rig.StartBackend(new BlockDevice(disk, new BlockDeviceOptions { QueueCount = 2 }));
            FrontendDisk content = new();
            for (int connection = 0; connection < 3; connection++)
            {
                await using VhostUserFrontend frontend = await rig.ConnectFrontendAsync(
                    new VhostUserFrontendOptions { UsePacked = isPacked });
                Assert.Equal(2, frontend.QueueCount);
                using DriverMemory memory = new(4 << 20);
                await frontend.ShareMemoryAsync(memory);
                await content.UseAsync(frontend, memory, memory);
            }
        }

        await before.AssertNothingLeftAsync();
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_change_of_the_configuration_is_told(bool isVhostPci)
    {
        await using ApplianceRig rig = await ApplianceRig.StartAsync(isVhostPci: isVhostPci);
        FakeDevice device = new();
        rig.StartBackend(device);
        await using VhostUserFrontend frontend = await rig.ConnectFrontendAsync();
        TaskCompletionSource told = new();
        frontend.ConfigChanged += () => told.TrySetResult();
        device.ChangeCapacity(0x1234);
        await told.Task.WaitAsync(Eventually.Limit);
        byte[] capacity = await frontend.GetConfigAsync(0, sizeof(ulong));
        Assert.Equal(0x1234UL, BinaryPrimitives.ReadUInt64LittleEndian(capacity));
    }

    /// <summary>The log lies in the device's second region: the page of the answer is marked there, the page of the
    /// request is not.</summary>
    [Theory]
    [InlineData(ulong.MaxValue, false)]
    [InlineData(ulong.MaxValue, true)]
    [InlineData(ApplianceRig.PlainFeatures, false)]
    public async Task What_a_device_writes_is_logged(ulong features, bool isVhostPci)
    {
        await using ApplianceRig rig = await ApplianceRig.StartAsync(
            new InProcessOptions { Features = features }, isVhostPci: isVhostPci);
        rig.StartBackend(new FakeDevice());
        await using VhostUserFrontend frontend = await rig.ConnectFrontendAsync();
        using DriverMemory memory = new(1 << 20);
        await frontend.ShareMemoryAsync(memory);
        using FrontendQueue queue = await frontend.StartQueueAsync(0, 16, memory);
        for (int round = 0; round < 2; round++)
        {
            using FrontendLog log = await frontend.StartLoggingAsync([queue], tells: true);
            (DriverBuffer request, DriverBuffer answer) = Echo(queue, memory);
            Assert.True(log.Marked!.Wait(20_000) > 0, "the driver tells that it marked pages");
            IReadOnlyList<ulong> pages = log.Harvest();
            Assert.Contains(answer.GuestAddress / PageBytes, pages);
            Assert.DoesNotContain(request.GuestAddress / PageBytes, pages);
            await frontend.StopLoggingAsync([queue]);
        }
    }

    /// <summary>The back-end and its driver go away with requests in flight; the next ones finish them.</summary>
    [Fact]
    public async Task Requests_in_flight_outlive_the_driver()
    {
        await using ApplianceRig rig = await ApplianceRig.StartAsync();
        FakeDevice holding = new() { Holds = true };
        rig.StartBackend(holding);
        using DriverMemory memory = new(1 << 20);
        DriverBuffer request = memory.Allocate(16);
        DriverBuffer answer = memory.Allocate(16);
        request.Span.Fill(0x37);
        FrontendQueue queue;
        InflightRegion region;
        await using (VhostUserFrontend first = await rig.ConnectFrontendAsync())
        {
            Assert.True(first.Has(ProtocolFeatures.InflightShmFd));
            await first.ShareMemoryAsync(memory);
            region = await first.GetInflightFdAsync(1, 16);
            await first.SetInflightFdAsync(region);
            queue = await first.StartQueueAsync(0, 16, memory);
            queue.Ring.TryAdd([request], [answer], 0);
            queue.Submit();
            await Eventually.TrueAsync(() => holding.Held == 1, "the request is in flight");
            await rig.RestartDriverAsync();
        }

        using (queue)
        using (region)
        {
            rig.StartBackend(new FakeDevice());
            await using VhostUserFrontend second = await rig.ConnectFrontendAsync();
            await second.ShareMemoryAsync(memory);
            await second.SetInflightFdAsync(region);
            await second.ResumeQueueAsync(queue, queue.Ring.UsedBase);
            Collect(queue);
            Assert.Equal(request.Span, answer.Span);
        }
    }

    private static (DriverBuffer Request, DriverBuffer Answer) Echo(FrontendQueue queue, DriverMemory memory)
    {
        DriverBuffer request = memory.Allocate(16, PageBytes);
        DriverBuffer answer = memory.Allocate(16, PageBytes);
        request.Span.Fill(0x31);
        queue.Ring.TryAdd([request], [answer], 0);
        queue.Submit();
        Collect(queue);
        Assert.Equal(request.Span, answer.Span);
        return (request, answer);
    }

    /// <summary>Waits for a used chain. A call may come without one: an interrupt stands for several rings.</summary>
    private static void Collect(FrontendQueue queue)
    {
        while (!queue.Ring.TryCollect(out _, out _))
        {
            Assert.True(queue.WaitForUsed(20_000), "no call came");
        }
    }
}
