// A virtio device as a PCI function: waist 1 adapted to waist 2. Modern only (virtio-v1.3 "4.1 Virtio Over PCI Bus").
//
// BAR 0, 16 KiB:  0x0000 common configuration   0x1000 ISR   0x2000 device configuration   0x3000 doorbells, 4 bytes
//                 for each queue
// BAR 1:          MSI-X table and pending bits; a vector for each queue and one for changes of the configuration.
//                 Not there without MSI-X (VirtioPciOptions.HasMsix)
// BAR 2:          the device's shared memory regions, if it has some (SharedRegionBar)
// BAR 4:          its auxiliary notifications, if it has some (AuxiliaryBar), each with a vector more
//
// A doorbell of its own for each queue (and for nothing else) is what lets a client ring it by an eventfd.
// Who serves the queues is a DeviceHost's business: this process, or another one.
// The capabilities of power management and PCI Express are left out where the regions' ones take their room.
// Not here: the legacy interface, the administration queue; migration of a device that another process serves, or that
// has shared memory regions.
using System.Numerics;
using Microsoft.Extensions.Logging;
using Outboard.Linux.Events;
using Outboard.Pci;
using Outboard.Pci.Bars;
using Outboard.Pci.Capabilities;
using Outboard.Pci.Interrupts;
using Outboard.Pci.Spec;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Pci;

/// <summary>A virtio device as a PCI function. Disposing stops its threads; the device stays its maker's.</summary>
public sealed partial class VirtioPciFunction : PciFunction, IAsyncDisposable
{
    private const int RegistersBar = 0;
    private const int VectorsBar = 1;
    private const uint PartBytes = 0x1000;
    private const uint IsrOffset = 0x1000;
    private const uint DeviceOffset = 0x2000;
    private const uint NotifyOffset = 0x3000;
    private const uint NotifyMultiplier = 4;

    /// <summary>Queues whose doorbells fit into their page; no device has nearly as many.</summary>
    private const int MaxQueues = (int)(PartBytes / NotifyMultiplier);

    private readonly DeviceHost _host;
    private readonly VirtioPciOptions _options;
    private readonly ILogger _log;
    private readonly PciQueue[] _queues;
    private readonly VirtioPciCapability _configAccess;
    private readonly ulong _offeredFeatures;
    private readonly SharedRegionBar? _shared;
    private readonly AuxiliaryBar? _auxiliary;

    private int _status;
    private readonly Lock _pinLock = new();
    private int _isr;
    private volatile bool _usesMsix;

    /// <summary>Adapts a device, which serves this function only.</summary>
    public VirtioPciFunction(VirtioDevice device, VirtioPciOptions? options = null)
        : this(HostOf(device, options ??= new VirtioPciOptions()), options)
    {
    }

    /// <summary>Adapts whatever serves a device, which this function owns from now on.</summary>
    public VirtioPciFunction(DeviceHost host, VirtioPciOptions? options = null)
        : base(Identify(host), isExpress: true)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(host.QueueCount, MaxQueues);
        _host = host;
        _options = options ?? new VirtioPciOptions();
        _log = _options.Logger;
        _queues = [.. Enumerable.Range(0, host.QueueCount)
            .Select(index => new PciQueue(index, host.MaxQueueSize(index)))];
        _offeredFeatures = host.OfferedFeatures & ~_options.WithheldFeatures;
        _shared = host.SharedRegions.Count > 0 ? new SharedRegionBar(host.SharedRegions) : null;
        _auxiliary = host.Auxiliary is { } auxiliary ? new AuxiliaryBar(auxiliary, VectorCount) : null;
        _configAccess = VirtioPciCapability.ConfigAccess();
        AddBars();
        AddCapabilities();
        AddInterruptPin();
        host.AttachSharedRegions(_shared);
        if (host.Auxiliary is not null)
        {
            host.Auxiliary.Notified = OnNotified;
        }

        _migration = host.Device is { SharedRegions.Count: 0 } device ? new VirtioPciMigration(this, device) : null;
        host.ConfigChanged += OnConfigChanged;
        host.ResetNeeded += OnResetNeeded;
    }

    /// <inheritdoc/>
    public override bool KeepsMemoryObjects => _host.PassesOn;

    /// <inheritdoc/>
    protected override bool UsesMemory => Array.Exists(_queues, queue => queue.IsEnabled);

    /// <summary>A vector for the configuration, for each queue and for each auxiliary notification.</summary>
    private int VectorCount => 1 + _queues.Length + (_host.Auxiliary?.NotificationCount ?? 0);

    private VirtioStatus Status => (VirtioStatus)Volatile.Read(ref _status);

    /// <summary>Stops all queues and ends their threads. No client is there any more.</summary>
    public async ValueTask DisposeAsync()
    {
        _host.ConfigChanged -= OnConfigChanged;
        _host.ResetNeeded -= OnResetNeeded;
        await ResetDeviceAsync().ConfigureAwait(false);
        _host.AttachSharedRegions(null);
        if (_host.Auxiliary is { } notifications)
        {
            notifications.Notified = null;
        }

        await _host.DisposeAsync().ConfigureAwait(false);
        _auxiliary?.Dispose();
        _shared?.Dispose();
        foreach (PciQueue queue in _queues)
        {
            queue.Dispose();
        }
    }

    /// <inheritdoc/>
    protected override void ReadBar(int bar, ulong offset, Span<byte> destination)
    {
        destination.Clear();
        switch (bar == RegistersBar ? offset / PartBytes : ulong.MaxValue)
        {
            case ulong.MaxValue when bar == SharedRegionBar.Index:
                _shared?.Read(offset, destination);
                break;
            case ulong.MaxValue when bar == AuxiliaryBar.Index:
                _auxiliary?.Read(offset, destination);
                break;
            case 0:
                ReadCommon((int)offset, destination);
                break;
            case IsrOffset / PartBytes:
                ReadIsr((uint)offset, destination);
                break;
            case DeviceOffset / PartBytes:
                _host.ReadConfig((uint)offset - DeviceOffset, destination);
                break;
        }
    }

    /// <inheritdoc/>
    protected override ValueTask WriteBar(int bar, ulong offset, ReadOnlySpan<byte> source)
    {
        switch (bar == RegistersBar ? offset / PartBytes : ulong.MaxValue)
        {
            case ulong.MaxValue when bar == SharedRegionBar.Index:
                _shared?.Write(offset, source);
                break;
            case ulong.MaxValue when bar == AuxiliaryBar.Index:
                _auxiliary?.Write(offset, source);
                break;
            case 0:
                return WriteCommon((int)offset, source);
            case DeviceOffset / PartBytes:
                return _host.WriteConfigAsync((uint)offset - DeviceOffset, source.ToArray());
            case NotifyOffset / PartBytes:
                Ring((uint)offset - NotifyOffset);
                break;
        }

        return default;
    }

    /// <inheritdoc/>
    protected override async ValueTask OnResetAsync(PciResetKind kind)
    {
        if (kind == PciResetKind.Device)
        {
            // also the way out of a migration that failed
            _migration?.Abandon();
        }

        await ResetDeviceAsync().ConfigureAwait(false);
    }

    /// <inheritdoc/>
    protected override async ValueTask OnInterruptsChangedAsync()
    {
        _usesMsix = Interrupts.IsMsixEnabled;
        foreach (PciQueue queue in _queues)
        {
            if (queue.Running is { } running)
            {
                await running.RouteAsync().ConfigureAwait(false);
            }
        }
    }

    /// <inheritdoc/>
    protected override void OnConfigReading(uint offset, int count)
    {
        if (TryGetAccess(offset, count, out PciBar? bar, out uint at, out int length))
        {
            Span<byte> data = stackalloc byte[sizeof(uint)];
            data.Clear();
            ReadBarAt(bar!, at, data[..length]);
            Config.Set(
                _configAccess.Offset + VirtioPciCapability.DataField, BitConverter.ToUInt32(data), sizeof(uint));
        }
    }

    /// <inheritdoc/>
    protected override ValueTask OnConfigWrittenAsync(uint offset, int count)
    {
        if (!TryGetAccess(offset, count, out PciBar? bar, out uint at, out int length))
        {
            return default;
        }

        byte[] data = new byte[sizeof(uint)];
        Config.Read((uint)_configAccess.Offset + VirtioPciCapability.DataField, data);
        return WriteBarAtAsync(bar!, at, data.AsMemory(0, length));
    }

    private static LocalDevice HostOf(VirtioDevice device, VirtioPciOptions options)
    {
        ArgumentNullException.ThrowIfNull(device);
        return new LocalDevice(device, options);
    }

    private static PciIdentity Identify(DeviceHost device)
    {
        ArgumentNullException.ThrowIfNull(device);
        return new PciIdentity(VirtioPci.VendorId, (ushort)(VirtioPci.FirstDeviceId + (int)device.Id))
        {
            Revision = 1,
            SubsystemVendorId = VirtioPci.VendorId,
            SubsystemId = (ushort)(VirtioPci.FirstDeviceId + (int)device.Id),
            ClassCode = device.Id switch
            {
                VirtioDeviceId.Network => 0x020000,
                VirtioDeviceId.Block or VirtioDeviceId.Scsi => 0x010000,
                VirtioDeviceId.Console => 0x078000,
                VirtioDeviceId.Gpu => 0x038000,
                VirtioDeviceId.Input => 0x098000,
                VirtioDeviceId.Sound => 0x040100,
                _ => 0x00ff00,
            },
        };
    }

    private void AddBars()
    {
        AddBar(new PciBar(RegistersBar, PciBarKind.Memory32, 4 * PartBytes)
        {
            Doorbells = [.. _queues.Select(queue =>
                new PciDoorbell(NotifyOffset + ((uint)queue.Index * NotifyMultiplier), 0, queue.Doorbell))],
        });
        if (_shared is not null)
        {
            AddBar(_shared.Bar);
        }

        if (_auxiliary is not null)
        {
            AddBar(_auxiliary.Bar);
        }

        if (_options.HasMsix)
        {
            int vectors = VectorCount;
            uint pendingOffset = BitOperations.RoundUpToPowerOf2((uint)vectors * 16);
            AddBar(new PciBar(VectorsBar, PciBarKind.Memory32, Math.Max(PartBytes, pendingOffset * 2)));
            AddCapability(new MsixCapability(vectors, VectorsBar, 0, Math.Max(pendingOffset, PartBytes / 2)));
        }
    }

    private void AddCapabilities()
    {
        List<PciCapability> parts =
        [
            new VirtioPciCapability(VirtioPci.CommonConfig, RegistersBar, 0, VirtioPciRegister.Bytes),
            VirtioPciCapability.Multiplied(
                VirtioPci.NotifyConfig, RegistersBar, NotifyOffset,
                (uint)_queues.Length * NotifyMultiplier, NotifyMultiplier),
            new VirtioPciCapability(VirtioPci.IsrConfig, RegistersBar, IsrOffset, 1),
        ];
        if (_host.Config.SizeBytes > 0)
        {
            parts.Add(new VirtioPciCapability(
                VirtioPci.DeviceConfig, RegistersBar, DeviceOffset, (uint)_host.Config.SizeBytes));
        }

        parts.Add(_configAccess);
        parts.AddRange(_shared?.Capabilities ?? []);
        parts.AddRange(_auxiliary?.Capabilities ?? []);
        int room = PciRegister.FirstExtended - PciRegister.FirstCapability - MsixCapability.TotalBytes
            - parts.Sum(part => part.SizeBytes);
        foreach (PciCapability extra in (PciCapability[])[new PowerManagementCapability(), new ExpressCapability()])
        {
            if (room >= extra.SizeBytes)
            {
                AddCapability(extra);
                room -= extra.SizeBytes;
            }
        }

        parts.ForEach(part => AddCapability(part));
    }

    private void Ring(uint offset)
    {
        uint queue = offset / NotifyMultiplier;
        if (queue < (uint)_queues.Length)
        {
            _queues[queue].Doorbell.Signal();
        }
    }

    /// <summary>The access that the window in the configuration space asks for, when its data is touched.</summary>
    private bool TryGetAccess(uint offset, int count, out PciBar? bar, out uint at, out int length)
    {
        uint data = (uint)_configAccess.Offset + VirtioPciCapability.DataField;
        at = Config.Get32(_configAccess.Offset + VirtioPciCapability.OffsetField);
        uint wanted = Config.Get32(_configAccess.Offset + VirtioPciCapability.LengthField);
        int index = Config.Get8(_configAccess.Offset + VirtioPciCapability.BarField);
        length = (int)wanted;
        bar = index < PciBar.Count ? Bars[index] : null;
        return offset < data + sizeof(uint) && offset + (uint)count > data
            && wanted is 1 or 2 or 4 && at % wanted == 0
            && bar is not null && at <= bar.SizeBytes - wanted;
    }

    private void ReadIsr(uint offset, Span<byte> destination)
    {
        if (offset == IsrOffset && !destination.IsEmpty)
        {
            // reading takes the news, and the pin with it
            destination[0] = (byte)Interlocked.Exchange(ref _isr, 0);
            UpdatePin();
        }
    }

    private void OnConfigChanged()
    {
        if (_isHalted)
        {
            _owesConfigChange = true;
        }
        else if (Status.HasFlag(VirtioStatus.DriverOk))
        {
            Interrupt(_configVector, VirtioPci.IsrConfigChange);
        }
    }

    /// <summary>Called on any thread.</summary>
    private void Interrupt(ushort vector, byte isr)
    {
        if (_usesMsix)
        {
            if (vector != VirtioPci.NoVector)
            {
                _ = Interrupts[InterruptKind.Msix].Trigger(vector);
            }
        }
        else
        {
            Interlocked.Or(ref _isr, isr);
            UpdatePin();
        }
    }

    /// <summary>The pin is asserted while there is news in the register. From any thread, after each change.</summary>
    private void UpdatePin()
    {
        lock (_pinLock)
        {
            Interrupts.SetPin(Volatile.Read(ref _isr) != 0);
        }
    }

    /// <summary>An auxiliary notification. Called on any thread.</summary>
    private void OnNotified(int notification) =>
        Interrupt(_auxiliary!.VectorOf(notification), VirtioPci.IsrAuxiliary);

    private void OnFaulted(int queue, VirtqueueFault fault)
    {
        _log.LogWarning(
            "queue {Queue}: the driver broke the ring ({Fault}); it is not served until reset", queue, fault);
        NeedReset();
    }

    private void OnFailed(int queue, Exception error)
    {
        _log.LogCritical(error, "queue {Queue}: this program failed; it is not served until reset", queue);
        NeedReset();
    }

    private void NeedReset()
    {
        Interlocked.Or(ref _status, (int)VirtioStatus.DeviceNeedsReset);
        Interrupt(_configVector, VirtioPci.IsrConfigChange);
    }

    private void OnResetNeeded(string reason)
    {
        _log.LogWarning("the device has to be reset by its driver: {Reason}", reason);
        NeedReset();
    }

    /// <summary>The call of one queue: an interrupt by whatever way the driver has chosen.</summary>
    private sealed class QueueInterrupt(VirtioPciFunction function, PciQueue queue) : InterruptNotifier
    {
        public override Linux.FileDescriptor? Waitable => null;

        public override long Route => UsesVector ? Vectors.Route(queue.Vector) : 0;

        private bool UsesVector => function._usesMsix && queue.Vector != VirtioPci.NoVector;

        private InterruptVectors Vectors => function.Interrupts[InterruptKind.Msix];

        public override EventFd? ShareLine() => UsesVector ? Vectors.ShareLine(queue.Vector) : null;

        public override void Signal() => function.Interrupt(queue.Vector, VirtioPci.IsrQueue);

        public override void Dispose()
        {
        }
    }
}
