// More requests than the worker's I/O engine has room for: they wait in line, in every queue, and all come to an end.
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Linux.Events;
using Outboard.Linux.Files;
using Outboard.Tests.Linux;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block;

public sealed class BacklogTests
{
    private const int Bytes = 4096;
    private const int Requests = 100;

    [Theory]
    [InlineData(FileIoEngineKind.IoUring, 1)]
    [InlineData(FileIoEngineKind.IoUring, 2)]
    [InlineData(FileIoEngineKind.Threads, 1)]
    [InlineData(FileIoEngineKind.Threads, 2)]
    public async Task Drains(FileIoEngineKind engine, int depth)
    {
        using TemporaryFile file = TemporaryFile.OnDisk(Requests * Bytes);
        await using BlockRig rig = await StartAsync(file, engine, depth);
        for (int round = 0; round < 5; round++)
        {
            DriverBuffer statuses = SubmitAll(rig, round);
            for (int i = 0; i < Requests; i++)
            {
                rig.Collect();
            }

            Assert.True(statuses.Span.IndexOfAnyExcept((byte)BlockStatus.Ok) < 0);
        }
    }

    [Theory]
    [InlineData(FileIoEngineKind.IoUring, 1)]
    [InlineData(FileIoEngineKind.Threads, 1)]
    [InlineData(FileIoEngineKind.Threads, 2)]
    public async Task A_stop_waits_for_what_was_taken_and_leaves_the_rest(FileIoEngineKind engine, int depth)
    {
        using TemporaryFile file = TemporaryFile.OnDisk(Requests * Bytes);
        await using BlockRig rig = await StartAsync(file, engine, depth);
        for (int round = 0; round < 10; round++)
        {
            DriverBuffer statuses = SubmitAll(rig, round);
            uint taken = await rig.StopQueueAsync();
            int left = (ushort)(rig.Submitted - taken);
            for (int i = 0; i < Requests - left; i++)
            {
                rig.Collect();
            }

            Assert.False(rig.Queue.TryCollect(out _, out _));
            Assert.Equal(left, statuses.Span.Count(BlockRig.NoStatus));
            Assert.Equal(Requests - left, statuses.Span.Count((byte)BlockStatus.Ok));

            // Whoever serves the ring next goes on where it stands.
            await rig.StartQueueAtAsync(taken);
            for (int i = 0; i < left; i++)
            {
                rig.Collect();
            }

            Assert.Equal(Requests, statuses.Span.Count((byte)BlockStatus.Ok));
        }
    }

    /// <summary>Queues of one worker share its engine: none may take every slot that becomes free.</summary>
    [Theory]
    [InlineData(FileIoEngineKind.IoUring)]
    [InlineData(FileIoEngineKind.Threads)]
    public async Task Busy_queues_share_the_engine(FileIoEngineKind engine)
    {
        using TemporaryFile file = TemporaryFile.OnDisk(Requests * Bytes);
        using FileDisk disk = FileDisk.Open(file.Path, direct: true);
        BlockDevice device = new(disk, new BlockDeviceOptions { QueueCount = 2 });
        device.AcceptFeatures(device.DeviceFeatures | VirtioFeatures.Version1);
        QueueWorkerOptions options = new() { FileEngine = engine, FileDepth = 1 };
        await using QueueWorker worker = new("starving", options);
        using DriverMemory memory = new(8 << 20);
        using EventFd call = new();
        using Neighbour first = new(device, memory, 0, call);
        using Neighbour second = new(device, memory, 1, call);
        Neighbour[] queues = [first, second];
        foreach (Neighbour queue in queues)
        {
            await queue.StartAsync(worker);
        }

        try
        {
            ServeBoth(queues, call);
        }
        finally
        {
            await first.StopAsync();
            await second.StopAsync();
        }
    }

    private static void ServeBoth(Neighbour[] queues, EventFd call)
    {
        const int Enough = 50;
        const int TooMany = 1000;
        foreach (Neighbour queue in queues)
        {
            queue.SubmitAll();
        }

        while (queues.Any(queue => queue.Served < Enough))
        {
            // Calls are wanted all the time here: no event index.
            call.Wait(1000);
            foreach (Neighbour queue in queues)
            {
                queue.CollectAndSubmitAgain();
                Assert.True(queue.Served < TooMany, $"served: {queues[0].Served} and {queues[1].Served} requests");
            }
        }
    }

    private static Task<BlockRig> StartAsync(TemporaryFile file, FileIoEngineKind engine, int depth)
    {
        QueueWorkerOptions worker = new() { FileEngine = engine, FileDepth = depth };
        BlockRigOptions options = new() { Worker = worker, QueueSize = 512 };
        return BlockRig.StartAsync(FileDisk.Open(file.Path, direct: true), options);
    }

    private static DriverBuffer SubmitAll(BlockRig rig, int round)
    {
        DriverBuffer headers = rig.Allocate(Requests * BlockRequestHeader.Bytes, 16);
        DriverBuffer statuses = rig.Allocate(Requests, 1);
        DriverBuffer data = rig.Allocate(Bytes);
        statuses.Span.Fill(BlockRig.NoStatus);
        for (uint i = 0; i < Requests; i++)
        {
            DriverBuffer header = headers.Slice(i * BlockRequestHeader.Bytes, BlockRequestHeader.Bytes);
            DriverBuffer status = statuses.Slice(i, 1);
            BlockRequestType type = ((i + round) % 10) switch
            {
                0 => BlockRequestType.Flush,
                < 4 => BlockRequestType.In,
                _ => BlockRequestType.Out,
            };
            BlockRig.WriteHeader(header.Span, type, i * Bytes / 512);
            DriverBuffer[] readable = type == BlockRequestType.Out ? [header, data] : [header];
            rig.Add(readable, type == BlockRequestType.In ? [data, status] : [status], i);
        }

        rig.Publish();
        return statuses;
    }

    /// <summary>One of several queues of a device, with requests that read.</summary>
    private sealed class Neighbour(BlockDevice device, DriverMemory memory, int index, EventFd call) : IDisposable
    {
        internal const int Slots = 32;

        private const ulong Features = VirtioFeatures.Version1;

        private readonly SplitDriverQueue _queue = new(index, 128, memory, Features);
        private readonly DriverBuffer _header = memory.Allocate(BlockRequestHeader.Bytes);
        private readonly DriverBuffer _data = memory.Allocate(Slots * Bytes, 4096);
        private readonly DriverBuffer _status = memory.Allocate(Slots);
        private readonly EventFd _kick = new();
        private RunningQueue? _running;

        internal int Served { get; private set; }

        internal async Task StartAsync(QueueWorker worker)
        {
            BlockRig.WriteHeader(_header.Span, BlockRequestType.In, 0);
            VringSetup setup = new()
            {
                Index = index,
                Size = _queue.Size,
                Addresses = _queue.Addresses,
                Base = 0,
                Features = device.NegotiatedFeatures,
                Memory = memory.Memory,
            };
            QueueLinks links = new()
            {
                Kick = new EventFdNotifier(new EventFd(_kick.Descriptor.Duplicate())),
                Call = new EventFdNotifier(new EventFd(call.Descriptor.Duplicate())),
                IsStarted = true,
                IsEnabled = true,
            };
            _running = await device.StartQueue(setup, links, worker);
        }

        internal void SubmitAll()
        {
            for (uint slot = 0; slot < Slots; slot++)
            {
                Submit(slot);
            }
        }

        internal void CollectAndSubmitAgain()
        {
            while (_queue.TryCollect(out uint slot, out _))
            {
                Served++;
                Submit(slot);
            }
        }

        internal Task StopAsync() => _running!.StopAsync().WaitAsync(BlockRig.Deadline());

        public void Dispose()
        {
            _kick.Dispose();
        }

        private void Submit(uint slot)
        {
            DriverBuffer data = _data.Slice(slot * Bytes, Bytes);
            Assert.True(_queue.TryAdd([_header], [data, _status.Slice(slot, 1)], slot));
            _queue.Publish();
            if (_queue.ShouldKick())
            {
                _kick.Signal();
            }
        }
    }
}
