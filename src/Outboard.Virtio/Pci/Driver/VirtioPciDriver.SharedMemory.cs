// What only some devices have: shared memory regions, virtio-v1.3 "2.10 Shared Memory Regions", and a configuration
// that a driver writes.
using System.Buffers.Binary;
using Outboard.Memory;
using Outboard.Pci.Bars;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Pci.Driver;

public sealed partial class VirtioPciDriver
{
    /// <summary>Where the upper halves of offset and length stand in the capability of a region.</summary>
    private const int UpperField = VirtioPciCapability.DataField;

    private readonly Dictionary<byte, (byte Bar, ulong Offset, ulong SizeBytes)> _windows = [];

    /// <summary>Numbers of the device's shared memory regions.</summary>
    public IReadOnlyCollection<byte> Windows => _windows.Keys;

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

    /// <summary>Takes a capability if it is that of a region; the first of a number counts.</summary>
    private bool TryTakeWindow(ReadOnlySpan<byte> capability)
    {
        if (capability[3] != VirtioPci.SharedMemoryConfig)
        {
            return false;
        }

        byte bar = capability[VirtioPciCapability.BarField];
        if (bar < PciBar.Count && capability.Length >= UpperField + (2 * sizeof(uint)))
        {
            ulong offset = Wide(capability, VirtioPciCapability.OffsetField, UpperField);
            ulong length = Wide(capability, VirtioPciCapability.LengthField, UpperField + sizeof(uint));
            _windows.TryAdd(capability[VirtioPciCapability.BarField + 1], (bar, offset, length));
        }

        return true;
    }

    private static ulong Wide(ReadOnlySpan<byte> capability, int lower, int upper) =>
        BinaryPrimitives.ReadUInt32LittleEndian(capability[lower..])
        | ((ulong)BinaryPrimitives.ReadUInt32LittleEndian(capability[upper..]) << 32);
}
