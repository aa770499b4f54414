// The vhost-pci adapter: a PCI function by which a driver inside one virtual machine is the vhost-user back-end of
// another one. It has the engine of virtio-vhost-user behind other registers: here is what hardware has of its own, and
// messages, windows, doorbells, kicks and sessions are VirtioVhostUserDevice's, also their races.
//
//   doorbell 0 or 1 written -> eventfd -> the engine's queue       its call -> vector 1 or 2
//   another one written     -> eventfd -> the engine's doorbell    a kick of ring i -> vector 3 + i
//   the engine maps into a region -> window -> BAR 2 or 4          (answered here, or used by a driver in this process)
//
// Of the engine's queues only those of messages run: it has its notifications by themselves, too. Features that need
// what the adapter has not (a third window) are withheld.
//
// A driver that takes its memory away while a queue of messages lies in it needs a reset; a client that goes away is a
// reset. Nothing is an error to a guest that writes where nothing is.
// Not here: INTx and MSI (one vector for each ring needs MSI-X), migration.
using System.Numerics;
using Microsoft.Extensions.Logging;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Pci;
using Outboard.Pci.Bars;
using Outboard.Pci.Capabilities;
using Outboard.Pci.Interrupts;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;
using Outboard.VirtioVhostUser.Device;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.VhostPci;

/// <summary>A vhost-pci adapter. Disposing stops its queues; the engine stays its maker's.</summary>
public sealed class VhostPciFunction : PciFunction, IAsyncDisposable
{
    private readonly VirtioVhostUserDevice _engine;
    private readonly ILogger _log;
    private readonly RegionAddresses _windows;
    private readonly ConfigSpace _registers;
    private readonly QueueWorkerSet _workers = new(1, "vhost-pci");
    private readonly EventWatcher _watcher = new("vhost-pci-doorbells");
    private readonly EventFd[] _doorbells;
    private readonly RunningQueue?[] _running = new RunningQueue?[VhostPciSpec.MessageQueues];
    private int _changes;
    private volatile bool _needsReset;

    /// <summary>Puts an adapter in front of an engine, which serves nothing else.</summary>
    /// <param name="engine">The engine; front-ends come by <see cref="VirtioVhostUserDevice.ServeAsync"/>.</param>
    public VhostPciFunction(VirtioVhostUserDevice engine)
        : base(Identity, isExpress: true)
    {
        ArgumentNullException.ThrowIfNull(engine);
        _engine = engine;
        _log = engine.Options.Logger;
        _windows = new RegionAddresses(engine);
        _doorbells = [.. Enumerable.Range(0, engine.QueueCount).Select(_ => new EventFd())];
        for (int i = VhostPciSpec.MessageQueues; i < _doorbells.Length; i++)
        {
            AuxiliarySlot slot = engine.Slot(i - VhostPciSpec.MessageQueues);
            _watcher.Add(_doorbells[i], _ => slot.Ring());
        }

        _registers = new ConfigSpace(VhostPciSpec.RegisterBytes, [VhostPciSpec.Taken, .. QueueFields()]);
        AddBars();
        AddCapability(new PowerManagementCapability());
        AddCapability(new ExpressCapability());
        AddCapability(new MsixCapability(
            VhostPciSpec.VectorCount(engine.Rings), VhostPciSpec.RegistersBar, VhostPciSpec.VectorsOffset,
            VhostPciSpec.PendingOffset));
        SetRegisters();
        engine.SharedRegionHost = _windows;
        engine.Notified = ring => Interrupts[InterruptKind.Msix].Trigger(VhostPciSpec.KickVector(ring));
        engine.ConfigChanged += OnStatusChanged;
        engine.NeedsReset += OnEngineNeedsReset;
    }

    /// <summary>Who the adapter says it is.</summary>
    public static PciIdentity Identity => new(VhostPciSpec.VendorId, VhostPciSpec.DeviceId)
    {
        Revision = 1,
        SubsystemVendorId = VhostPciSpec.VendorId,
        SubsystemId = VhostPciSpec.DeviceId,
        ClassCode = 0x088000,
    };

    /// <inheritdoc/>
    protected override bool UsesMemory => HasRunningQueue;

    private ulong Offered => _engine.DeviceFeatures & VhostPciSpec.ExplicitOffsets;

    private bool HasRunningQueue => Array.Exists(_running, running => running is not null);

    /// <summary>Stops everything. No client is there any more.</summary>
    public async ValueTask DisposeAsync()
    {
        await ResetAdapterAsync().ConfigureAwait(false);
        _engine.ConfigChanged -= OnStatusChanged;
        _engine.NeedsReset -= OnEngineNeedsReset;
        _engine.SharedRegionHost = null;
        _engine.Notified = null;
        await _workers.DisposeAsync().ConfigureAwait(false);
        _watcher.Dispose();
        Array.ForEach(_doorbells, doorbell => doorbell.Dispose());
        _windows.Dispose();
    }

    /// <inheritdoc/>
    protected override void ReadBar(int bar, ulong offset, Span<byte> destination)
    {
        destination.Clear();
        if (bar == VhostPciSpec.RegistersBar)
        {
            if (offset < VhostPciSpec.RegisterBytes)
            {
                ReadRegisters((uint)offset, destination);
            }
        }
        else if (PartOf(bar, offset, destination.Length) is { } part)
        {
            part.Segment.Span.CopyTo(destination);
        }
    }

    /// <inheritdoc/>
    protected override ValueTask WriteBar(int bar, ulong offset, ReadOnlySpan<byte> source)
    {
        if (bar != VhostPciSpec.RegistersBar)
        {
            if (PartOf(bar, offset, source.Length) is { } part)
            {
                source[..(int)part.Length].CopyTo(part.Segment.Span);
            }

            return default;
        }

        if (offset < VhostPciSpec.RegisterBytes)
        {
            int count = Math.Min(source.Length, VhostPciSpec.RegisterBytes - (int)offset);
            return WriteRegistersAsync((uint)offset, source[..count].ToArray());
        }

        ulong doorbell = (offset - VhostPciSpec.DoorbellsOffset) / VhostPciSpec.DoorbellBytes;
        if (offset >= VhostPciSpec.DoorbellsOffset && doorbell < (ulong)_doorbells.Length)
        {
            _doorbells[doorbell].Signal();
        }

        return default;
    }

    /// <inheritdoc/>
    protected override ValueTask OnResetAsync(PciResetKind kind) => ResetAdapterAsync();

    /// <inheritdoc/>
    protected override ValueTask OnDetachedAsync() => ResetAdapterAsync();

    /// <inheritdoc/>
    protected override async ValueTask OnMemoryChangedAsync(GuestMemory memory, bool keepsOldRegions)
    {
        for (int queue = 0; queue < VhostPciSpec.MessageQueues; queue++)
        {
            if (_running[queue] is not { } running)
            {
                continue;
            }

            if (keepsOldRegions || IsIn(memory, queue))
            {
                await running.AdoptAsync(memory, keepsOldRegions).ConfigureAwait(false);
                continue;
            }

            _running[queue] = null;
            await running.StopAsync(QueueStop.Discard).ConfigureAwait(false);
            NeedReset($"queue {queue} lies in memory that was taken away");
        }
    }

    private static IEnumerable<ConfigField> QueueFields() => Enumerable
        .Range(0, VhostPciSpec.MessageQueues)
        .SelectMany(queue => (ConfigField[])[
            VhostPciSpec.Size(queue), VhostPciSpec.Enable(queue), VhostPciSpec.Descriptors(queue),
            VhostPciSpec.Available(queue), VhostPciSpec.Used(queue)]);

    private static bool Touches(ConfigField field, uint offset, int count) =>
        offset < field.Offset + field.SizeBytes && field.Offset < offset + count;

    private void AddBars()
    {
        AddBar(new PciBar(VhostPciSpec.RegistersBar, PciBarKind.Memory32, VhostPciSpec.RegistersBarBytes)
        {
            Doorbells = [.. _doorbells.Select((doorbell, number) =>
                new PciDoorbell(VhostPciSpec.DoorbellOf(number), 0, doorbell))],
        });
        foreach ((int bar, byte region) in (ReadOnlySpan<(int, byte)>)
            [(VhostPciSpec.MemoryBar, VirtioVhostUserSpec.MemoryWindow),
                (VhostPciSpec.LogBar, VirtioVhostUserSpec.LogWindow)])
        {
            ulong size = BitOperations.RoundUpToPowerOf2(_windows[region]!.SizeBytes);
            AddBar(new PciBar(bar, PciBarKind.Memory64, size, isPrefetchable: true) { Window = _windows[region] });
        }
    }

    private void SetRegisters()
    {
        Span<byte> id = stackalloc byte[VirtioVhostUserSpec.IdBytes];
        _engine.Options.Id.Span.CopyTo(id);
        _registers.Set(VhostPciSpec.MagicField, VhostPciSpec.Magic);
        _registers.Set(VhostPciSpec.VersionField, VhostPciSpec.Version);
        _registers.Set(VhostPciSpec.Offered, Offered);
        _registers.Set(VhostPciSpec.Taken, 0);
        _registers.Set(VhostPciSpec.Rings, (ulong)_engine.Rings);
        _registers.Set(VhostPciSpec.MemoryBytes, _windows[VirtioVhostUserSpec.MemoryWindow]!.SizeBytes);
        _registers.Set(VhostPciSpec.LogBytes, _windows[VirtioVhostUserSpec.LogWindow]!.SizeBytes);
        _registers.SetBytes(VhostPciSpec.Id, id);
        foreach (ConfigField field in QueueFields())
        {
            _registers.Set(field, 0);
        }

        for (int queue = 0; queue < VhostPciSpec.MessageQueues; queue++)
        {
            _registers.Set(VhostPciSpec.LargestSize(queue), (ulong)_engine.MaxQueueSize(queue));
        }
    }

    /// <summary>The part of a window that an access meets; null where nothing is.</summary>
    private Linux.Memory.MemoryMapping? PartOf(int bar, ulong offset, int count)
    {
        Linux.Memory.AddressWindow? window = Bars[bar]?.Window;
        return window is null || offset >= window.SizeBytes || count == 0
            ? null : window.View(offset, Math.Min((ulong)count, window.SizeBytes - offset));
    }

    private void ReadRegisters(uint offset, Span<byte> destination)
    {
        int count = Math.Min(destination.Length, VhostPciSpec.RegisterBytes - (int)offset);
        if (Touches(VhostPciSpec.Status, offset, count))
        {
            // Whether a driver has looked at the status matters to the engine, so that it is asked each time.
            byte[] status = new byte[sizeof(uint)];
            _engine.ReadConfig((uint)VirtioVhostUserSpec.Status.Offset, status);
            uint bits = BitConverter.ToUInt32(status) | (_needsReset ? VhostPciSpec.NeedsReset : 0);
            _registers.Set(VhostPciSpec.Status, bits);
        }

        _registers.Set(VhostPciSpec.Changes, (uint)Volatile.Read(ref _changes));
        _registers.Read(offset, destination[..count]);
    }

    private async ValueTask WriteRegistersAsync(uint offset, byte[] source)
    {
        if (Part(VhostPciSpec.Reset, offset, source).Span.IndexOfAnyExcept((byte)0) >= 0)
        {
            await ResetAdapterAsync().ConfigureAwait(false);
            return;
        }

        ReadOnlyMemory<byte> status = Part(VhostPciSpec.Status, offset, source);
        if (!status.IsEmpty)
        {
            uint from = Math.Max(offset, (uint)VhostPciSpec.Status.Offset) - (uint)VhostPciSpec.Status.Offset;
            _engine.WriteConfig((uint)VirtioVhostUserSpec.Status.Offset + from, status.Span);
        }

        WriteFields(offset, source);
        for (int queue = 0; queue < VhostPciSpec.MessageQueues; queue++)
        {
            if (_running[queue] is null && !_needsReset && _registers.Get(VhostPciSpec.Enable(queue)) == 1)
            {
                await StartMessagesAsync(queue).ConfigureAwait(false);
            }
        }
    }

    /// <summary>The bytes of a write that meet a field.</summary>
    private static ReadOnlyMemory<byte> Part(ConfigField field, uint offset, byte[] source)
    {
        int start = Math.Max(field.Offset - (int)offset, 0);
        int end = Math.Min(field.Offset + field.SizeBytes - (int)offset, source.Length);
        return start < end ? source.AsMemory(start, end - start) : default;
    }

    /// <summary>Features until a queue runs, a queue's fields until that one does.</summary>
    private void WriteFields(uint offset, byte[] source)
    {
        IEnumerable<ConfigField> open = Enumerable.Range(0, VhostPciSpec.MessageQueues)
            .Where(queue => _running[queue] is null)
            .SelectMany(queue => QueueFields().Skip(queue * 5).Take(5));
        if (!HasRunningQueue)
        {
            open = open.Append(VhostPciSpec.Taken);
        }

        foreach (ConfigField field in open)
        {
            ReadOnlyMemory<byte> part = Part(field, offset, source);
            if (!part.IsEmpty)
            {
                _registers.Write(Math.Max(offset, (uint)field.Offset), part.Span);
            }
        }

        _registers.Set(VhostPciSpec.Taken, _registers.Get(VhostPciSpec.Taken) & Offered);
    }

    private VringAddresses AddressesOf(int queue) => new(
        _registers.Get(VhostPciSpec.Descriptors(queue)), _registers.Get(VhostPciSpec.Available(queue)),
        _registers.Get(VhostPciSpec.Used(queue)));

    private bool IsIn(GuestMemory memory, int queue)
    {
        ulong size = _registers.Get(VhostPciSpec.Size(queue));
        VringAddresses at = AddressesOf(queue);
        return memory.TryGetWindow(at.Descriptors, SplitRing.DescriptorBytes * size, out _)
            && memory.TryGetWindow(at.Available, 6 + (2 * size), out _)
            && memory.TryGetWindow(at.Used, 6 + (8 * size), out _);
    }

    private async Task StartMessagesAsync(int queue)
    {
        ulong size = _registers.Get(VhostPciSpec.Size(queue));
        if (!ulong.IsPow2(size) || size > (ulong)_engine.MaxQueueSize(queue) || !IsIn(Dma.Memory, queue))
        {
            NeedReset($"queue {queue} of {size} is not in memory that was shared, or cannot be");
            return;
        }

        if (!HasRunningQueue)
        {
            _engine.AcceptFeatures(_registers.Get(VhostPciSpec.Taken) | VirtioFeatures.Version1);
        }

        VringSetup setup = new()
        {
            Index = queue,
            Size = (int)size,
            Addresses = AddressesOf(queue),
            Base = 0,
            Features = VirtioFeatures.Version1,
            Memory = Dma.Memory,
        };
        QueueLinks links = new()
        {
            Kick = new EventFdNotifier(new EventFd(_doorbells[queue].Descriptor.Duplicate())),
            Call = new VectorNotifier(Interrupts[InterruptKind.Msix], 1 + queue),
            IsStarted = true,
            IsEnabled = true,
            Faulted = (index, fault) => NeedReset($"queue {index}: the driver broke the ring ({fault})"),
            Failed = OnFailed,
        };
        try
        {
            _running[queue] = await _engine.StartQueue(setup, links, _workers.For(0)).ConfigureAwait(false);
        }
        catch (VringSetupException error)
        {
            links.Kick.Dispose();
            NeedReset($"queue {queue}: {error.Field}: {error.Message}");
        }
    }

    private async ValueTask ResetAdapterAsync()
    {
        for (int queue = 0; queue < _running.Length; queue++)
        {
            if (_running[queue] is { } running)
            {
                _running[queue] = null;
                await running.StopAsync(QueueStop.Discard).ConfigureAwait(false);
            }
        }

        _engine.Reset();
        _engine.ForgetSharedMappings();
        _windows.ClearAll();
        _needsReset = false;
        SetRegisters();
    }

    private void OnEngineNeedsReset() => NeedReset("its driver broke a rule");

    private void OnFailed(int queue, Exception error)
    {
        _log.LogCritical(error, "queue {Queue}: this program failed; it is not served until reset", queue);
        _needsReset = true;
        OnStatusChanged();
    }

    private void NeedReset(string reason)
    {
        _log.LogWarning("vhost-pci: a reset is due: {Reason}", reason);
        _needsReset = true;
        OnStatusChanged();
    }

    private void OnStatusChanged()
    {
        Interlocked.Increment(ref _changes);
        Interrupts[InterruptKind.Msix].Trigger(VhostPciSpec.StatusVector);
    }

    private sealed class VectorNotifier(InterruptVectors vectors, int vector) : Notifier
    {
        public override FileDescriptor? Waitable => null;

        public override void Signal() => vectors.Trigger(vector);

        public override void Dispose()
        {
        }
    }
}
