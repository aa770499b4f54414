// What only some devices have: shared memory regions, virtio-v1.3 "2.10 Shared Memory Regions", and a configuration
// that a driver writes.
using System.Buffers.Binary;
using Outboard.Memory;
using Outboard.Pci.Bars;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Pci.Driver;

public sealed partial class VirtioPciDriver
{
    private readonly Dictionary<byte, (byte Bar, ulong Offset, ulong SizeBytes)> _windows = [];

    /// <summary>Numbers of the device's shared memory regions.</summary>
    public IReadOnlyCollection<byte> Windows => _windows.Keys;

    /// <summary>Bytes of a shared memory region; 0 when the device has none of that number.</summary>
    public ulong WindowBytes(byte region) => _windows.GetValueOrDefault(region).SizeBytes;

    /// <summary>Reads from a region that need not be mapped: each access is a message, or a trap.</summary>
    /// <exception cref="IOException">There is no such region, the range leaves it, or the device refuses.</exception>
    public Task ReadWindowAsync(
        byte region, ulong offset, Memory<byte> destination, CancellationToken cancellation = default)
    {
        (byte bar, ulong start) = Find(region, offset, destination.Length);
        return _device.ReadAsync(bar, start, destination, cancellation);
    }

    /// <summary>Writes to a region that need not be mapped.</summary>
    /// <exception cref="IOException">There is no such region, the range leaves it, or the device refuses.</exception>
    public Task WriteWindowAsync(
        byte region, ulong offset, ReadOnlyMemory<byte> source, CancellationToken cancellation = default)
    {
        (byte bar, ulong start) = Find(region, offset, source.Length);
        return _device.WriteAsync(bar, start, source, cancellation);
    }

    /// <summary>A shared memory region, to be disposed by the caller; null when the device has none of that number.
    /// </summary>
    /// <exception cref="IOException">It cannot be mapped.</exception>
    public SharedMemory? OpenWindow(byte region) => _windows.TryGetValue(region, out var window)
        ? _device.OpenWindow(window.Bar, window.Offset, window.SizeBytes) : null;

    /// <summary>Counts changes of the configuration: what was read while it stayed the same belongs together.</summary>
    public Task<ulong> ReadGenerationAsync(CancellationToken cancellation = default) =>
        ReadAsync(VirtioPciRegister.ConfigGeneration, 1, cancellation);

    /// <summary>Writes the device's configuration.</summary>
    public async Task WriteConfigAsync(
        uint offset, ReadOnlyMemory<byte> source, CancellationToken cancellation = default)
    {
        Part part = _parts[VirtioPci.DeviceConfig];
        await _device.WriteAsync(part.Bar, part.Offset + offset, source, cancellation).ConfigureAwait(false);
    }

    private (byte Bar, ulong Offset) Find(byte region, ulong offset, int count)
    {
        (byte bar, ulong start, ulong size) = _windows.GetValueOrDefault(region);
        return offset <= size && (ulong)count <= size - offset
            ? (bar, start + offset)
            : throw new IOException($"{count} bytes at 0x{offset:x} leave region {region} of 0x{size:x}");
    }

    /// <summary>Takes a capability if it is that of a region; the first of a number counts.</summary>
    private bool TryTakeWindow(ReadOnlySpan<byte> capability)
    {
        if (capability[3] != VirtioPci.SharedMemoryConfig)
        {
            return false;
        }

        byte bar = capability[VirtioPciCapability.BarField];
        if (bar < PciBar.Count && capability.Length >= VirtioPciCapability.UpperLengthField + sizeof(uint))
        {
            ulong offset = Wide(
                capability, VirtioPciCapability.OffsetField, VirtioPciCapability.UpperOffsetField);
            ulong length = Wide(
                capability, VirtioPciCapability.LengthField, VirtioPciCapability.UpperLengthField);
            if (length <= ulong.MaxValue - offset)
            {
                _windows.TryAdd(capability[VirtioPciCapability.IdField], (bar, offset, length));
            }
        }

        return true;
    }

    private static ulong Wide(ReadOnlySpan<byte> capability, int lower, int upper) =>
        BinaryPrimitives.ReadUInt32LittleEndian(capability[lower..])
        | ((ulong)BinaryPrimitives.ReadUInt32LittleEndian(capability[upper..]) << 32);
}
