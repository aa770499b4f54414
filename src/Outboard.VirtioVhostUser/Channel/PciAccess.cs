// A device on PCI: inside a guest (VFIO), or behind a vfio-user socket.
//
// With a vector for each queue, kicks reach the back-end's threads without a stop; QEMU gives a device of this kind one
// vector only, which then means everything: a look at the generation tells whether the configuration is meant, too.
// A device with notifications of its own (capabilities 6 and 7) is driven by those, and needs two queues only.
//
// What lies in the windows goes while the device runs, and not with a reset: QEMU 11.1 does not live through the start
// of a device whose mappings went while it was stopped (docs/ARCHITECTURE.md). A driver that was killed leaves them, in
// a device that its machine has stopped: that one is started once more, on empty queues, for nothing but this.
using System.Buffers.Binary;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Pci.Driver;
using Outboard.Virtio;
using Outboard.Virtio.Pci.Driver;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Protocol;
using Outboard.VirtioVhostUser.VhostPci;

namespace Outboard.VirtioVhostUser.Channel;

/// <summary>A device on PCI.</summary>
public sealed class PciAccess : DriverAccess
{
    private const int MessageQueueSize = 32;
    private const int EmptyQueueSize = 2;

    /// <summary>Looks, at least a millisecond apart, at windows that are being emptied: a busy machine takes its time.
    /// </summary>
    private const int MaxLooks = 5000;

    /// <summary>What is read where a machine shows no configuration.</summary>
    private const uint NoNumber = uint.MaxValue;

    private readonly VirtioPciDriver _driver;
    private readonly List<VirtioPciQueue> _queues = [];
    private readonly List<EventFd> _kicks = [];
    private readonly Func<ValueTask> _release;
    private LossWatch? _loss;
    private ulong? _generation;
    private int _rings;

    private PciAccess(VirtioPciDriver driver, Func<ValueTask> release, string description)
    {
        _driver = driver;
        _release = release;
        Description = description;
    }

    /// <inheritdoc/>
    public override string Description { get; }

    /// <inheritdoc/>
    public override ulong Features => _driver.Features;

    /// <inheritdoc/>
    public override int Rings => _rings;

    /// <inheritdoc/>
    public override DriverQueueLink Receive => _queues[VirtioVhostUserSpec.ReceiveQueue];

    /// <inheritdoc/>
    public override DriverQueueLink Transmit => _queues[VirtioVhostUserSpec.TransmitQueue];

    /// <inheritdoc/>
    public override IReadOnlyList<EventFd> Interrupts => HasVectors
        ? [_driver.ConfigChanged, _queues[0].Call, _queues[1].Call] : [_driver.ConfigChanged];

    /// <summary>Whether each queue and each kick have vectors of their own.</summary>
    private bool HasVectors => _driver.VectorCount > _queues.Count + (IsByQueue ? 0 : _rings);

    private bool IsByQueue => (Features & VirtioVhostUserSpec.AuxiliaryByQueue) != 0;

    /// <summary>
    /// Takes hold of a device that the kernel hands to this process: a virtio-vhost-user device, or a vhost-pci
    /// adapter, which its PCI ids tell.
    /// </summary>
    /// <param name="address">Its PCI address: 0000:00:03.0.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="IOException">It cannot be had, or has no memory to work with.</exception>
    /// <exception cref="InvalidDataException">It is neither.</exception>
    public static async Task<DriverAccess> OpenAsync(string address, CancellationToken cancellation = default)
    {
        Stack<IDisposable> owned = new();
        ValueTask Release()
        {
            while (owned.TryPop(out IDisposable? thing))
            {
                thing.Dispose();
            }

            return default;
        }

        try
        {
            VfioPciHandle handle = VfioPciHandle.Open(address);
            owned.Push(handle);
            DriverMemory memory = DriverMemory.CreatePhysical();
            owned.Push(memory);
            handle.MapPhysical(memory.BusAddress, memory.Segment);
            string description = $"PCI device {address}";
            return await VhostPciAccess.IsAdapterAsync(handle, cancellation).ConfigureAwait(false)
                ? await VhostPciAccess.StartAsync(
                    handle, memory, owned: owned, description: description, cancellation: cancellation)
                    .ConfigureAwait(false)
                : await StartAsync(handle, memory, Release, description, cancellation: cancellation)
                    .ConfigureAwait(false);
        }
        catch
        {
            await Release().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Takes hold of a device.</summary>
    /// <param name="handle">The function; stays the caller's.</param>
    /// <param name="memory">Memory that the device can reach; stays the caller's.</param>
    /// <param name="release">Called when the device has been let go of; not when this fails.</param>
    /// <param name="description">What it is, for messages.</param>
    /// <param name="features">Private features to take of those that are offered; all by default.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="InvalidDataException">It is no virtio-vhost-user device.</exception>
    /// <exception cref="IOException">It cannot be reached.</exception>
    public static async Task<PciAccess> StartAsync(
        PciHandle handle, DriverMemory memory, Func<ValueTask>? release = null,
        string description = "a virtio-vhost-user PCI device", ulong features = ulong.MaxValue,
        CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(handle);
        const ulong own = VirtioVhostUserSpec.ExplicitOffsets | VirtioVhostUserSpec.AuxiliaryByQueue
            | VirtioVhostUserSpec.InflightRegion | VirtioVhostUserSpec.SessionEndBuffers
            | VirtioVhostUserSpec.SessionNumbers | VirtioVhostUserSpec.WindowStatus;
        VirtioPciDriver driver = await VirtioPciDriver.StartAsync(
            handle,
            found => (own & features & ~(found.HasAuxiliary ? VirtioVhostUserSpec.AuxiliaryByQueue : 0))
                | Virtio.Spec.VirtioFeatures.AccessPlatform,
            found => TakeOverAsync(found, memory, cancellation),
            cancellation).ConfigureAwait(false);
        PciAccess access = new(driver, release ?? (() => default), description);
        try
        {
            await access.StartQueuesAsync(memory, cancellation).ConfigureAwait(false);
            access._loss = new LossWatch(handle, driver.ConfigChanged);
            return access;
        }
        catch
        {
            driver.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override EventFd? KickOf(int ring) => !HasVectors ? null
        : IsByQueue ? _queues[VirtioVhostUserSpec.FirstAuxiliaryQueue + VirtioVhostUserSpec.CallOf(ring)].Call
        : _kicks[ring];

    /// <inheritdoc/>
    public override void Ring(int notification)
    {
        if (IsByQueue)
        {
            _queues[VirtioVhostUserSpec.FirstAuxiliaryQueue + notification].Kick();
        }
        else
        {
            _driver.RingAuxiliary(VirtioVhostUserSpec.DoorbellOf(notification, _rings));
        }
    }

    /// <inheritdoc/>
    public override SharedMemory? OpenWindow(byte region) => _driver.OpenWindow(region);

    /// <inheritdoc/>
    public override async Task<bool> HasChangedAsync(CancellationToken cancellation)
    {
        ulong generation = await _driver.ReadGenerationAsync(cancellation).ConfigureAwait(false);
        bool hasChanged = _generation != generation;
        _generation = generation;
        return hasChanged;
    }

    /// <inheritdoc/>
    public override Task<uint> ReadStatusAsync(CancellationToken cancellation) =>
        ReadAsync(VirtioVhostUserSpec.Status, cancellation);

    /// <inheritdoc/>
    public override Task WriteStatusAsync(uint status, CancellationToken cancellation) =>
        WriteAsync(VirtioVhostUserSpec.Status, status, cancellation);

    /// <inheritdoc/>
    public override Task<uint> ReadSessionAsync(CancellationToken cancellation) =>
        ReadAsync(VirtioVhostUserSpec.Session, cancellation);

    /// <inheritdoc/>
    public override Task AcknowledgeSessionAsync(uint session, CancellationToken cancellation) =>
        WriteAsync(VirtioVhostUserSpec.Acknowledged, session, cancellation);

    /// <inheritdoc/>
    public override async ValueTask DisposeAsync()
    {
        try
        {
            await EmptyWindowsAsync(_driver, CancellationToken.None).ConfigureAwait(false);
            await _driver.ResetAsync().ConfigureAwait(false);
        }
        catch (Exception error) when (error is IOException or InvalidDataException)
        {
            // It is lost; so is everything it had.
        }

        await _loss!.DisposeAsync().ConfigureAwait(false);
        _driver.Dispose();
        await _release().ConfigureAwait(false);
    }

    private static async Task TakeOverAsync(
        VirtioPciDriver driver, DriverMemory memory, CancellationToken cancellation)
    {
        if (await driver.TryGoOnAsync(memory, cancellation).ConfigureAwait(false))
        {
            await EmptyWindowsAsync(driver, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Has the device take everything out of its windows. One that does not tell is not waited for.</summary>
    private static async Task EmptyWindowsAsync(VirtioPciDriver driver, CancellationToken cancellation)
    {
        await WriteAsync(driver, VirtioVhostUserSpec.Status, 0, cancellation).ConfigureAwait(false);
        for (int looks = 0; looks < MaxLooks; looks++)
        {
            uint status = await ReadAsync(driver, VirtioVhostUserSpec.Status, cancellation).ConfigureAwait(false);
            if (status == NoNumber || (status & VirtioVhostUserSpec.WindowsInUse) == 0)
            {
                return;
            }

            await Task.Delay(1, cancellation).ConfigureAwait(false);
        }
    }

    private Task<uint> ReadAsync(ConfigField field, CancellationToken cancellation) =>
        ReadAsync(_driver, field, cancellation);

    private Task WriteAsync(ConfigField field, uint value, CancellationToken cancellation) =>
        WriteAsync(_driver, field, value, cancellation);

    private static async Task<uint> ReadAsync(
        VirtioPciDriver driver, ConfigField field, CancellationToken cancellation)
    {
        byte[] bytes = new byte[sizeof(uint)];
        await driver.ReadConfigAsync((uint)field.Offset, bytes, cancellation).ConfigureAwait(false);
        return BinaryPrimitives.ReadUInt32LittleEndian(bytes);
    }

    private static Task WriteAsync(
        VirtioPciDriver driver, ConfigField field, uint value, CancellationToken cancellation)
    {
        byte[] bytes = new byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, value);
        return driver.WriteConfigAsync((uint)field.Offset, bytes, cancellation);
    }

    private async Task StartQueuesAsync(DriverMemory memory, CancellationToken cancellation)
    {
        if ((!IsByQueue && !_driver.HasAuxiliary) || !_driver.Windows.Contains(VirtioVhostUserSpec.MemoryWindow))
        {
            throw new InvalidDataException($"{Description} is no virtio-vhost-user device that this driver knows");
        }

        bool hasNumbers = (_driver.Features & VirtioVhostUserSpec.SessionNumbers) != 0;
        byte[] config = new byte[
            hasNumbers ? VirtioVhostUserSpec.NumberedConfigBytes : VirtioVhostUserSpec.ConfigBytes];
        await _driver.ReadConfigAsync(0, config, cancellation).ConfigureAwait(false);
        uint rings = BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(VirtioVhostUserSpec.MaxVhostQueues.Offset));
        if (rings is 0 or > VirtioVhostUserSpec.MaxRings)
        {
            throw new InvalidDataException($"{Description} says that it has {rings} rings");
        }

        _rings = (int)rings;
        int queues = IsByQueue ? VirtioVhostUserSpec.QueueCount(_rings) : VirtioVhostUserSpec.FirstAuxiliaryQueue;
        int doorbells = IsByQueue ? 0 : VirtioVhostUserSpec.LogOf(_rings) + 1;
        if (_driver.QueueCount < queues || _driver.AuxiliaryDoorbells < doorbells)
        {
            throw new InvalidDataException(
                $"{Description} says that it has {rings} rings, with {_driver.QueueCount} queues: "
                + "give it two and one more, and two for each ring");
        }

        if (hasNumbers
            && BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(VirtioVhostUserSpec.Session.Offset)) == NoNumber)
        {
            throw new InvalidDataException(
                $"{Description} numbers its sessions, and its machine does not show the numbers: "
                + $"give it config_size={VirtioVhostUserSpec.NumberedConfigBytes}");
        }

        for (int i = 0; i < queues; i++)
        {
            int size = i < VirtioVhostUserSpec.FirstAuxiliaryQueue ? MessageQueueSize : EmptyQueueSize;
            _queues.Add(await _driver.StartQueueAsync(i, size, memory, cancellation).ConfigureAwait(false));
        }

        if (!IsByQueue)
        {
            await StartNotificationsAsync(cancellation).ConfigureAwait(false);
        }

        await _driver.RunAsync(cancellation).ConfigureAwait(false);
    }

    /// <summary>Each kick gets a vector of its own: notifications that share one cannot be told apart.</summary>
    private async Task StartNotificationsAsync(CancellationToken cancellation)
    {
        if (!HasVectors)
        {
            throw new InvalidDataException(
                $"{Description} has {_driver.VectorCount} interrupt vectors for {_rings} rings");
        }

        await _driver.OpenAuxiliaryAsync(cancellation).ConfigureAwait(false);
        for (int ring = 0; ring < _rings; ring++)
        {
            _kicks.Add(await _driver
                .BindAuxiliaryAsync(ring, 1 + _queues.Count + ring, cancellation).ConfigureAwait(false));
        }
    }
}
