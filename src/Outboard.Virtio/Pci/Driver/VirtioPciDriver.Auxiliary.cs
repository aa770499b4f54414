// Auxiliary notifications of the drafts of virtio-vhost-user, from the driver's side: capabilities of the types 6 and
// 7, see AuxiliaryBar.
using Outboard.Linux.Events;
using Outboard.Pci.Bars;
using Outboard.Pci.Interrupts;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Pci.Driver;

public sealed partial class VirtioPciDriver
{
    private readonly Dictionary<ulong, EventFd> _auxiliaryBells = [];

    /// <summary>Whether the device has auxiliary notifications.</summary>
    public bool HasAuxiliary =>
        _parts.ContainsKey(VirtioPci.DoorbellConfig) && _parts.ContainsKey(VirtioPci.NotificationConfig);

    /// <summary>Doorbells that there are; 0 without auxiliary notifications.</summary>
    public int AuxiliaryDoorbells { get; private set; }

    /// <summary>Doorbells that are rung without a message.</summary>
    public int AuxiliaryEvents => _auxiliaryBells.Count;

    /// <summary>Gets what there is of eventfds to ring doorbells by.</summary>
    public async Task OpenAuxiliaryAsync(CancellationToken cancellation = default)
    {
        byte bar = _parts[VirtioPci.DoorbellConfig].Bar;
        foreach (PciDoorbell bell in await _device.OpenDoorbellsAsync(bar, cancellation).ConfigureAwait(false))
        {
            if (bell is not { Match: null, SizeBytes: 0 or sizeof(ushort) }
                || !_auxiliaryBells.TryAdd(bell.Offset, bell.Event))
            {
                bell.Event.Dispose();
            }
        }
    }

    /// <summary>Rings a doorbell. From any thread; waits for nothing.</summary>
    public void RingAuxiliary(int doorbell)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(
            (uint)doorbell, (uint)AuxiliaryDoorbells, nameof(doorbell));
        Part part = _parts[VirtioPci.DoorbellConfig];
        ulong offset = part.Offset + ((ulong)doorbell * part.Multiplier);
        if (_auxiliaryBells.TryGetValue(offset, out EventFd? bell))
        {
            _ = bell.Signal();
            return;
        }

        // The value says nothing; the drafts ask for two bytes at least.
        _device.Post(part.Bar, offset, [0, 0]);
    }

    /// <summary>Gives a notification a vector of its own.</summary>
    /// <param name="notification">Its number.</param>
    /// <param name="vector">A vector below <see cref="VectorCount"/> that nothing else uses.</param>
    /// <param name="cancellation">Gives up waiting.</param>
    /// <returns>What the vector signals; disposed with the driver.</returns>
    /// <exception cref="InvalidDataException">The device does not take the vector.</exception>
    public async Task<EventFd> BindAuxiliaryAsync(
        int notification, int vector, CancellationToken cancellation = default)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual((uint)vector, (uint)_vectors, nameof(vector));
        EventFd signalled = new();
        if (!_calls.TryAdd(vector, signalled))
        {
            signalled.Dispose();
            throw new ArgumentException($"vector {vector} is in use", nameof(vector));
        }

        await _device.BindAsync(InterruptKind.Msix, vector, [signalled], cancellation).ConfigureAwait(false);
        Part part = _parts[VirtioPci.NotificationConfig];
        await _device.WriteAsync(
            part.Bar, part.Offset, BitConverter.GetBytes((ushort)notification), cancellation).ConfigureAwait(false);
        ulong field = part.Offset + sizeof(ushort);
        await _device.WriteAsync(part.Bar, field, BitConverter.GetBytes((ushort)vector), cancellation)
            .ConfigureAwait(false);
        byte[] taken = new byte[sizeof(ushort)];
        await _device.ReadAsync(part.Bar, field, taken, cancellation).ConfigureAwait(false);
        return BitConverter.ToUInt16(taken) == vector
            ? signalled
            : throw new InvalidDataException($"the device gives notification {notification} no vector");
    }
}
