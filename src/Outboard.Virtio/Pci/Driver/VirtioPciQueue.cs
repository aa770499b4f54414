// A queue in use by a driver over PCI: the ring, an eventfd for its interrupt, and a doorbell.
using System.Buffers.Binary;
using Outboard.Linux.Events;
using Outboard.Pci.Driver;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.Virtio.Pci.Driver;

/// <summary>A queue of a PCI device, as its driver uses it. Disposing closes the eventfds.</summary>
public sealed class VirtioPciQueue : DriverQueueLink, IDisposable
{
    private readonly PciHandle _device;
    private readonly int _bar;
    private readonly ulong _notifyOffset;
    private readonly EventFd? _doorbell;

    /// <summary>Makes a queue of a ring that the device knows, or is about to be told.</summary>
    /// <param name="ring">The ring.</param>
    /// <param name="memory">Memory that the device can reach.</param>
    /// <param name="device">The function.</param>
    /// <param name="bar">The BAR of the doorbell.</param>
    /// <param name="notifyOffset">Where the doorbell is in it; the queue's index is written there, in 2 bytes.</param>
    /// <param name="doorbell">The doorbell as an eventfd, if it has one; owned by the queue.</param>
    /// <param name="call">Signalled by the queue's interrupt; owned by the queue.</param>
    public VirtioPciQueue(
        DriverQueue ring, DriverMemory memory, PciHandle device, int bar, ulong notifyOffset, EventFd? doorbell,
        EventFd call)
    {
        Call = call;
        Ring = ring;
        Memory = memory;
        _device = device;
        _bar = bar;
        _notifyOffset = notifyOffset;
        _doorbell = doorbell;
    }

    /// <inheritdoc/>
    public override DriverQueue Ring { get; }

    /// <inheritdoc/>
    public override DriverMemory Memory { get; }

    /// <summary>Device to driver.</summary>
    public EventFd Call { get; }

    /// <summary>Whether kicks go without messages.</summary>
    public bool HasDoorbell => _doorbell is not null;

    /// <inheritdoc/>
    public override void Submit()
    {
        Ring.Publish();
        if (Ring.ShouldKick())
        {
            Kick();
        }
    }

    /// <inheritdoc/>
    public override bool WaitForUsed(int timeoutMs)
    {
        if (Ring.ArmCalls())
        {
            Ring.SuppressCalls();
            return true;
        }

        bool called = Call.Wait(timeoutMs) != 0;
        Ring.SuppressCalls();
        return called;
    }

    /// <summary>Kicks, wanted or not.</summary>
    public void Kick()
    {
        if (_doorbell is not null)
        {
            _doorbell.Signal();
            return;
        }

        Span<byte> index = stackalloc byte[sizeof(ushort)];
        BinaryPrimitives.WriteUInt16LittleEndian(index, (ushort)Ring.Index);
        _device.Post(_bar, _notifyOffset, index);
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        Call.Dispose();
        _doorbell?.Dispose();
    }
}
