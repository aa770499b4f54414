// The driver's side of the vhost-pci adapter. What is above it (the source of channels, the back-end) cannot tell it
// from a virtio-vhost-user device. Every number that the adapter says is checked.
using System.Buffers.Binary;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Pci.Bars;
using Outboard.Pci.Driver;
using Outboard.Pci.Interrupts;
using Outboard.Pci.Spec;
using Outboard.Virtio;
using Outboard.Virtio.Pci.Driver;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.VhostPci;

/// <summary>A vhost-pci adapter that a driver has taken hold of.</summary>
public sealed class VhostPciAccess : DriverAccess
{
    private const int QueueSize = 32;

    private readonly PciHandle _handle;
    private readonly DriverMemory _memory;
    private readonly Stack<IDisposable> _owned;
    private readonly EventFd _statusChanged = new();
    private readonly List<EventFd> _kicks = [];
    private readonly VirtioPciQueue?[] _queues = new VirtioPciQueue?[VhostPciSpec.MessageQueues];
    private readonly Dictionary<ulong, EventFd> _doorbells = [];
    private readonly ulong _wanted;
    private LossWatch? _loss;
    private ulong _memoryBytes;
    private ulong _logBytes;
    private ulong _features;
    private ulong? _changes;
    private int _rings;

    private VhostPciAccess(
        PciHandle handle, DriverMemory memory, ulong wanted, Stack<IDisposable> owned, string description)
    {
        _handle = handle;
        _memory = memory;
        _wanted = wanted;
        _owned = owned;
        Description = description;
    }

    /// <inheritdoc/>
    public override string Description { get; }

    /// <inheritdoc/>
    public override ulong Features => _features;

    /// <inheritdoc/>
    public override int Rings => _rings;

    /// <inheritdoc/>
    public override DriverQueueLink Receive => _queues[VirtioVhostUserSpec.ReceiveQueue]!;

    /// <inheritdoc/>
    public override DriverQueueLink Transmit => _queues[VirtioVhostUserSpec.TransmitQueue]!;

    /// <inheritdoc/>
    public override IReadOnlyList<EventFd> Interrupts => [_statusChanged, _queues[0]!.Call, _queues[1]!.Call];

    /// <summary>Whether a function says that it is such an adapter.</summary>
    /// <exception cref="IOException">It cannot be asked.</exception>
    public static async Task<bool> IsAdapterAsync(PciHandle handle, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(handle);
        byte[] ids = new byte[2 * sizeof(ushort)];
        await handle.ReadAsync(PciHandle.Config, PciRegister.VendorId, ids, cancellation).ConfigureAwait(false);
        return BinaryPrimitives.ReadUInt16LittleEndian(ids) == VhostPciSpec.VendorId
            && BinaryPrimitives.ReadUInt16LittleEndian(ids.AsSpan(sizeof(ushort))) == VhostPciSpec.DeviceId;
    }

    /// <summary>Takes hold of an adapter: resets it, agrees on features, starts its queues.</summary>
    /// <param name="handle">The function.</param>
    /// <param name="memory">Memory that the function can reach; stays the caller's.</param>
    /// <param name="wanted">Features to take of those that are offered.</param>
    /// <param name="owned">Disposed with this object, the last one first.</param>
    /// <param name="description">What it is, for messages.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="InvalidDataException">It is no such adapter, or its registers say impossible things.
    /// </exception>
    /// <exception cref="IOException">It cannot be reached.</exception>
    public static async Task<VhostPciAccess> StartAsync(
        PciHandle handle, DriverMemory memory, ulong wanted = ulong.MaxValue,
        Stack<IDisposable>? owned = null, string description = "a vhost-pci adapter",
        CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(handle);
        ArgumentNullException.ThrowIfNull(memory);
        VhostPciAccess access = new(handle, memory, wanted, owned ?? new Stack<IDisposable>(), description);
        try
        {
            await access.StartAsync(cancellation).ConfigureAwait(false);
            access._loss = new LossWatch(handle, access._statusChanged);
            return access;
        }
        catch
        {
            access.Release();
            throw;
        }
    }

    /// <summary>Resets the adapter in the midst of whatever it does, and starts its queues again, as new ones.
    /// </summary>
    public async Task ResetAsync(CancellationToken cancellation = default)
    {
        await WriteAsync(VhostPciSpec.Reset, 1, cancellation).ConfigureAwait(false);
        await WriteAsync(VhostPciSpec.Taken, _wanted, cancellation).ConfigureAwait(false);
        _features = await ReadAsync(VhostPciSpec.Taken, cancellation).ConfigureAwait(false);
        for (int queue = 0; queue < VhostPciSpec.MessageQueues; queue++)
        {
            await StartQueueAsync(queue, cancellation).ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    public override EventFd? KickOf(int ring) => _kicks[ring];

    /// <inheritdoc/>
    public override void Ring(int notification)
    {
        uint offset = VhostPciSpec.DoorbellOf(VirtioVhostUserSpec.FirstAuxiliaryQueue + notification);
        if (_doorbells.TryGetValue(offset, out EventFd? doorbell))
        {
            doorbell.Signal();
        }
        else
        {
            // Nothing is in the value; two bytes are what a mapped page is written by.
            _handle.Post(VhostPciSpec.RegistersBar, offset, [0, 0]);
        }
    }

    /// <inheritdoc/>
    public override SharedMemory? OpenWindow(byte region) => region switch
    {
        VirtioVhostUserSpec.MemoryWindow => _handle.OpenWindow(VhostPciSpec.MemoryBar, 0, _memoryBytes),
        VirtioVhostUserSpec.LogWindow => _handle.OpenWindow(VhostPciSpec.LogBar, 0, _logBytes),
        _ => null,
    };

    /// <inheritdoc/>
    public override async Task<bool> HasChangedAsync(CancellationToken cancellation)
    {
        ulong changes = await ReadAsync(VhostPciSpec.Changes, cancellation).ConfigureAwait(false);
        bool hasChanged = _changes != changes;
        _changes = changes;
        return hasChanged;
    }

    /// <inheritdoc/>
    public override async Task<uint> ReadStatusAsync(CancellationToken cancellation) =>
        (uint)await ReadAsync(VhostPciSpec.Status, cancellation).ConfigureAwait(false) & ~VhostPciSpec.NeedsReset;

    /// <inheritdoc/>
    public override Task WriteStatusAsync(uint status, CancellationToken cancellation) =>
        WriteAsync(VhostPciSpec.Status, status, cancellation);

    /// <inheritdoc/>
    public override async ValueTask DisposeAsync()
    {
        try
        {
            await WriteAsync(VhostPciSpec.Reset, 1, CancellationToken.None).ConfigureAwait(false);
        }
        catch (IOException)
        {
            // It is lost; so is everything it had.
        }

        await _loss!.DisposeAsync().ConfigureAwait(false);
        Release();
        while (_owned.TryPop(out IDisposable? thing))
        {
            thing.Dispose();
        }
    }

    private async Task StartAsync(CancellationToken cancellation)
    {
        if (!await IsAdapterAsync(_handle, cancellation).ConfigureAwait(false)
            || await ReadAsync(VhostPciSpec.MagicField, cancellation).ConfigureAwait(false) != VhostPciSpec.Magic)
        {
            throw new InvalidDataException($"{Description} is no vhost-pci adapter");
        }

        ulong version = await ReadAsync(VhostPciSpec.VersionField, cancellation).ConfigureAwait(false);
        ulong rings = await ReadAsync(VhostPciSpec.Rings, cancellation).ConfigureAwait(false);
        int vectors = await _handle.CountVectorsAsync(InterruptKind.Msix, cancellation).ConfigureAwait(false);
        if (version != VhostPciSpec.Version || rings is 0 or > VirtioVhostUserSpec.MaxRings
            || vectors < VhostPciSpec.VectorCount((int)rings))
        {
            throw new InvalidDataException(
                $"{Description} has version {version}, {rings} rings and {vectors} vectors: known are version "
                + $"{VhostPciSpec.Version} and up to {VirtioVhostUserSpec.MaxRings} rings, with a vector for each");
        }

        // Without it neither memory nor interrupts can be reached: the kernel hands functions over like that.
        byte[] command = new byte[sizeof(ushort)];
        BinaryPrimitives.WriteUInt16LittleEndian(command, (ushort)(PciCommand.Memory | PciCommand.Dma));
        await _handle.WriteAsync(PciHandle.Config, PciRegister.Command, command, cancellation).ConfigureAwait(false);
        _rings = (int)rings;
        _memoryBytes = await ReadAsync(VhostPciSpec.MemoryBytes, cancellation).ConfigureAwait(false);
        _logBytes = await ReadAsync(VhostPciSpec.LogBytes, cancellation).ConfigureAwait(false);
        _kicks.AddRange(Enumerable.Range(0, _rings).Select(_ => new EventFd()));
        await _handle.BindAsync(InterruptKind.Msix, VhostPciSpec.StatusVector, [_statusChanged], cancellation)
            .ConfigureAwait(false);
        await _handle.BindAsync(InterruptKind.Msix, VhostPciSpec.KickVector(0), _kicks, cancellation)
            .ConfigureAwait(false);
        await OpenDoorbellsAsync(cancellation).ConfigureAwait(false);
        await ResetAsync(cancellation).ConfigureAwait(false);
    }

    /// <summary>Doorbells as eventfds. There may be more than a message can carry: then each is rung by a write.
    /// </summary>
    private async Task OpenDoorbellsAsync(CancellationToken cancellation)
    {
        try
        {
            foreach (PciDoorbell doorbell in await _handle
                .OpenDoorbellsAsync(VhostPciSpec.RegistersBar, cancellation).ConfigureAwait(false))
            {
                if (!_doorbells.TryAdd(doorbell.Offset, doorbell.Event))
                {
                    doorbell.Event.Dispose();
                }
            }
        }
        catch (IOException)
        {
            // Not by eventfds, then.
        }
    }

    private async Task StartQueueAsync(int index, CancellationToken cancellation)
    {
        ulong largest = await ReadAsync(VhostPciSpec.LargestSize(index), cancellation).ConfigureAwait(false);
        if (largest < QueueSize)
        {
            throw new InvalidDataException($"{Description}: queue {index} has at most {largest} entries");
        }

        DriverQueue ring = DriverQueue.Create(index, QueueSize, _memory, 0);
        uint doorbell = VhostPciSpec.DoorbellOf(index);
        EventFd? eventFd = _doorbells.TryGetValue(doorbell, out EventFd? known)
            ? new EventFd(known.Descriptor.Duplicate()) : null;

        // Whoever waits for the queue's interrupt goes on doing so.
        EventFd call = _queues[index] is { } before ? new EventFd(before.Call.Descriptor.Duplicate()) : new EventFd();
        _queues[index]?.Dispose();
        _queues[index] = new VirtioPciQueue(
            ring, _memory, _handle, VhostPciSpec.RegistersBar, doorbell, eventFd, call);
        await _handle.BindAsync(InterruptKind.Msix, 1 + index, [call], cancellation).ConfigureAwait(false);
        await WriteAsync(VhostPciSpec.Size(index), QueueSize, cancellation).ConfigureAwait(false);
        await WriteAsync(VhostPciSpec.Descriptors(index), ring.Addresses.Descriptors, cancellation)
            .ConfigureAwait(false);
        await WriteAsync(VhostPciSpec.Available(index), ring.Addresses.Available, cancellation).ConfigureAwait(false);
        await WriteAsync(VhostPciSpec.Used(index), ring.Addresses.Used, cancellation).ConfigureAwait(false);
        await WriteAsync(VhostPciSpec.Enable(index), 1, cancellation).ConfigureAwait(false);
    }

    private async Task<ulong> ReadAsync(ConfigField field, CancellationToken cancellation)
    {
        byte[] bytes = new byte[sizeof(ulong)];
        await _handle.ReadAsync(
            VhostPciSpec.RegistersBar, (ulong)field.Offset, bytes.AsMemory(0, field.SizeBytes), cancellation)
            .ConfigureAwait(false);
        return BinaryPrimitives.ReadUInt64LittleEndian(bytes);
    }

    private Task WriteAsync(ConfigField field, ulong value, CancellationToken cancellation)
    {
        byte[] bytes = new byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        return _handle.WriteAsync(
            VhostPciSpec.RegistersBar, (ulong)field.Offset, bytes.AsMemory(0, field.SizeBytes), cancellation);
    }

    private void Release()
    {
        foreach (EventFd eventFd in _kicks.Concat(_doorbells.Values).Append(_statusChanged))
        {
            eventFd.Dispose();
        }

        foreach (VirtioPciQueue? queue in _queues)
        {
            queue?.Dispose();
        }
    }
}
