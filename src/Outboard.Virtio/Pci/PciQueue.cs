// What a driver has told about one queue by the common configuration, and the queue while it runs.
//
// A queue that was enabled runs, or it is suspended: its rings are not in guest memory at the moment (a machine moves
// its memory about, a client went away). It goes on from where it stood when they are there again.
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Pci;

/// <summary>One queue of a virtio PCI function.</summary>
internal sealed class PciQueue : IDisposable
{
    private int _vector = VirtioPci.NoVector;

    internal PciQueue(int index, int maxSize)
    {
        Index = index;
        MaxSize = maxSize;
        Size = maxSize;
    }

    internal int Index { get; }

    internal int MaxSize { get; }

    /// <summary>Rung by the driver, with or without a message.</summary>
    internal EventFd Doorbell { get; } = new();

    internal int Size { get; set; }

    /// <summary>The interrupt vector; read by the queue's thread.</summary>
    internal ushort Vector
    {
        get => (ushort)Volatile.Read(ref _vector);
        set => Volatile.Write(ref _vector, value);
    }

    internal ulong Descriptors { get; set; }

    internal ulong Driver { get; set; }

    internal ulong Device { get; set; }

    internal bool IsEnabled { get; set; }

    /// <summary>Where the device goes on; null for the beginning.</summary>
    internal uint? Base { get; set; }

    internal HostedQueue? Running { get; set; }

    internal VringAddresses Addresses => new(Descriptors, Driver, Device);

    public void Dispose() => Doorbell.Dispose();

    /// <summary>As after a reset. The queue does not run.</summary>
    internal void Reset()
    {
        Size = MaxSize;
        Vector = VirtioPci.NoVector;
        Descriptors = Driver = Device = 0;
        IsEnabled = false;
        Base = null;
    }

    /// <summary>Whether the rings are in guest memory.</summary>
    internal bool IsIn(GuestMemory memory, bool isPacked)
    {
        ulong size = (ulong)Size;
        (ulong driverBytes, ulong deviceBytes) = isPacked ? (4UL, 4UL) : (6 + (2 * size), 6 + (8 * size));
        return memory.TryGetWindow(Descriptors, 16 * size, out _)
            && memory.TryGetWindow(Driver, driverBytes, out _)
            && memory.TryGetWindow(Device, deviceBytes, out _);
    }
}
