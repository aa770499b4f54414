// VhostPciApplianceTests.cs - a stock QEMU machine that has a vhost-pci adapter of ours (vfio-user-pci): inside it our
// program, by VFIO, serves a disk to a front-end outside. The adapter's windows are answered by messages, access by
// access, so that little is read and written here; it is the same program as with the virtio device.
using System.Security.Cryptography;
using Outboard.Devices.Block.Driver;
using Outboard.InteropTests.Lab;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.InteropTests.Appliance;

public sealed class VhostPciApplianceTests
{
    private const int Bytes = 4096;

    [Fact]
    public async Task A_disk_is_served_through_the_adapter_and_its_back_end_may_crash()
    {
        await using ApplianceMachine appliance = await ApplianceMachine.StartAsync(
            new ApplianceOptions { HasIommu = false, Device = ApplianceDevice.VhostPci });
        byte[] data = RandomNumberGenerator.GetBytes(Bytes);
        try
        {
            await UseAsync(appliance, disk =>
            {
                disk.Write(8192, data);
                disk.Flush();
            });
            await appliance.KillBackendAsync();
            await appliance.StartBackendAsync();
            byte[] found = new byte[Bytes];
            await UseAsync(appliance, disk => disk.Read(8192, found));
            Assert.Equal(data, found);
        }
        catch (Exception failure) when (failure is not LabException)
        {
            throw appliance.Explain(failure);
        }

        await appliance.EndAsync();
    }

    private static async Task UseAsync(ApplianceMachine appliance, Action<BlockDriver> use)
    {
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        await using VhostUserFrontend frontend =
            await VhostUserFrontend.ConnectAsync(appliance.TenantSocket(), null, cancellation);
        using DriverMemory memory = new(1 << 20);
        await frontend.ShareMemoryAsync(memory, cancellation);
        using FrontendQueue queue = await frontend.StartQueueAsync(0, 16, memory, cancellation);
        use(new BlockDriver(queue, 2, Bytes));
        await frontend.StopQueueAsync(queue, cancellation);
    }
}
