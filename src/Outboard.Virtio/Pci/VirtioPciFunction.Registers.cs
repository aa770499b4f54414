// The common configuration: virtio-v1.3 "4.1.4.3 Common configuration structure layout". Reads of any width see a
// snapshot of all fields; a write counts for each field that it covers as a whole (of 8-byte fields also for a half).
using System.Buffers.Binary;
using Microsoft.Extensions.Logging;
using Outboard.Virtio.Spec;
using static Outboard.Virtio.Pci.WrittenField;

namespace Outboard.Virtio.Pci;

public sealed partial class VirtioPciFunction
{
    /// <summary>Status bits that a driver may set; a bit once set stays until reset.</summary>
    private const VirtioStatus DriverBits =
        VirtioStatus.Acknowledge | VirtioStatus.Driver | VirtioStatus.DriverOk | VirtioStatus.FeaturesOk
        | VirtioStatus.Failed;

    private uint _deviceFeatureSelect;
    private uint _driverFeatureSelect;
    private ulong _driverFeatures;
    private ushort _queueSelect;
    private volatile ushort _configVector = VirtioPci.NoVector;

    private bool IsPacked => (_driverFeatures & VirtioFeatures.RingPacked) != 0;

    private PciQueue? Selected => _queueSelect < _queues.Length ? _queues[_queueSelect] : null;

    private void ReadCommon(int offset, Span<byte> destination)
    {
        Span<byte> all = stackalloc byte[VirtioPciRegister.Bytes];
        all.Clear();
        Put32(all, VirtioPciRegister.DeviceFeatureSelect, _deviceFeatureSelect);
        Put32(all, VirtioPciRegister.DeviceFeature, Half(_offeredFeatures, _deviceFeatureSelect));
        Put32(all, VirtioPciRegister.DriverFeatureSelect, _driverFeatureSelect);
        Put32(all, VirtioPciRegister.DriverFeature, Half(_driverFeatures, _driverFeatureSelect));
        Put16(all, VirtioPciRegister.ConfigVector, _configVector);
        Put16(all, VirtioPciRegister.QueueCount, (ushort)_queues.Length);
        all[VirtioPciRegister.DeviceStatus] = (byte)Status;
        all[VirtioPciRegister.ConfigGeneration] = (byte)_host.Config.Generation;
        Put16(all, VirtioPciRegister.QueueSelect, _queueSelect);
        if (Selected is { } queue)
        {
            Put16(all, VirtioPciRegister.QueueSize, (ushort)queue.Size);
            Put16(all, VirtioPciRegister.QueueVector, queue.Vector);
            Put16(all, VirtioPciRegister.QueueEnable, queue.IsEnabled ? (ushort)1 : (ushort)0);
            Put16(all, VirtioPciRegister.QueueNotifyOffset, (ushort)queue.Index);
            Put64(all, VirtioPciRegister.QueueDescriptors, queue.Descriptors);
            Put64(all, VirtioPciRegister.QueueDriver, queue.Driver);
            Put64(all, VirtioPciRegister.QueueDevice, queue.Device);
            Put16(all, VirtioPciRegister.QueueNotifyData, (ushort)queue.Index);
        }

        if (offset < all.Length)
        {
            all[offset..Math.Min(offset + destination.Length, all.Length)].CopyTo(destination);
        }
    }

    private ValueTask WriteCommon(int offset, ReadOnlySpan<byte> source)
    {
        if (TryGet32(offset, source, VirtioPciRegister.DeviceFeatureSelect, out uint value))
        {
            _deviceFeatureSelect = value;
        }

        if (TryGet32(offset, source, VirtioPciRegister.DriverFeatureSelect, out value))
        {
            _driverFeatureSelect = value;
        }

        if (TryGet32(offset, source, VirtioPciRegister.DriverFeature, out value)
            && !Status.HasFlag(VirtioStatus.FeaturesOk) && _driverFeatureSelect < 2)
        {
            int shift = (int)_driverFeatureSelect * 32;
            _driverFeatures = (_driverFeatures & ~((ulong)uint.MaxValue << shift)) | ((ulong)value << shift);
        }

        if (TryGet16(offset, source, VirtioPciRegister.ConfigVector, out ushort vector))
        {
            _configVector = Vector(vector);
        }

        if (TryGet16(offset, source, VirtioPciRegister.QueueSelect, out ushort selected))
        {
            _queueSelect = selected;
        }

        ValueTask queueChange = Selected is { } queue ? WriteQueue(queue, offset, source) : default;
        int status = VirtioPciRegister.DeviceStatus - offset;
        if (status >= 0 && status < source.Length)
        {
            return WriteStatusAsync((VirtioStatus)source[status]);
        }

        return queueChange;
    }

    private ValueTask WriteQueue(PciQueue queue, int offset, ReadOnlySpan<byte> source)
    {
        if (TryGet16(offset, source, VirtioPciRegister.QueueVector, out ushort value))
        {
            queue.Vector = Vector(value);
        }

        if (queue.IsEnabled)
        {
            return TryGet16(offset, source, VirtioPciRegister.QueueReset, out value) && value == 1
                && (_driverFeatures & VirtioFeatures.RingReset) != 0
                ? ResetQueueAsync(queue)
                : queue.Running?.RouteAsync() ?? default;
        }

        if (TryGet16(offset, source, VirtioPciRegister.QueueSize, out value) && value > 0
            && value <= _host.MaxQueueSize(queue.Index))
        {
            queue.Size = value;
        }

        queue.Descriptors = Address(offset, source, VirtioPciRegister.QueueDescriptors, queue.Descriptors);
        queue.Driver = Address(offset, source, VirtioPciRegister.QueueDriver, queue.Driver);
        queue.Device = Address(offset, source, VirtioPciRegister.QueueDevice, queue.Device);
        return TryGet16(offset, source, VirtioPciRegister.QueueEnable, out value) && value == 1
            && Status.HasFlag(VirtioStatus.FeaturesOk)
            ? EnableQueueAsync(queue)
            : default;
    }

    private async ValueTask WriteStatusAsync(VirtioStatus written)
    {
        if (written == VirtioStatus.None)
        {
            await ResetDeviceAsync().ConfigureAwait(false);
            return;
        }

        VirtioStatus before = Status;
        VirtioStatus added = written & DriverBits & ~before;
        if (added.HasFlag(VirtioStatus.FeaturesOk) && !await TryAcceptFeaturesAsync().ConfigureAwait(false))
        {
            added &= ~VirtioStatus.FeaturesOk;
        }

        if (!(before | added).HasFlag(VirtioStatus.FeaturesOk))
        {
            added &= ~VirtioStatus.DriverOk;
        }

        Interlocked.Or(ref _status, (int)added);
        if (added.HasFlag(VirtioStatus.DriverOk))
        {
            await EnableRunningAsync().ConfigureAwait(false);
        }
    }

    private async ValueTask<bool> TryAcceptFeaturesAsync()
    {
        ulong unknown = _driverFeatures & ~_offeredFeatures;
        if (unknown != 0 || (_driverFeatures & VirtioFeatures.Version1) == 0)
        {
            _log.LogWarning("the driver's features 0x{Features:x} are refused", _driverFeatures);
            return false;
        }

        await _host.AcceptFeaturesAsync(_driverFeatures).ConfigureAwait(false);
        return true;
    }

    /// <summary>A vector that there is, or none.</summary>
    private ushort Vector(ushort value) => _options.HasMsix && value < VectorCount ? value : VirtioPci.NoVector;

    private static ulong Address(int offset, ReadOnlySpan<byte> source, int field, ulong before)
    {
        ulong value = before;
        if (TryGet32(offset, source, field, out uint half))
        {
            value = (value & ~(ulong)uint.MaxValue) | half;
        }

        if (TryGet32(offset, source, field + sizeof(uint), out half))
        {
            value = (value & uint.MaxValue) | ((ulong)half << 32);
        }

        return value;
    }

    private static uint Half(ulong features, uint select) =>
        select switch { 0 => (uint)features, 1 => (uint)(features >> 32), _ => 0 };

    private static void Put16(Span<byte> target, int field, ushort value) =>
        BinaryPrimitives.WriteUInt16LittleEndian(target[field..], value);

    private static void Put32(Span<byte> target, int field, uint value) =>
        BinaryPrimitives.WriteUInt32LittleEndian(target[field..], value);

    private static void Put64(Span<byte> target, int field, ulong value) =>
        BinaryPrimitives.WriteUInt64LittleEndian(target[field..], value);
}
