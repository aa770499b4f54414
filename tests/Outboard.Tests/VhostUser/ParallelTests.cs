// Many devices and many connections in one process, at the same time.
using Outboard.VhostUser.Frontend;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VhostUser;

[Collection(VhostUserCollection.Name)]
public sealed class ParallelTests
{
    private const int Devices = 8;
    private const int QueuesOfEach = 2;
    private const int RequestsOfEach = 200;

    [Fact]
    public async Task Devices_serve_their_front_ends_side_by_side()
    {
        await Task.WhenAll(Enumerable.Range(0, Devices).Select(i => Task.Run(() => UseOneAsync((byte)i))));
    }

    [Fact]
    public async Task Front_ends_that_come_and_go_get_their_turn_at_one_device()
    {
        await using BackendRig rig = new(options => options with { WorkerCount = 0 });
        await Task.WhenAll(Enumerable.Range(0, Devices).Select(i => Task.Run(() => DriveAsync(rig, (byte)i))));
        Assert.Equal(Devices * QueuesOfEach * RequestsOfEach, rig.Device.Handled);
        Assert.Empty(rig.Log.Critical);
    }

    [Fact]
    public async Task Devices_share_workers()
    {
        await using QueueWorkerSet workers = new(2, "shared");
        await Task.WhenAll(Enumerable.Range(0, Devices).Select(i => Task.Run(() => UseOneAsync((byte)i, workers))));
    }

    [Fact]
    public async Task A_device_that_breaks_leaves_the_others_of_its_worker_alone()
    {
        await using QueueWorkerSet workers = new(1, "shared");
        await using BackendRig broken = new(options => options with { Workers = workers });
        await using BackendRig sound = new(options => options with { Workers = workers });
        VhostUserFrontend frontend = await broken.ConnectFrontendAsync();
        await using (frontend)
        {
            using DriverMemory memory = new(1 << 18);
            await frontend.ShareMemoryAsync(memory);
            using FrontendQueue queue = await frontend.StartQueueAsync(0, 16, memory);
            DriverBuffer poison = memory.Allocate(32);
            poison.Span[0] = FakeDevice.Poison;
            Assert.True(queue.Ring.TryAdd([poison], [], 0));
            queue.Submit();
            await Eventually.TrueAsync(() => broken.Log.Critical.Any(), "the device broke");
            await DriveAsync(sound, 1);
        }

        await DriveAsync(broken, 2);
        Assert.Empty(sound.Log.Critical);
    }

    private static async Task UseOneAsync(byte number, QueueWorkerSet? workers = null)
    {
        await using BackendRig rig = new(options => options with { WorkerCount = 0, Workers = workers });
        await DriveAsync(rig, number);
        await DriveAsync(rig, number);
        Assert.Equal(2 * QueuesOfEach * RequestsOfEach, rig.Device.Handled);
        Assert.Empty(rig.Log.Critical);
    }

    private static async Task DriveAsync(BackendRig rig, byte number)
    {
        VhostUserFrontend frontend = await rig.ConnectFrontendAsync();
        await using (frontend)
        {
            Assert.Equal(3, frontend.QueueCount);
            using DriverMemory memory = new(1 << 18);
            await frontend.ShareMemoryAsync(memory);
            for (int i = 0; i < QueuesOfEach; i++)
            {
                using FrontendQueue queue = await frontend.StartQueueAsync(i, 16, memory);
                EchoAll(queue, memory, number);
                Assert.Equal((uint)RequestsOfEach, await frontend.StopQueueAsync(queue));
            }
        }
    }

    private static void EchoAll(FrontendQueue queue, DriverMemory memory, byte number)
    {
        DriverBuffer request = memory.Allocate(32);
        DriverBuffer answer = memory.Allocate(32);
        for (int i = 0; i < RequestsOfEach; i++)
        {
            request.Span.Fill((byte)(number + (i % 100)));
            answer.Span.Clear();
            Assert.True(queue.Ring.TryAdd([request], [answer], (uint)i));
            queue.Submit();
            uint token;
            while (!queue.Ring.TryCollect(out token, out _))
            {
                Assert.True(queue.WaitForUsed((int)Eventually.Limit.TotalMilliseconds), "no answer");
            }

            Assert.Equal((uint)i, token);
            Assert.Equal(request.Span, answer.Span);
        }
    }
}
