// The driver of virtio over PCI: any virtio device that somebody serves as a PCI function can be driven with it,
// without a virtual machine. virtio-v1.3 "4.1 Virtio Over PCI Bus", modern devices only.
//
//   StartAsync -> (ReadConfigAsync) -> StartQueueAsync ... -> RunAsync -> queues are used -> StopQueueAsync, ResetAsync
//
// Everything a device says is checked: capabilities may be damaged, parts may lie outside their BARs.
using System.Buffers.Binary;
using Outboard.Linux.Events;
using Outboard.Pci.Bars;
using Outboard.Pci.Driver;
using Outboard.Pci.Interrupts;
using Outboard.Pci.Spec;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Pci.Driver;

/// <summary>Drives a virtio PCI device. Not thread-safe; queues may be used by a thread each.</summary>
public sealed partial class VirtioPciDriver : IDisposable
{
    private const VirtioStatus Negotiated =
        VirtioStatus.Acknowledge | VirtioStatus.Driver | VirtioStatus.FeaturesOk;

    /// <summary>Entries of the indirect table that each chain may use.</summary>
    private const int IndirectEntries = 16;

    /// <summary>Looks at a status that has to become 0, before the device counts as stuck.</summary>
    private const int MaxLooks = 1000;

    private const ushort MsixEnable = 1 << 15;

    private readonly PciHandle _device;
    private readonly Dictionary<byte, Part> _parts = [];
    private readonly EventFd _configChanged = new();
    private readonly List<PciDoorbell> _doorbells = [];
    private readonly Dictionary<int, EventFd> _calls = [];
    private VirtioPciQueue?[] _queues = [];
    private int _vectors;

    private VirtioPciDriver(PciHandle device) => _device = device;

    /// <summary>The device type.</summary>
    public VirtioDeviceId DeviceId { get; private set; }

    /// <summary>What the device offers.</summary>
    public ulong OfferedFeatures { get; private set; }

    /// <summary>What was negotiated.</summary>
    public ulong Features { get; private set; }

    /// <summary>Interrupt vectors; with one, it means everything.</summary>
    public int VectorCount => _vectors;

    /// <summary>Number of queues.</summary>
    public int QueueCount => _queues.Length;

    /// <summary>Signalled when the configuration changed.</summary>
    public EventFd ConfigChanged => _configChanged;

    /// <summary>Takes a device: resets it and agrees on features.</summary>
    /// <param name="device">The function.</param>
    /// <param name="wanted">Features to take of those that are offered; VERSION_1 is always among them.</param>
    /// <param name="cancellation">Gives up waiting.</param>
    /// <exception cref="InvalidDataException">It is no modern virtio device, or it refuses the features.</exception>
    public static Task<VirtioPciDriver> StartAsync(
        PciHandle device, ulong wanted = ulong.MaxValue, CancellationToken cancellation = default) =>
        StartAsync(device, _ => wanted, null, cancellation);

    /// <summary>As the other one, once the device's parts are known.</summary>
    /// <param name="device">The function.</param>
    /// <param name="choose">Chooses features.</param>
    /// <param name="before">Done before the reset, while the device is as it was left; null for nothing.</param>
    /// <param name="cancellation">Gives up waiting.</param>
    /// <exception cref="InvalidDataException">It is no modern virtio device, or it refuses the features.</exception>
    public static async Task<VirtioPciDriver> StartAsync(
        PciHandle device, Func<VirtioPciDriver, ulong> choose, Func<VirtioPciDriver, Task>? before = null,
        CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentNullException.ThrowIfNull(choose);
        VirtioPciDriver driver = new(device);
        try
        {
            await driver.FindPartsAsync(cancellation).ConfigureAwait(false);
            await (before?.Invoke(driver) ?? Task.CompletedTask).ConfigureAwait(false);
            await driver.NegotiateAsync(choose(driver), cancellation).ConfigureAwait(false);
            return driver;
        }
        catch
        {
            driver.Dispose();
            throw;
        }
    }

    /// <summary>Lets go of eventfds. The device is not told; see <see cref="ResetAsync"/>.</summary>
    public void Dispose()
    {
        foreach (VirtioPciQueue? queue in _queues)
        {
            queue?.Dispose();
        }

        foreach (PciDoorbell doorbell in _doorbells)
        {
            doorbell.Event.Dispose();
        }

        foreach (EventFd bell in _auxiliaryBells.Values)
        {
            bell.Dispose();
        }

        foreach (EventFd call in _calls.Values)
        {
            call.Dispose();
        }

        _configChanged.Dispose();
    }

    /// <summary>Reads the device's configuration.</summary>
    public async Task ReadConfigAsync(
        uint offset, Memory<byte> destination, CancellationToken cancellation = default)
    {
        Part part = _parts[VirtioPci.DeviceConfig];
        await _device.ReadAsync(part.Bar, part.Offset + offset, destination, cancellation).ConfigureAwait(false);
    }

    /// <summary>Makes a queue in memory that the device can reach, and enables it.</summary>
    /// <param name="index">The queue's index.</param>
    /// <param name="size">Descriptors; at most what the device has.</param>
    /// <param name="memory">Where the ring is laid out; mapped already.</param>
    /// <param name="cancellation">Gives up waiting.</param>
    public async Task<VirtioPciQueue> StartQueueAsync(
        int index, int size, DriverMemory memory, CancellationToken cancellation = default)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)index, (uint)_queues.Length, nameof(index));
        await WriteAsync(VirtioPciRegister.QueueSelect, (ulong)index, 2, cancellation).ConfigureAwait(false);
        ulong largest = await ReadAsync(VirtioPciRegister.QueueSize, 2, cancellation).ConfigureAwait(false);
        if ((ulong)size > largest)
        {
            throw new InvalidDataException($"queue {index} has at most {largest} descriptors");
        }

        bool indirect = (Features & VirtioFeatures.IndirectDescriptors) != 0;
        DriverQueue ring = DriverQueue.Create(index, size, memory, Features, indirect ? IndirectEntries : 0);
        Part notify = _parts[VirtioPci.NotifyConfig];
        ulong place = await ReadAsync(VirtioPciRegister.QueueNotifyOffset, 2, cancellation).ConfigureAwait(false);
        ulong notifyOffset = notify.Offset + (place * notify.Multiplier);
        EventFd? doorbell = FindDoorbell(notifyOffset);
        int vector = Math.Min(index + 1, _vectors - 1);
        VirtioPciQueue queue =
            new(ring, memory, _device, notify.Bar, notifyOffset, doorbell, new EventFd(CallOf(vector)));
        _queues[index]?.Dispose();
        _queues[index] = queue;
        if (vector > 0)
        {
            await _device.BindAsync(InterruptKind.Msix, vector, [queue.Call], cancellation).ConfigureAwait(false);
        }

        await WriteAsync(VirtioPciRegister.QueueSize, (ulong)size, 2, cancellation).ConfigureAwait(false);
        await WriteAsync(VirtioPciRegister.QueueVector, (ulong)vector, 2, cancellation).ConfigureAwait(false);
        await EnableAsync(ring, cancellation).ConfigureAwait(false);
        return queue;
    }

    /// <summary>Tells the device that the driver is ready.</summary>
    public Task RunAsync(CancellationToken cancellation = default) =>
        SetStatusAsync(Negotiated | VirtioStatus.DriverOk, cancellation);

    /// <summary>Stops one queue (RING_RESET was negotiated): nothing of it is in use afterwards.</summary>
    public async Task StopQueueAsync(VirtioPciQueue queue, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(queue);
        if ((Features & VirtioFeatures.RingReset) == 0)
        {
            throw new InvalidOperationException("RING_RESET was not negotiated: reset the device");
        }

        await WriteAsync(VirtioPciRegister.QueueSelect, (ulong)queue.Ring.Index, 2, cancellation)
            .ConfigureAwait(false);
        await WriteAsync(VirtioPciRegister.QueueReset, 1, 2, cancellation).ConfigureAwait(false);
        await AwaitZeroAsync(VirtioPciRegister.QueueReset, 2, cancellation).ConfigureAwait(false);
        await AwaitZeroAsync(VirtioPciRegister.QueueEnable, 2, cancellation).ConfigureAwait(false);
    }

    /// <summary>The device status.</summary>
    public async Task<VirtioStatus> GetStatusAsync(CancellationToken cancellation = default) =>
        (VirtioStatus)await ReadAsync(VirtioPciRegister.DeviceStatus, 1, cancellation).ConfigureAwait(false);

    /// <summary>Resets the device: all queues are stopped afterwards.</summary>
    public async Task ResetAsync(CancellationToken cancellation = default)
    {
        await SetStatusAsync(VirtioStatus.None, cancellation).ConfigureAwait(false);
        await AwaitZeroAsync(VirtioPciRegister.DeviceStatus, 1, cancellation).ConfigureAwait(false);
    }

    private async Task FindPartsAsync(CancellationToken cancellation)
    {
        byte[] config = new byte[PciRegister.FirstExtended];
        await _device.ReadAsync(PciHandle.Config, 0, config, cancellation).ConfigureAwait(false);
        int type = BinaryPrimitives.ReadUInt16LittleEndian(config.AsSpan(PciRegister.DeviceId))
            - VirtioPci.FirstDeviceId;
        if (BinaryPrimitives.ReadUInt16LittleEndian(config) != VirtioPci.VendorId || type <= 0)
        {
            throw new InvalidDataException("this is no modern virtio device");
        }

        DeviceId = (VirtioDeviceId)type;
        int msix = 0;
        int at = config[PciRegister.CapabilityPointer] & ~3;

        // a capability has 4 bytes at least, so there are no more of them than that
        for (int seen = 0; at >= PciRegister.FirstCapability && seen < config.Length / 4; seen++)
        {
            if (config[at] == PciCapabilityId.Msix)
            {
                msix = at;
            }
            else if (config[at] == PciCapabilityId.Vendor && at + VirtioPciCapability.DataField <= config.Length
                && !TryTakeWindow(config.AsSpan(at)))
            {
                TakePart(config.AsSpan(at));
            }

            at = config[at + 1] & ~3;
        }

        foreach (byte needed in (byte[])[VirtioPci.CommonConfig, VirtioPci.NotifyConfig])
        {
            if (!_parts.ContainsKey(needed))
            {
                throw new InvalidDataException($"the device has no capability of the type {needed}");
            }
        }

        const ushort command = (ushort)(PciCommand.Memory | PciCommand.Dma);
        await WriteConfigAsync(PciRegister.Command, command, cancellation).ConfigureAwait(false);
        _vectors = await _device.CountVectorsAsync(InterruptKind.Msix, cancellation).ConfigureAwait(false);
        if (msix == 0 || _vectors < 1)
        {
            throw new InvalidDataException("the device has no interrupt vectors (MSI-X)");
        }

        await WriteConfigAsync(msix + 2, MsixEnable, cancellation).ConfigureAwait(false);
        int bar = _parts[VirtioPci.NotifyConfig].Bar;
        _doorbells.AddRange(await _device.OpenDoorbellsAsync(bar, cancellation).ConfigureAwait(false));
    }

    private void TakePart(ReadOnlySpan<byte> capability)
    {
        byte type = capability[3];
        byte bar = capability[VirtioPciCapability.BarField];
        bool isMultiplied = type is VirtioPci.NotifyConfig or VirtioPci.DoorbellConfig;
        bool isCut = isMultiplied && capability.Length < VirtioPciCapability.DataField + sizeof(uint);
        if (bar >= PciBar.Count || _parts.ContainsKey(type) || isCut)
        {
            return;
        }

        uint multiplier = isMultiplied
            ? BinaryPrimitives.ReadUInt32LittleEndian(capability[VirtioPciCapability.DataField..]) : 0;
        _parts[type] = new Part(
            bar, BinaryPrimitives.ReadUInt32LittleEndian(capability[VirtioPciCapability.OffsetField..]), multiplier);
        if (type == VirtioPci.DoorbellConfig)
        {
            uint length = BinaryPrimitives.ReadUInt32LittleEndian(capability[VirtioPciCapability.LengthField..]);
            AuxiliaryDoorbells = multiplier == 0 ? 0 : (int)Math.Min(length / multiplier, ushort.MaxValue);
        }
    }

    private async Task NegotiateAsync(ulong wanted, CancellationToken cancellation)
    {
        await ResetAsync(cancellation).ConfigureAwait(false);
        await SetStatusAsync(VirtioStatus.Acknowledge, cancellation).ConfigureAwait(false);
        await SetStatusAsync(VirtioStatus.Acknowledge | VirtioStatus.Driver, cancellation).ConfigureAwait(false);
        ulong offered = 0;
        for (uint half = 0; half < 2; half++)
        {
            await WriteAsync(VirtioPciRegister.DeviceFeatureSelect, half, 4, cancellation).ConfigureAwait(false);
            ulong bits = await ReadAsync(VirtioPciRegister.DeviceFeature, 4, cancellation).ConfigureAwait(false);
            offered |= bits << (int)(half * 32);
        }

        OfferedFeatures = offered;
        Features = offered & (wanted | VirtioFeatures.Version1)
            & ~VirtioFeatures.NotificationData;
        for (uint half = 0; half < 2; half++)
        {
            await WriteAsync(VirtioPciRegister.DriverFeatureSelect, half, 4, cancellation).ConfigureAwait(false);
            ulong bits = (uint)(Features >> (int)(half * 32));
            await WriteAsync(VirtioPciRegister.DriverFeature, bits, 4, cancellation).ConfigureAwait(false);
        }

        await SetStatusAsync(Negotiated, cancellation).ConfigureAwait(false);
        if (!(await GetStatusAsync(cancellation).ConfigureAwait(false)).HasFlag(VirtioStatus.FeaturesOk))
        {
            throw new InvalidDataException($"the device refuses the features 0x{Features:x}");
        }

        _queues = new VirtioPciQueue?[
            await ReadAsync(VirtioPciRegister.QueueCount, 2, cancellation).ConfigureAwait(false)];
        await _device.BindAsync(InterruptKind.Msix, 0, [_configChanged], cancellation).ConfigureAwait(false);
        await WriteAsync(VirtioPciRegister.ConfigVector, 0, 2, cancellation).ConfigureAwait(false);
    }

    /// <summary>
    /// The eventfd of a vector, owned by the caller: queues that share a vector share it, and the first one is that of
    /// the configuration, too.
    /// </summary>
    private Linux.FileDescriptor CallOf(int vector)
    {
        if (!_calls.TryGetValue(vector, out EventFd? call))
        {
            call = vector == 0 ? _configChanged : new EventFd();
            _calls.Add(vector, call);
        }

        return call.Descriptor.Duplicate();
    }

    /// <summary>An eventfd for writes at a place, owned by the caller; null when there is none.</summary>
    private EventFd? FindDoorbell(ulong offset)
    {
        PciDoorbell? doorbell =
            _doorbells.Find(known => known.Offset == offset && known is { Match: null, SizeBytes: 0 or 2 });
        return doorbell is null ? null : new EventFd(doorbell.Event.Descriptor.Duplicate());
    }

    private Task SetStatusAsync(VirtioStatus status, CancellationToken cancellation) =>
        WriteAsync(VirtioPciRegister.DeviceStatus, (ulong)status, 1, cancellation);

    private async Task AwaitZeroAsync(int register, int width, CancellationToken cancellation)
    {
        for (int looks = 0; looks < MaxLooks; looks++)
        {
            if (await ReadAsync(register, width, cancellation).ConfigureAwait(false) == 0)
            {
                return;
            }

            await Task.Delay(1, cancellation).ConfigureAwait(false);
        }

        throw new InvalidDataException("the device does not come to the end of its reset");
    }

    /// <summary>Tells where the selected queue lies, and enables it.</summary>
    private async Task EnableAsync(DriverQueue ring, CancellationToken cancellation)
    {
        await WriteAddressAsync(VirtioPciRegister.QueueDescriptors, ring.Addresses.Descriptors, cancellation)
            .ConfigureAwait(false);
        await WriteAddressAsync(VirtioPciRegister.QueueDriver, ring.Addresses.Available, cancellation)
            .ConfigureAwait(false);
        await WriteAddressAsync(VirtioPciRegister.QueueDevice, ring.Addresses.Used, cancellation)
            .ConfigureAwait(false);
        await WriteAsync(VirtioPciRegister.QueueEnable, 1, 2, cancellation).ConfigureAwait(false);
    }

    private async Task WriteAddressAsync(int register, ulong address, CancellationToken cancellation)
    {
        await WriteAsync(register, (uint)address, sizeof(uint), cancellation).ConfigureAwait(false);
        await WriteAsync(register + sizeof(uint), address >> 32, sizeof(uint), cancellation).ConfigureAwait(false);
    }

    private async Task<ulong> ReadAsync(int register, int width, CancellationToken cancellation)
    {
        Part part = _parts[VirtioPci.CommonConfig];
        byte[] bytes = new byte[sizeof(ulong)];
        await _device.ReadAsync(part.Bar, part.Offset + (uint)register, bytes.AsMemory(0, width), cancellation)
            .ConfigureAwait(false);
        return BinaryPrimitives.ReadUInt64LittleEndian(bytes);
    }

    private Task WriteAsync(int register, ulong value, int width, CancellationToken cancellation)
    {
        Part part = _parts[VirtioPci.CommonConfig];
        byte[] bytes = new byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        return _device.WriteAsync(part.Bar, part.Offset + (uint)register, bytes.AsMemory(0, width), cancellation);
    }

    private Task WriteConfigAsync(int offset, ushort value, CancellationToken cancellation)
    {
        byte[] bytes = new byte[sizeof(ushort)];
        BinaryPrimitives.WriteUInt16LittleEndian(bytes, value);
        return _device.WriteAsync(PciHandle.Config, (ulong)offset, bytes, cancellation);
    }

    private readonly record struct Part(byte Bar, uint Offset, uint Multiplier);
}
