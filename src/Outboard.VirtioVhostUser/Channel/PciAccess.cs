// A device on PCI: inside a guest (VFIO), or behind a vfio-user socket.
//
// With a vector for each queue, kicks reach the back-end's threads without a stop; QEMU gives a device of this kind one
// vector only, which then means everything: a look at the generation tells whether the configuration is meant, too.
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

    /// <summary>What is read where a machine shows no configuration.</summary>
    private const uint NoNumber = uint.MaxValue;

    private readonly VirtioPciDriver _driver;
    private readonly List<VirtioPciQueue> _queues = [];
    private readonly Stack<IDisposable> _owned;
    private ulong? _generation;

    private PciAccess(VirtioPciDriver driver, Stack<IDisposable> owned, string description)
    {
        _driver = driver;
        _owned = owned;
        Description = description;
    }

    /// <inheritdoc/>
    public override string Description { get; }

    /// <inheritdoc/>
    public override ulong Features => _driver.Features;

    /// <inheritdoc/>
    public override int Rings => (_queues.Count - 1 - VirtioVhostUserSpec.FirstAuxiliaryQueue) / 2;

    /// <inheritdoc/>
    public override DriverQueueLink Receive => _queues[VirtioVhostUserSpec.ReceiveQueue];

    /// <inheritdoc/>
    public override DriverQueueLink Transmit => _queues[VirtioVhostUserSpec.TransmitQueue];

    /// <inheritdoc/>
    public override IReadOnlyList<EventFd> Interrupts => HasVectors
        ? [_driver.ConfigChanged, _queues[0].Call, _queues[1].Call] : [_driver.ConfigChanged];

    /// <summary>Whether each queue has a vector of its own.</summary>
    private bool HasVectors => _driver.VectorCount > _queues.Count;

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
                : await StartAsync(handle, memory, owned, description, cancellation).ConfigureAwait(false);
        }
        catch
        {
            DisposeAll(owned);
            throw;
        }
    }

    /// <summary>Takes hold of a device.</summary>
    /// <param name="handle">The function; stays the caller's.</param>
    /// <param name="memory">Memory that the device can reach; stays the caller's.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="InvalidDataException">It is no virtio-vhost-user device.</exception>
    public static Task<PciAccess> StartAsync(
        PciHandle handle, DriverMemory memory, CancellationToken cancellation = default) =>
        StartAsync(handle, memory, new Stack<IDisposable>(), "a virtio-vhost-user PCI device", cancellation);

    /// <inheritdoc/>
    public override EventFd? KickOf(int ring) => HasVectors
        ? _queues[VirtioVhostUserSpec.FirstAuxiliaryQueue + VirtioVhostUserSpec.CallOf(ring)].Call : null;

    /// <inheritdoc/>
    public override void Ring(int notification) =>
        _queues[VirtioVhostUserSpec.FirstAuxiliaryQueue + notification].Kick();

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
            await _driver.ResetAsync().ConfigureAwait(false);
        }
        catch (Exception error) when (error is IOException or InvalidDataException)
        {
            // It is lost; so is everything it had.
        }

        _driver.Dispose();
        DisposeAll(_owned);
    }

    private static async Task<PciAccess> StartAsync(
        PciHandle handle, DriverMemory memory, Stack<IDisposable> owned, string description,
        CancellationToken cancellation)
    {
        const ulong own = VirtioVhostUserSpec.ExplicitOffsets | VirtioVhostUserSpec.AuxiliaryByQueue
            | VirtioVhostUserSpec.InflightRegion | VirtioVhostUserSpec.SessionEndBuffers
            | VirtioVhostUserSpec.SessionNumbers;
        VirtioPciDriver driver = await VirtioPciDriver
            .StartAsync(handle, own | Virtio.Spec.VirtioFeatures.AccessPlatform, cancellation).ConfigureAwait(false);
        PciAccess access = new(driver, owned, description);
        try
        {
            await access.StartQueuesAsync(memory, cancellation).ConfigureAwait(false);
            return access;
        }
        catch
        {
            driver.Dispose();
            throw;
        }
    }

    private static void DisposeAll(Stack<IDisposable> owned)
    {
        while (owned.TryPop(out IDisposable? thing))
        {
            thing.Dispose();
        }
    }

    private async Task<uint> ReadAsync(ConfigField field, CancellationToken cancellation)
    {
        byte[] bytes = new byte[sizeof(uint)];
        await _driver.ReadConfigAsync((uint)field.Offset, bytes, cancellation).ConfigureAwait(false);
        return BinaryPrimitives.ReadUInt32LittleEndian(bytes);
    }

    private Task WriteAsync(ConfigField field, uint value, CancellationToken cancellation)
    {
        byte[] bytes = new byte[sizeof(uint)];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, value);
        return _driver.WriteConfigAsync((uint)field.Offset, bytes, cancellation);
    }

    private async Task StartQueuesAsync(DriverMemory memory, CancellationToken cancellation)
    {
        if ((_driver.Features & VirtioVhostUserSpec.AuxiliaryByQueue) == 0
            || !_driver.Windows.Contains(VirtioVhostUserSpec.MemoryWindow))
        {
            throw new InvalidDataException($"{Description} is no virtio-vhost-user device that this driver knows");
        }

        bool hasNumbers = (_driver.Features & VirtioVhostUserSpec.SessionNumbers) != 0;
        byte[] config = new byte[
            hasNumbers ? VirtioVhostUserSpec.NumberedConfigBytes : VirtioVhostUserSpec.ConfigBytes];
        await _driver.ReadConfigAsync(0, config, cancellation).ConfigureAwait(false);
        uint rings = BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(VirtioVhostUserSpec.MaxVhostQueues.Offset));
        if (rings is 0 or > VirtioVhostUserSpec.MaxRings
            || _driver.QueueCount < VirtioVhostUserSpec.QueueCount((int)rings))
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

        for (int i = 0; i < VirtioVhostUserSpec.QueueCount((int)rings); i++)
        {
            int size = i < VirtioVhostUserSpec.FirstAuxiliaryQueue ? MessageQueueSize : EmptyQueueSize;
            _queues.Add(await _driver.StartQueueAsync(i, size, memory, cancellation).ConfigureAwait(false));
        }

        await _driver.RunAsync(cancellation).ConfigureAwait(false);
    }
}
