// A controller that is driven without a transport, whose accesses to guest memory end when the test says so: also after
// they were called back, as a reply does that comes in the last moment.
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme;
using Outboard.Devices.Nvme.Driver;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Pci;
using Outboard.Pci.Bars;
using Outboard.Pci.Dma;
using Outboard.Pci.Driver;
using Outboard.Pci.Interrupts;
using Outboard.Tests.VhostUser;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

internal sealed class LocalNvme : IAsyncDisposable
{
    private readonly LocalHandle _handle;

    private LocalNvme(Disk disk)
    {
        Dma = new HeldDma(Memory);
        Controller = new NvmeController(
            [new NvmeNamespace(disk)],
            new NvmeOptions { QueuePairs = 2, QueueSize = 64, WorkerCount = 1, Logger = Log });
        Controller.Attach(Dma);
        _handle = new LocalHandle(Controller);
    }

    public NvmeController Controller { get; }

    public DriverMemory Memory { get; } = new(4 << 20);

    public HeldDma Dma { get; }

    public LogRecorder Log { get; } = new();

    public NvmeDriver Driver { get; private set; } = null!;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public static async Task<LocalNvme> StartAsync(Disk disk)
    {
        LocalNvme rig = new(disk);
        await rig.RestartAsync();
        return rig;
    }

    public async Task RestartAsync()
    {
        Driver?.Dispose();
        Driver = await NvmeDriver.StartAsync(_handle, Memory, shadowDoorbells: false, Cancellation);
    }

    public Task<NvmeDriverQueue> CreateQueueAsync() => Driver.CreateQueueAsync(1, 16, false, Cancellation);

    public async ValueTask DisposeAsync()
    {
        Dma.Release();
        Driver?.Dispose();
        await Controller.DisposeAsync();
        Memory.Dispose();
    }

    private sealed class LocalHandle(PciFunction function) : PciHandle
    {
        private readonly Lock _lock = new();

        public override Task ReadAsync(
            int region, ulong offset, Memory<byte> destination, CancellationToken cancellation)
        {
            lock (_lock)
            {
                if (region == Config)
                {
                    function.ReadConfig((uint)offset, destination.Span);
                }
                else
                {
                    function.ReadBarAt(function.Bars[region]!, offset, destination.Span);
                }
            }

            return Task.CompletedTask;
        }

        public override Task WriteAsync(
            int region, ulong offset, ReadOnlyMemory<byte> source, CancellationToken cancellation)
        {
            lock (_lock)
            {
                return region == Config
                    ? function.WriteConfigAsync((uint)offset, source).AsTask()
                    : function.WriteBarAtAsync(function.Bars[region]!, offset, source).AsTask();
            }
        }

        public override void Post(int region, ulong offset, ReadOnlySpan<byte> source) =>
            WriteAsync(region, offset, source.ToArray(), Cancellation).GetAwaiter().GetResult();

        public override Task BindAsync(
            InterruptKind kind, int start, IReadOnlyList<EventFd>? events, CancellationToken cancellation) =>
            Task.CompletedTask;

        public override Task<int> CountVectorsAsync(InterruptKind kind, CancellationToken cancellation) =>
            Task.FromResult(0);

        public override Task MapAsync(
            ulong guestAddress, FileSharedMemory memory, ulong offset, ulong sizeBytes,
            CancellationToken cancellation) => Task.CompletedTask;

        public override Task UnmapAsync(ulong guestAddress, ulong sizeBytes, CancellationToken cancellation) =>
            Task.CompletedTask;

        public override Task<IReadOnlyList<PciDoorbell>> OpenDoorbellsAsync(
            int bar, CancellationToken cancellation) => Task.FromResult<IReadOnlyList<PciDoorbell>>([]);

        public override Task ResetAsync(CancellationToken cancellation) =>
            function.ResetAsync(PciResetKind.FunctionLevel).AsTask();
    }
}

/// <summary>Guest memory of which some can be held up.</summary>
internal sealed class HeldDma(DriverMemory memory) : DmaSpace
{
    private TaskCompletionSource _release = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private int _held;

    /// <summary>Whether the memory is mapped; the controller is told by its own call.</summary>
    public bool IsMapped { get; set; }

    /// <summary>The address at which accesses are held up.</summary>
    public ulong? HoldsAt { get; set; }

    /// <summary>Accesses that were held up so far.</summary>
    public int Held => Volatile.Read(ref _held);

    public override GuestMemory Memory => IsMapped ? memory.Memory : GuestMemory.Empty;

    public override int WindowCount => 1;

    /// <summary>Lets all go on, and holds nothing up any more.</summary>
    public void Release()
    {
        HoldsAt = null;
        _release.SetResult();
        _release = new(TaskCreationOptions.RunContinuationsAsynchronously);
    }

    public override async ValueTask ReadAsync(
        ulong address, Memory<byte> destination, DmaRoute route, CancellationToken cancellation)
    {
        await WaitAsync(address, cancellation);
        memory.Memory.TryGetWindow(address, (ulong)destination.Length, out MemoryWindow window);
        window.Span.CopyTo(destination.Span);
    }

    public override async ValueTask WriteAsync(
        ulong address, ReadOnlyMemory<byte> source, DmaRoute route, CancellationToken cancellation)
    {
        await WaitAsync(address, cancellation);
        memory.Memory.TryGetWindow(address, (ulong)source.Length, out MemoryWindow window);
        source.Span.CopyTo(window.Span);
    }

    private Task WaitAsync(ulong address, CancellationToken cancellation)
    {
        cancellation.ThrowIfCancellationRequested();
        if (HoldsAt != address)
        {
            return Task.CompletedTask;
        }

        Task release = _release.Task;
        Interlocked.Increment(ref _held);
        return release;
    }
}
