// What the driver needs of its device, whatever carries it: PCI inside a guest, a vfio-user socket, or nothing at all
// where the device is in the same process.
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.VirtioVhostUser.Channel;

/// <summary>A virtio-vhost-user device that a driver has taken hold of and that runs.</summary>
public abstract class DriverAccess : IAsyncDisposable
{
    /// <summary>What it is, for messages.</summary>
    public abstract string Description { get; }

    /// <summary>The features in force.</summary>
    public abstract ulong Features { get; }

    /// <summary>Rings that a front-end can have.</summary>
    public abstract int Rings { get; }

    /// <summary>Messages of the front-end. Used by one thread.</summary>
    public abstract DriverQueueLink Receive { get; }

    /// <summary>Messages to the front-end. Used by one thread.</summary>
    public abstract DriverQueueLink Transmit { get; }

    /// <summary>
    /// Signalled when a message came, one was taken, or the configuration changed; and for kicks that have no eventfd
    /// of their own.
    /// </summary>
    public abstract IReadOnlyList<EventFd> Interrupts { get; }

    /// <summary>Signalled by the front-end's kick of a ring; null when <see cref="Interrupts"/> tell it.</summary>
    public abstract EventFd? KickOf(int ring);

    /// <summary>Rings an auxiliary notification: call, error or log. From any thread; waits for nothing.</summary>
    public abstract void Ring(int notification);

    /// <summary>A shared memory region, to be disposed by the caller; null when the device has none of that number.
    /// </summary>
    public abstract SharedMemory? OpenWindow(byte region);

    /// <summary>Whether the configuration may have changed since this was asked last.</summary>
    public abstract Task<bool> HasChangedAsync(CancellationToken cancellation);

    /// <summary>Reads the status field of the configuration.</summary>
    /// <exception cref="IOException">The device is gone.</exception>
    public abstract Task<uint> ReadStatusAsync(CancellationToken cancellation);

    /// <summary>Writes the status field of the configuration.</summary>
    /// <exception cref="IOException">The device is gone.</exception>
    public abstract Task WriteStatusAsync(uint status, CancellationToken cancellation);

    /// <summary>Reads the number of the session, of a device with <c>SessionNumbers</c>.</summary>
    /// <exception cref="IOException">The device is gone, or has none.</exception>
    public virtual Task<uint> ReadSessionAsync(CancellationToken cancellation) =>
        Task.FromException<uint>(new IOException($"{Description} has no numbers of sessions"));

    /// <summary>Writes the number that is acknowledged, of a device with <c>SessionNumbers</c>.</summary>
    /// <exception cref="IOException">The device is gone, or has none.</exception>
    public virtual Task AcknowledgeSessionAsync(uint session, CancellationToken cancellation) =>
        Task.FromException(new IOException($"{Description} has no numbers of sessions"));

    /// <summary>Resets the device and lets go of it.</summary>
    public abstract ValueTask DisposeAsync();
}
