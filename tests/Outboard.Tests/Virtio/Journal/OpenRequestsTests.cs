// Requests that a journaled queue keeps open: many at a time where the ring records them, finished in any order, by a
// worker and by a stop. Kills are in JournalCrashTests.
using Outboard.Devices.Register;
using Outboard.JournalKills;
using Outboard.Memory;
using Outboard.Tests.VhostUser;
using Outboard.Tests.Virtio.Rig;
using Outboard.Virtio;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Virtio.Journal;

public sealed class OpenRequestsTests
{
    [Theory]
    [InlineData(true, 7)]
    [InlineData(false, 1)]
    public void Without_a_record_one_is_open_at_a_time(bool isTracked, int expected)
    {
        KillShape shape = new(false, isTracked, IsRegister: false, 16, IsDeferred: true);
        using DriverMemory memory = new(1 << 16);
        ModelDriver driver = new(shape, memory, seed: 1);
        uint bytes = InflightSpec.QueueBytes(false, 16);
        Assert.True(memory.Memory.TryGetWindow(memory.Allocate(bytes).GuestAddress, bytes, out MemoryWindow region));
        using DeviceJournal journal = DeviceJournal.InMemory(CounterDevice.Layout);
        using Virtqueue queue = Virtqueue.Create(new VringSetup
        {
            Index = 0,
            Size = 16,
            Addresses = driver.Ring.Addresses,
            Base = driver.Ring.InitialBase,
            Features = shape.Features,
            Memory = memory.Memory,
            Inflight = isTracked ? region : null,
        });
        NumberQueue handler = new(queue, journal.Lane(0), CounterDevice.Add, new Random(1));
        driver.Add(7);
        Assert.Equal(expected, handler.Drain(16));
        Assert.Equal(expected, handler.Open);
        Assert.Equal(isTracked, handler.WantsChains);
        Assert.Equal(0UL, journal.Lane(0).Read(0));
        for (int turn = 0; turn < 100 && driver.InFlight > 0; turn++)
        {
            handler.FinishSome();
            queue.Publish();
            _ = driver.Collect();
            handler.Drain(16);
        }

        Assert.Equal(0, driver.InFlight);
        Assert.Equal(driver.Value, journal.Lane(0).Read(0));
        handler.Dispose();
    }

    [Fact]
    public async Task A_worker_finishes_them_and_so_does_a_stop()
    {
        KillShape shape = new(false, false, IsRegister: false, 16, IsDeferred: true);
        using DeviceJournal journal = DeviceJournal.InMemory(CounterDevice.Layout);
        CounterDevice device = new(journal) { LongestDelay = TimeSpan.FromMilliseconds(3) };
        await using QueueWorker worker = new("test");
        await using ServedRing ring =
            await ServedRing.StartAsync(device, worker, size: 16, features: shape.Features);
        ModelDriver driver = new(shape, ring.Memory, seed: 2, ring.Driver);
        await Eventually.TrueAsync(
            () =>
            {
                driver.Add(8);
                ring.Kick();
                _ = driver.Collect();
                return driver.Completed >= 40;
            },
            "answers");
        driver.Add(8);
        ring.Kick();
        await ring.StopAsync();
        _ = driver.Collect();
        Assert.Equal(driver.InFlight == 0 ? driver.Value : device.Value, device.Value);
        Assert.Empty(ring.Failures);
    }
}
