// Auxiliary notifications over PCI, as the drafts of virtio-vhost-user from 2022 have them. BAR 4, 8 KiB:
//
//   0x0000  doorbells, 4 bytes each, of which a write of any width rings one (capability type 6, with the multiplier)
//   0x1000  0 select u16, 2 vector u16 of the selected notification to the driver (capability type 7)
//
// A vector that is not there, or that of a notification that is not there, reads as NO_VECTOR. Whoever has the client's
// eventfds rings doorbells by them; a thread passes those on.
using System.Buffers.Binary;
using Outboard.Linux.Events;
using Outboard.Pci.Bars;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Pci;

/// <summary>Doorbells and vectors of a device's auxiliary notifications.</summary>
internal sealed class AuxiliaryBar : IDisposable
{
    /// <summary>The BAR's index.</summary>
    internal const int Index = 4;

    private const uint PartBytes = 0x1000;
    private const uint Multiplier = 4;
    private const int SelectField = 0;
    private const int VectorField = 2;
    private const int VectorBytes = 4;

    private readonly IAuxiliaryNotifications _device;
    private readonly int[] _vectors;
    private readonly int _vectorCount;
    private readonly EventFd[] _events;
    private readonly EventWatcher _watcher = new("virtio-auxiliary");
    private ushort _select;

    /// <param name="device">The device.</param>
    /// <param name="vectorCount">Interrupt vectors of the function.</param>
    internal AuxiliaryBar(IAuxiliaryNotifications device, int vectorCount)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(
            device.DoorbellCount, (int)(PartBytes / Multiplier), nameof(device));
        _device = device;
        _vectorCount = vectorCount;
        _vectors = new int[device.NotificationCount];
        _events = new EventFd[device.DoorbellCount];
        for (int i = 0; i < _events.Length; i++)
        {
            int doorbell = i;
            _events[i] = new EventFd();
            _watcher.Add(_events[i], _ => device.Ring(doorbell), owns: true);
        }

        Reset();
        Bar = new PciBar(Index, PciBarKind.Memory32, 2 * PartBytes)
        {
            Doorbells = [.. _events.Select((bell, index) => new PciDoorbell((uint)index * Multiplier, 0, bell))],
        };
    }

    /// <summary>The BAR.</summary>
    internal PciBar Bar { get; }

    /// <summary>Where a driver finds the two parts.</summary>
    internal VirtioPciCapability[] Capabilities =>
    [
        VirtioPciCapability.Multiplied(
            VirtioPci.DoorbellConfig, Index, 0, (uint)_events.Length * Multiplier, Multiplier),
        new VirtioPciCapability(VirtioPci.NotificationConfig, Index, PartBytes, VectorBytes),
    ];

    public void Dispose() => _watcher.Dispose();

    /// <summary>The vector of a notification. From any thread.</summary>
    internal ushort VectorOf(int notification) => (ushort)Volatile.Read(ref _vectors[notification]);

    internal void Reset()
    {
        _select = 0;
        for (int i = 0; i < _vectors.Length; i++)
        {
            Volatile.Write(ref _vectors[i], VirtioPci.NoVector);
        }
    }

    /// <summary>Answers an access. Doorbells read as zero.</summary>
    internal void Read(ulong offset, Span<byte> destination)
    {
        Span<byte> fields = stackalloc byte[VectorBytes];
        BinaryPrimitives.WriteUInt16LittleEndian(fields[SelectField..], _select);
        BinaryPrimitives.WriteUInt16LittleEndian(
            fields[VectorField..], _select < _vectors.Length ? VectorOf(_select) : VirtioPci.NoVector);
        destination.Clear();
        for (int i = 0; i < destination.Length; i++)
        {
            ulong at = offset + (ulong)i - PartBytes;
            destination[i] = at < VectorBytes ? fields[(int)at] : (byte)0;
        }
    }

    /// <summary>Carries out an access: a field counts when it is written as a whole.</summary>
    internal void Write(ulong offset, ReadOnlySpan<byte> source)
    {
        if (offset < PartBytes)
        {
            if (offset % Multiplier == 0 && offset / Multiplier < (ulong)_events.Length)
            {
                _device.Ring((int)(offset / Multiplier));
            }

            return;
        }

        int start = (int)(offset - PartBytes);
        if (WrittenField.TryGet16(start, source, SelectField, out ushort value))
        {
            _select = value;
        }

        if (WrittenField.TryGet16(start, source, VectorField, out value) && _select < _vectors.Length)
        {
            Volatile.Write(ref _vectors[_select], value < _vectorCount ? value : VirtioPci.NoVector);
        }
    }
}
