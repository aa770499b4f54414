// Every kind of traffic between a front-end and a back-end, with the device and its driver between them.
using System.Buffers.Binary;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Block.Driver;
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

[Collection(VhostUserCollection.Name)]
public sealed class ThroughDriverTests
{
    [Theory]
    [InlineData(ulong.MaxValue, false, false)]
    [InlineData(ulong.MaxValue, true, true)]
    [InlineData(ApplianceRig.PlainFeatures, false, true)]
    [InlineData(ApplianceRig.PlainFeatures, true, false)]
    public async Task A_disk_keeps_its_data(ulong features, bool sharesInterrupt, bool isPacked)
    {
        OpenThings before = OpenThings.Count();
        await using (ApplianceRig rig = await ApplianceRig.StartAsync(
            new InProcessOptions { Features = features, SharesInterrupt = sharesInterrupt }))
        {
            using MemoryDisk disk = new(8 << 20);
            rig.StartBackend(new BlockDevice(disk, new BlockDeviceOptions { QueueCount = 2 }));
            byte[] data = new byte[300 << 10];
            Random.Shared.NextBytes(data);
            for (int connection = 0; connection < 3; connection++)
            {
                await using VhostUserFrontend frontend = await rig.ConnectFrontendAsync(
                    new VhostUserFrontendOptions { UsePacked = isPacked });
                Assert.Equal(2, frontend.QueueCount);
                using DriverMemory memory = new(4 << 20);
                await frontend.ShareMemoryAsync(memory);
                using FrontendQueue first = await frontend.StartQueueAsync(0, 64, memory);
                using FrontendQueue second = await frontend.StartQueueAsync(1, 64, memory);
                BlockDriver writer = new(first, 4, 64 << 10);
                BlockDriver reader = new(second, 4, 64 << 10);
                byte[] found = new byte[data.Length];
                if (connection > 0)
                {
                    reader.Read(4096, found);
                    Assert.Equal(data, found);
                }

                Random.Shared.NextBytes(data);
                writer.Write(4096, data);
                writer.Flush();
                reader.Read(4096, found);
                Assert.Equal(data, found);
                await frontend.StopQueueAsync(first);
                await frontend.StopQueueAsync(second);
            }
        }

        await before.AssertNothingLeftAsync();
    }
}
