// A block device on a worker, with a driver's queue in front of it and nothing between: no socket, no session. Chains
// of any shape can be sent; what comes back is the used length and whatever the device wrote.
using System.Diagnostics;
using System.Runtime.InteropServices;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block;

/// <summary>How a rig is built.</summary>
internal sealed record BlockRigOptions
{
    public BlockDeviceOptions Device { get; init; } = new();

    public QueueWorkerOptions Worker { get; init; } = new();

    public int QueueSize { get; init; } = 128;

    public int IndirectEntries { get; init; }

    public ulong MemoryBytes { get; init; } = 16 << 20;

    /// <summary>Ring features; the device's own are accepted besides, all or <see cref="DeviceFeatures"/>.</summary>
    public ulong RingFeatures { get; init; } =
        VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex;

    public ulong? DeviceFeatures { get; init; }

    /// <summary>Bytes of a second memory region, directly behind the first; 0 for none.</summary>
    public ulong SecondRegionBytes { get; init; }

    /// <summary>Whether the disk stays the test's to dispose.</summary>
    public bool KeepsDisk { get; init; }

    /// <summary>Whether the ring counts as started before the first kick.</summary>
    public bool IsStarted { get; init; } = true;
}

/// <summary>The rig.</summary>
internal sealed class BlockRig : IAsyncDisposable
{
    /// <summary>A request that takes longer hangs. Nothing waits this long unless the test fails.</summary>
    private const int DeadlineMs = 20_000;

    private readonly EventFd _kick = new();
    private readonly EventFd _call = new();
    private readonly TaskCompletionSource<VirtqueueFault> _fault =
        new(TaskCreationOptions.RunContinuationsAsynchronously);

    private readonly TaskCompletionSource _failure = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private RunningQueue? _running;
    private uint _lastToken;

    private BlockRig(Disk disk, BlockRigOptions options)
    {
        Disk = disk;
        Options = options;
        Device = new BlockDevice(disk, options.Device);
        Device.AcceptFeatures((options.DeviceFeatures ?? Device.DeviceFeatures) | options.RingFeatures);
        Worker = new QueueWorker("block-rig", options.Worker);
        Memory = new DriverMemory(options.MemoryBytes);
        GuestMemory = Memory.Memory;
        if (options.SecondRegionBytes > 0)
        {
            Second = new DriverMemory(options.SecondRegionBytes, Memory.GuestAddress + Memory.SizeBytes);
            GuestMemory = GuestMemory.Create([.. Memory.Memory.Regions, .. Second.Memory.Regions]);
        }

        Queue = new SplitDriverQueue(0, options.QueueSize, Memory, options.RingFeatures, options.IndirectEntries);
        Header = Memory.Allocate(BlockRequestHeader.Bytes);
        Status = Memory.Allocate(1);
    }

    public Disk Disk { get; }

    public BlockRigOptions Options { get; }

    public BlockDevice Device { get; }

    public QueueWorker Worker { get; }

    public DriverMemory Memory { get; }

    public DriverMemory? Second { get; }

    public GuestMemory GuestMemory { get; }

    public SplitDriverQueue Queue { get; }

    /// <summary>Chains made available so far, as the ring counts them.</summary>
    public ushort Submitted { get; private set; }

    public RunningQueue Running => _running!;

    /// <summary>A header for requests that are sent one at a time.</summary>
    public DriverBuffer Header { get; }

    /// <summary>A status byte for requests that are sent one at a time.</summary>
    public DriverBuffer Status { get; }

    /// <summary>What the driver broke, once it did.</summary>
    public Task<VirtqueueFault> Fault => _fault.Task.WaitAsync(Deadline());

    /// <summary>What the program broke. Checked when the rig is disposed.</summary>
    public Exception? Failure { get; private set; }

    /// <summary>Ends when the program broke.</summary>
    public Task FailureSeen => _failure.Task.WaitAsync(Deadline());

    public static async Task<BlockRig> StartAsync(Disk disk, BlockRigOptions? options = null)
    {
        BlockRig rig = new(disk, options ?? new BlockRigOptions());
        await rig.StartQueueAsync();
        return rig;
    }

    public Task StartQueueAsync() => StartQueueAtAsync(0);

    public async Task StartQueueAtAsync(uint position) =>
        _running = await Device.StartQueue(Setup(position), Links(_kick, _call), Worker).WaitAsync(Deadline());

    public VringSetup Setup(uint position) => new()
    {
        Index = 0,
        Size = Queue.Size,
        Addresses = Queue.Addresses,
        Base = position,
        Features = Device.NegotiatedFeatures,
        Memory = GuestMemory,
    };

    public async Task<uint> StopQueueAsync()
    {
        RunningQueue running = _running!;
        _running = null;
        return await running.StopAsync().WaitAsync(Deadline());
    }

    /// <summary>Makes a chain available, and kicks when the device wants that.</summary>
    public uint Submit(ReadOnlySpan<DriverBuffer> readable, ReadOnlySpan<DriverBuffer> writable)
    {
        uint token = ++_lastToken;
        Add(readable, writable, token);
        Publish();
        return token;
    }

    /// <summary>Adds a chain, which the device sees after <see cref="Publish"/>.</summary>
    public void Add(ReadOnlySpan<DriverBuffer> readable, ReadOnlySpan<DriverBuffer> writable, uint token)
    {
        Assert.True(Queue.TryAdd(readable, writable, token), "no free descriptors");
        Submitted++;
    }

    public void Publish()
    {
        Queue.Publish();
        if (Queue.ShouldKick())
        {
            _kick.Signal();
        }
    }

    /// <summary>Waits for the next used chain.</summary>
    public (uint Token, uint Written) Collect()
    {
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            if (Queue.TryCollect(out uint token, out uint written))
            {
                return (token, written);
            }

            if (!Queue.ArmCalls())
            {
                _call.Wait(DeadlineMs / 20);
            }

            double waitedMs = Stopwatch.GetElapsedTime(start).TotalMilliseconds;
            Assert.True(waitedMs < DeadlineMs, $"no answer; fault {_fault.Task.Status}, failure {Failure}");
        }
    }

    /// <summary>Sends one chain and waits for it.</summary>
    public uint Send(ReadOnlySpan<DriverBuffer> readable, ReadOnlySpan<DriverBuffer> writable)
    {
        uint sent = Submit(readable, writable);
        (uint token, uint written) = Collect();
        Assert.Equal(sent, token);
        return written;
    }

    /// <summary>Writes the header, and 0xFF to the status byte.</summary>
    public void Prepare(BlockRequestType type, ulong sector)
    {
        WriteHeader(Header.Span, type, sector);
        Status.Span[0] = NoStatus;
    }

    public const byte NoStatus = 0xFF;

    public static void WriteHeader(Span<byte> target, BlockRequestType type, ulong sector)
    {
        BlockRequestHeader header = new(type, 0, sector);
        MemoryMarshal.Write(target, in header);
    }

    /// <summary>An ordinary request: header, data, status in descriptors of their own.</summary>
    public (BlockStatus Status, uint Written) Request(
        BlockRequestType type, ulong sector, ReadOnlySpan<DriverBuffer> data, bool isWritten)
    {
        Prepare(type, sector);
        DriverBuffer[] readable = isWritten ? [Header] : [Header, .. data];
        DriverBuffer[] writable = isWritten ? [.. data, Status] : [Status];
        uint written = Send(readable, writable);
        return ((BlockStatus)Status.Span[0], written);
    }

    public BlockStatus Read(ulong sector, params ReadOnlySpan<DriverBuffer> data)
    {
        (BlockStatus status, uint written) = Request(BlockRequestType.In, sector, data, isWritten: true);
        Assert.Equal(Length(data) + 1, written);
        return status;
    }

    public BlockStatus Write(ulong sector, params ReadOnlySpan<DriverBuffer> data)
    {
        (BlockStatus status, uint written) = Request(BlockRequestType.Out, sector, data, isWritten: false);
        Assert.Equal(1u, written);
        return status;
    }

    public BlockStatus Flush() => Request(BlockRequestType.Flush, 0, [], isWritten: false).Status;

    public BlockStatus Range(BlockRequestType type, params ReadOnlySpan<BlockRange> ranges)
    {
        DriverBuffer data = Memory.Allocate((uint)ranges.Length * BlockRange.Bytes);
        MemoryMarshal.AsBytes(ranges).CopyTo(data.Span);
        (BlockStatus status, uint written) = Request(type, 0, [data], isWritten: false);
        Assert.Equal(1u, written);
        return status;
    }

    public DriverBuffer Allocate(int bytes, uint alignment = 4096) => Memory.Allocate((uint)bytes, alignment);

    /// <summary>Runs something on the worker's thread and waits for it.</summary>
    public Task OnWorkerAsync(Action action) => Worker.InvokeAsync(action).WaitAsync(Deadline());

    /// <summary>What the worker's thread has allocated so far. Asking allocates nothing there.</summary>
    public long AllocatedBytes()
    {
        long bytes = 0;
        using ManualResetEventSlim done = new();
        Worker.Post(() =>
        {
            bytes = GC.GetAllocatedBytesForCurrentThread();
            done.Set();
        });
        Assert.True(done.Wait(Deadline()));
        return bytes;
    }

    /// <summary>Waits, but not for ever.</summary>
    public static Task Soon(Task task) => task.WaitAsync(Deadline());

    /// <summary>Waits, but not for ever.</summary>
    public static Task<T> Soon<T>(Task<T> task) => task.WaitAsync(Deadline());

    public static TimeSpan Deadline() => TimeSpan.FromMilliseconds(DeadlineMs);

    public static uint Length(ReadOnlySpan<DriverBuffer> buffers)
    {
        uint length = 0;
        foreach (DriverBuffer buffer in buffers)
        {
            length += buffer.Length;
        }

        return length;
    }

    public async ValueTask DisposeAsync()
    {
        if (_running is not null)
        {
            await StopQueueAsync();
        }

        await Worker.DisposeAsync().AsTask().WaitAsync(Deadline());
        if (!Options.KeepsDisk)
        {
            Disk.Dispose();
        }

        Memory.Dispose();
        Second?.Dispose();
        _kick.Dispose();
        _call.Dispose();
        if (Failure is not null)
        {
            Assert.Fail($"the queue failed: {Failure}");
        }
    }

    /// <summary>Expects that this program failed, and forgets it.</summary>
    public Exception? TakeFailure()
    {
        Exception? failure = Failure;
        Failure = null;
        return failure;
    }

    public QueueLinks Links(EventFd kick, EventFd call) => new()
    {
        Kick = new EventFdNotifier(new EventFd(kick.Descriptor.Duplicate())),
        Call = new EventFdNotifier(new EventFd(call.Descriptor.Duplicate())),
        IsStarted = Options.IsStarted,
        IsEnabled = true,
        Faulted = (_, fault) => _fault.TrySetResult(fault),
        Failed = (_, error) =>
        {
            Failure ??= error;
            _failure.TrySetResult();
        },
    };
}
