// ForeignFrontendTests.cs - a front-end that is not ours (qemu-io and qemu-img, by way of libblkio) uses a disk
// through the virtio-vhost-user device and its driver, both in this process. (libblkio needs memory slots, so the
// driver has to have EXPLICIT_OFFSETS.)
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.InteropTests.Lab;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Device;
using Xunit;

namespace Outboard.InteropTests.Appliance;

public sealed class ForeignFrontendTests
{
    private const int DiskBytes = 32 << 20;

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task Qemu_io_finds_what_it_wrote(bool sharesInterrupt)
    {
        using TempFolder folder = new();
        using CancellationTokenSource end =
            CancellationTokenSource.CreateLinkedTokenSource(TestContext.Current.CancellationToken);
        string path = folder.Combine("disk.sock");
        using VirtioVhostUserDevice device = new(new VirtioVhostUserOptions { WindowBytes = 1UL << 30, Rings = 4 });
        using ChannelSource frontends = ChannelSource.Listen(path);
        Task serving = device.ServeAsync(frontends, end.Token);
        InProcessAccess access = await InProcessAccess.StartAsync(
            device, new InProcessOptions { SharesInterrupt = sharesInterrupt });
        using MemoryDisk disk = new(DiskBytes);
        Task backend = ServeAsync(access, new BlockDevice(disk, new BlockDeviceOptions { QueueCount = 2 }), end.Token);

        await QemuIo.RunAsync(path, "write -P 0x5a 0 64k", "write -P 0xa5 1M 3M", "read -P 0x5a 0 64k", "flush");
        await QemuIo.RunAsync(path, "read -P 0x5a 0 64k", "read -P 0xa5 1M 3M", "read -P 0 5M 1M");
        await QemuIo.BenchAsync(path, requests: 500, depth: 8, size: 4096, writes: true);
        await end.CancelAsync();
        await backend;
        await serving;
    }

    private static async Task ServeAsync(InProcessAccess access, BlockDevice device, CancellationToken cancellation)
    {
        using VirtioVhostUserSource source = new(access);
        await VhostUserBackend.ServeAsync(device, source, cancellation: cancellation);
    }
}
