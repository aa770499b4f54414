// Who carries out what a driver asks of a virtio PCI function: threads of this process (LocalDevice), or another
// process behind a connection. The function keeps the registers; it knows nothing of how queues are served.
//
// All methods are called one at a time, on the transport's control loop. The two events come from any thread.
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Pci;

/// <summary>A virtio device as a PCI function drives it.</summary>
public abstract class DeviceHost : IAsyncDisposable
{
    /// <summary>Raised, on any thread, after the device changed <see cref="Config"/>.</summary>
    public event Action? ConfigChanged;

    /// <summary>Raised, on any thread, when the device cannot go on until it is reset; with the reason.</summary>
    public event Action<string>? ResetNeeded;

    /// <summary>The device type.</summary>
    public abstract VirtioDeviceId Id { get; }

    /// <summary>Number of virtqueues.</summary>
    public abstract int QueueCount { get; }

    /// <summary>The configuration space.</summary>
    public abstract ConfigSpace Config { get; }

    /// <summary>Features that can be had: the device's, its rings', and what PCI adds.</summary>
    public abstract ulong OfferedFeatures { get; }

    /// <summary>
    /// Whether memory and interrupts are passed on to somebody else, so that regions keep what they were mapped from
    /// (<see cref="MemoryRegion.Source"/>).
    /// </summary>
    public virtual bool PassesOn => false;

    /// <summary>The device, when it lives in this process: its state can be moved, its writes logged.</summary>
    internal virtual VirtioDevice? Device => null;

    /// <summary>The device's shared memory regions, which never change.</summary>
    public virtual IReadOnlyList<SharedRegion> SharedRegions => [];

    /// <summary>The device's auxiliary notifications; null when it has none.</summary>
    public virtual IAuxiliaryNotifications? Auxiliary => null;

    /// <summary>Largest size of a virtqueue.</summary>
    public abstract int MaxQueueSize(int queue);

    /// <summary>The driver accepted features, a part of those offered. No queue runs.</summary>
    public abstract ValueTask AcceptFeaturesAsync(ulong features);

    /// <summary>A driver reads the configuration space; bytes beyond the end are zero.</summary>
    public virtual void ReadConfig(uint offset, Span<byte> destination) => Config.Read(offset, destination);

    /// <summary>A driver writes to the configuration space.</summary>
    public abstract ValueTask WriteConfigAsync(uint offset, ReadOnlyMemory<byte> source);

    /// <summary>Says who shows the regions to the driver; null when nobody does any more.</summary>
    public virtual void AttachSharedRegions(SharedRegionHost? regions)
    {
    }

    /// <summary>Puts the device into its initial state. All queues are stopped.</summary>
    public abstract ValueTask ResetAsync();

    /// <summary>Starts a queue, or gets it ready: it is served once <see cref="HostedQueue.EnableAsync"/> is called,
    /// if <see cref="QueueLinks.IsEnabled"/> is not set.</summary>
    /// <exception cref="VringSetupException">The ring cannot be served as set up.</exception>
    public abstract ValueTask<HostedQueue> StartQueueAsync(VringSetup setup, QueueLinks links);

    /// <summary>
    /// Guest memory changed, and the rings of all queues that were not stopped are in it. When the task ends nothing of
    /// the old memory is in use.
    /// </summary>
    public abstract ValueTask ChangeMemoryAsync(GuestMemory memory, bool keepsOldRegions);

    /// <summary>Ends whatever serves queues. All are stopped.</summary>
    public abstract ValueTask DisposeAsync();

    /// <summary>Raises <see cref="ConfigChanged"/>.</summary>
    protected void OnConfigChanged() => ConfigChanged?.Invoke();

    /// <summary>Raises <see cref="ResetNeeded"/>.</summary>
    protected void OnResetNeeded(string reason) => ResetNeeded?.Invoke(reason);
}

/// <summary>A queue that a host serves.</summary>
public abstract class HostedQueue
{
    /// <summary>The driver is ready: serves the ring from now on.</summary>
    public abstract ValueTask EnableAsync();

    /// <summary>Where calls go may have changed, see <see cref="InterruptNotifier"/>.</summary>
    public virtual ValueTask RouteAsync() => default;

    /// <summary>Logs what is written from now on, or ends that.</summary>
    public virtual ValueTask LogAsync(QueueLog? log) => default;

    /// <summary>Stops the queue; everything in flight is completed when the task ends.</summary>
    /// <returns>Where the device stands, see <see cref="VringSetup.Base"/>.</returns>
    public abstract ValueTask<uint> StopAsync();
}

/// <summary>A call that is an interrupt, which another process may raise itself as long as nothing holds it back.
/// </summary>
public abstract class InterruptNotifier : Notifier
{
    /// <summary>
    /// Says which line <see cref="ShareLine"/> gives; 0 when only <see cref="Notifier.Signal"/> will do: masked, not
    /// bound, or an interrupt that needs the function's registers.
    /// </summary>
    public abstract long Route { get; }

    /// <summary>The line itself as an eventfd, the caller's from now on; null when only Signal will do.</summary>
    public abstract EventFd? ShareLine();
}

/// <summary>A device of this process, with its threads.</summary>
internal sealed class LocalDevice : DeviceHost
{
    private readonly VirtioDevice _device;
    private readonly QueueWorkerSet _workers;
    private readonly List<LocalQueue> _running = [];
    private readonly ulong _additionalFeatures;

    internal LocalDevice(VirtioDevice device, VirtioPciOptions options)
    {
        _device = device;
        _additionalFeatures = options.AdditionalFeatures & VirtioFeatures.OfferedOnRequest;
        int workers = options.WorkerCount > 0
            ? options.WorkerCount
            : Math.Clamp(device.QueueCount, 1, Environment.ProcessorCount);
        _workers = new QueueWorkerSet(workers, $"{device.Id}", options.Worker);
        device.ConfigChanged += OnConfigChanged;
        device.NeedsReset += OnDeviceNeedsReset;
    }

    public override VirtioDeviceId Id => _device.Id;

    public override int QueueCount => _device.QueueCount;

    public override ConfigSpace Config => _device.Config;

    public override ulong OfferedFeatures =>
        _device.DeviceFeatures | VirtioFeatures.OfferedByRings | VirtioFeatures.NotificationData
        | VirtioFeatures.RingReset | _additionalFeatures;

    public override IReadOnlyList<SharedRegion> SharedRegions => _device.SharedRegions;

    public override IAuxiliaryNotifications? Auxiliary => _device as IAuxiliaryNotifications;

    internal override VirtioDevice Device => _device;

    public override int MaxQueueSize(int queue) => _device.MaxQueueSize(queue);

    public override ValueTask AcceptFeaturesAsync(ulong features)
    {
        _device.AcceptFeatures(features);
        return default;
    }

    public override void ReadConfig(uint offset, Span<byte> destination) => _device.ReadConfig(offset, destination);

    public override ValueTask WriteConfigAsync(uint offset, ReadOnlyMemory<byte> source)
    {
        _device.WriteConfig(offset, source.Span);
        return default;
    }

    public override void AttachSharedRegions(SharedRegionHost? regions)
    {
        _device.SharedRegionHost = regions;
        if (regions is null)
        {
            _device.ForgetSharedMappings();
        }
    }

    public override ValueTask ResetAsync()
    {
        _device.Reset();
        _device.ForgetSharedMappings();
        return default;
    }

    public override async ValueTask<HostedQueue> StartQueueAsync(VringSetup setup, QueueLinks links)
    {
        try
        {
            // an image that another host may still have: the guest may have come here by a migration
            await _device.TakeOverAsync().ConfigureAwait(false);
        }
        catch (IOException error)
        {
            throw new VringSetupException("device", error.Message);
        }

        LocalQueue queue = new(
            this, await _device.StartQueue(setup, links, _workers.For(setup.Index)).ConfigureAwait(false));
        _running.Add(queue);
        return queue;
    }

    public override async ValueTask ChangeMemoryAsync(GuestMemory memory, bool keepsOldRegions)
    {
        foreach (LocalQueue queue in _running)
        {
            await queue.Running.AdoptAsync(memory, keepsOldRegions).ConfigureAwait(false);
        }
    }

    public override ValueTask DisposeAsync()
    {
        _device.ConfigChanged -= OnConfigChanged;
        _device.NeedsReset -= OnDeviceNeedsReset;
        return _workers.DisposeAsync();
    }

    private void OnDeviceNeedsReset() => OnResetNeeded("its driver broke a rule");

    private sealed class LocalQueue(LocalDevice host, RunningQueue running) : HostedQueue
    {
        internal RunningQueue Running => running;

        public override async ValueTask EnableAsync() => await running.EnableAsync(true).ConfigureAwait(false);

        public override async ValueTask LogAsync(QueueLog? log) => await running.LogAsync(log).ConfigureAwait(false);

        public override async ValueTask<uint> StopAsync()
        {
            host._running.Remove(this);
            return await running.StopAsync().ConfigureAwait(false);
        }
    }
}
