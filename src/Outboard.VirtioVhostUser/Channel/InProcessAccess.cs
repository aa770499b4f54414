// A device in this process, driven without any transport between: for tests, and for a back-end that is to be reached
// by the same way in and out of virtual machines. It does what a transport does: features, queues, configuration, and
// shared memory regions as ranges of addresses.
using Microsoft.Extensions.Logging;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Frontend;
using Outboard.VirtioVhostUser.Device;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.Channel;

/// <summary>How a device in this process is taken hold of.</summary>
public sealed record InProcessOptions
{
    /// <summary>Features to take of those that the device offers; ring features are never among them.</summary>
    public ulong Features { get; init; } = ulong.MaxValue;

    /// <summary>Whether kicks come by the one interrupt, as on a machine with a single vector.</summary>
    public bool SharesInterrupt { get; init; }

    /// <summary>Where the device's mistakes are told.</summary>
    public ILogger? Logger { get; init; }
}

/// <summary>A device in this process.</summary>
public sealed class InProcessAccess : DriverAccess
{
    private const ulong MemoryBytes = 2 << 20;
    private const int MessageQueueSize = 32;
    private const int EmptyQueueSize = 2;

    private readonly VirtioDevice _device;
    private readonly InProcessOptions _options;
    private readonly DriverMemory _memory = new(MemoryBytes);
    private readonly QueueWorkerSet _workers = new(1, "virtio-vhost-user");
    private readonly EventFd _interrupt = new();
    private readonly List<FrontendQueue> _queues = [];
    private readonly List<RunningQueue> _running = [];
    private readonly RegionAddresses _windows;
    private int _hasChanged = 1;

    private InProcessAccess(VirtioDevice device, InProcessOptions options)
    {
        _device = device;
        _options = options;
        _windows = new RegionAddresses(device);
        Features = device.DeviceFeatures & options.Features;
        Rings = (int)device.Config.Get(VirtioVhostUserSpec.MaxVhostQueues);
    }

    /// <inheritdoc/>
    public override string Description => "a virtio-vhost-user device in this process";

    /// <inheritdoc/>
    public override ulong Features { get; }

    /// <inheritdoc/>
    public override int Rings { get; }

    /// <inheritdoc/>
    public override DriverQueueLink Receive => _queues[VirtioVhostUserSpec.ReceiveQueue];

    /// <inheritdoc/>
    public override DriverQueueLink Transmit => _queues[VirtioVhostUserSpec.TransmitQueue];

    /// <inheritdoc/>
    public override IReadOnlyList<EventFd> Interrupts => _options.SharesInterrupt
        ? [_interrupt] : [_interrupt, _queues[0].Call, _queues[1].Call];

    /// <summary>Takes hold of a device and starts its queues.</summary>
    /// <param name="device">The device; nothing else drives it.</param>
    /// <param name="options">How.</param>
    public static async Task<InProcessAccess> StartAsync(VirtioDevice device, InProcessOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(device);
        InProcessAccess access = new(device, options ?? new InProcessOptions());
        try
        {
            await access.StartAsync().ConfigureAwait(false);
            return access;
        }
        catch
        {
            await access.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <inheritdoc/>
    public override EventFd? KickOf(int ring) => _options.SharesInterrupt
        ? null : _queues[VirtioVhostUserSpec.FirstAuxiliaryQueue + VirtioVhostUserSpec.CallOf(ring)].Call;

    /// <inheritdoc/>
    public override void Ring(int notification) =>
        _queues[VirtioVhostUserSpec.FirstAuxiliaryQueue + notification].Kick.Signal();

    /// <inheritdoc/>
    public override SharedMemory? OpenWindow(byte region) =>
        _windows[region] is { } window ? new AddressWindowView(window) : null;

    /// <inheritdoc/>
    public override Task<bool> HasChangedAsync(CancellationToken cancellation) =>
        Task.FromResult(Interlocked.Exchange(ref _hasChanged, 0) != 0);

    /// <inheritdoc/>
    public override Task<uint> ReadStatusAsync(CancellationToken cancellation) => Read(VirtioVhostUserSpec.Status);

    /// <inheritdoc/>
    public override Task WriteStatusAsync(uint status, CancellationToken cancellation) =>
        Write(VirtioVhostUserSpec.Status, status);

    /// <inheritdoc/>
    public override Task<uint> ReadSessionAsync(CancellationToken cancellation) => Read(VirtioVhostUserSpec.Session);

    /// <inheritdoc/>
    public override Task AcknowledgeSessionAsync(uint session, CancellationToken cancellation) =>
        Write(VirtioVhostUserSpec.Acknowledged, session);

    /// <summary>Resets the device in the midst of whatever it does, and starts its queues again.</summary>
    public async Task ResetAsync()
    {
        await StopAsync().ConfigureAwait(false);
        _device.AcceptFeatures(Features);
        foreach (FrontendQueue queue in _queues)
        {
            await StartAsync(queue).ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    public override async ValueTask DisposeAsync()
    {
        await StopAsync().ConfigureAwait(false);
        _device.ConfigChanged -= OnConfigChanged;
        _device.SharedRegionHost = null;
        await _workers.DisposeAsync().ConfigureAwait(false);
        foreach (FrontendQueue queue in _queues)
        {
            queue.Dispose();
        }

        _interrupt.Dispose();
        _windows.Dispose();
        _memory.Dispose();
    }

    private Task<uint> Read(ConfigField field)
    {
        byte[] bytes = new byte[sizeof(uint)];
        _device.ReadConfig((uint)field.Offset, bytes);
        return Task.FromResult(BitConverter.ToUInt32(bytes));
    }

    private Task Write(ConfigField field, uint value)
    {
        _device.WriteConfig((uint)field.Offset, BitConverter.GetBytes(value));
        return Task.CompletedTask;
    }

    private async Task StartAsync()
    {
        _device.AcceptFeatures(Features);
        _device.ConfigChanged += OnConfigChanged;
        _device.SharedRegionHost = _windows;
        for (int i = 0; i < _device.QueueCount; i++)
        {
            int size = i < VirtioVhostUserSpec.FirstAuxiliaryQueue ? MessageQueueSize : EmptyQueueSize;
            _queues.Add(new FrontendQueue(DriverQueue.Create(i, size, _memory, Features), _memory));
            await StartAsync(_queues[i]).ConfigureAwait(false);
        }
    }

    private async Task StartAsync(FrontendQueue queue)
    {
        VringSetup setup = new()
        {
            Index = queue.Ring.Index,
            Size = queue.Ring.Size,
            Addresses = queue.Ring.Addresses,
            Base = queue.Ring.UsedBase,
            Features = Features | VirtioFeatures.Version1,
            Memory = _memory.Memory,
        };
        EventFd call = _options.SharesInterrupt ? _interrupt : queue.Call;
        QueueLinks links = new()
        {
            Kick = new EventFdNotifier(new EventFd(queue.Kick.Descriptor.Duplicate())),
            Call = new EventFdNotifier(new EventFd(call.Descriptor.Duplicate())),
            IsStarted = true,
            IsEnabled = true,
            Faulted = (index, fault) => _options.Logger?.LogWarning("queue {Queue}: {Fault}", index, fault),
            Failed = (index, error) => _options.Logger?.LogCritical(error, "queue {Queue} failed", index),
        };
        _running.Add(await _device.StartQueue(setup, links, _workers.For(0)).ConfigureAwait(false));
    }

    private async Task StopAsync()
    {
        foreach (RunningQueue running in _running)
        {
            await running.StopAsync(QueueStop.Discard).ConfigureAwait(false);
        }

        _running.Clear();
        _device.Reset();
        _device.ForgetSharedMappings();
        _windows.ClearAll();
    }

    private void OnConfigChanged()
    {
        Volatile.Write(ref _hasChanged, 1);
        _interrupt.Signal();
    }
}
