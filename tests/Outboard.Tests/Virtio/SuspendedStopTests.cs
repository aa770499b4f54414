// A queue that is stopped without waiting for its requests: file operations are cancelled, those that cannot be are
// waited for, and nothing touches memory afterwards. Other queues of the thread go on.
using Outboard.Linux.Files;
using Outboard.Linux.Sockets;
using Outboard.Tests.Linux;
using Outboard.Tests.Virtio.Rig;
using Outboard.Virtio;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class SuspendedStopTests
{
    [Theory]
    [InlineData(QueueStop.Suspend)]
    [InlineData(QueueStop.Discard)]
    public async Task Operation_that_never_ends_is_cancelled(QueueStop how)
    {
        (UnixSocket silent, UnixSocket end) = UnixSocket.CreatePair();
        using (silent)
        using (end)
        using (BlockFile stream = BlockFile.OfStream(end.DuplicateDescriptor()))
        {
            QueueWorkerOptions options = new() { FileEngine = FileIoEngineKind.IoUring };
            await using QueueWorker worker = new("test", options);
            LoopDevice device = new(context => new FileHandler(context, stream));
            ServedRing ring = await ServedRing.StartAsync(device, worker);
            SumDevice other = new();
            await using ServedRing beside = await ServedRing.StartAsync(other, worker);
            ring.Submit(1);
            ring.Submit(2);
            beside.Submit(5);
            Assert.Equal(5u, beside.Collect());
            await ring.Queue.StopAsync(how).WaitAsync(Limit, TestContext.Current.CancellationToken);
            Assert.False(ring.Driver.TryCollect(out _, out _));
            beside.Submit(6);
            Assert.Equal(6u, beside.Collect());
        }
    }

    [Theory]
    [InlineData(FileIoEngineKind.IoUring)]
    [InlineData(FileIoEngineKind.Threads)]
    public async Task Completions_and_cancellations_may_come_in_any_mixture(FileIoEngineKind kind)
    {
        using TemporaryFile file = TemporaryFile.OnDisk(1 << 20);
        using BlockFile disk = BlockFile.Open(file.Path);
        await using QueueWorker worker = new("test", new QueueWorkerOptions { FileEngine = kind });
        for (int round = 0; round < 50; round++)
        {
            LoopDevice device = new(context => new FileHandler(context, disk));
            ServedRing ring = await ServedRing.StartAsync(device, worker, size: 64);
            for (uint i = 0; i < 32; i++)
            {
                ring.Submit(i);
            }

            await ring.Queue.StopAsync(QueueStop.Discard).WaitAsync(Limit, TestContext.Current.CancellationToken);
            int completed = 0;
            while (ring.Driver.TryCollect(out _, out uint written))
            {
                Assert.Equal(4u, written);
                completed++;
            }

            Assert.InRange(completed, 0, 32);
            Assert.Empty(ring.Failures);
        }
    }

    [Fact]
    public async Task Failed_queue_is_stopped_while_another_one_has_operations_in_flight()
    {
        (UnixSocket silent, UnixSocket end) = UnixSocket.CreatePair();
        using (silent)
        using (end)
        using (BlockFile stream = BlockFile.OfStream(end.DuplicateDescriptor()))
        {
            QueueWorkerOptions options = new() { FileEngine = FileIoEngineKind.IoUring };
            await using QueueWorker worker = new("test", options);
            LoopDevice waiting = new(context => new FileHandler(context, stream));
            ServedRing busy = await ServedRing.StartAsync(waiting, worker);
            busy.Submit(1);
            SumDevice broken = new() { OnRequest = _ => throw new InvalidOperationException("broken") };
            ServedRing failed = await ServedRing.StartAsync(broken, worker);
            failed.Submit(1);
            Assert.IsType<InvalidOperationException>(failed.TakeFailure());
            await failed.StopAsync().WaitAsync(Limit, TestContext.Current.CancellationToken);
            Assert.False(busy.Driver.TryCollect(out _, out _));
            await busy.Queue.StopAsync(QueueStop.Discard).WaitAsync(Limit, TestContext.Current.CancellationToken);
        }
    }

    private static TimeSpan Limit => TimeSpan.FromMilliseconds(ServedRing.PatienceMs);
}
