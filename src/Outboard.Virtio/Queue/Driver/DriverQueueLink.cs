// A driver's queue with its two notifications, whatever carries them. Drivers are written against this: they add to the
// ring, submit, collect, and wait, and know no transport.
namespace Outboard.Virtio.Queue.Driver;

/// <summary>A queue that a driver can use. Used by one thread.</summary>
public abstract class DriverQueueLink
{
    /// <summary>The driver's side of the ring.</summary>
    public abstract DriverQueue Ring { get; }

    /// <summary>Memory that the device sees, for the driver's buffers.</summary>
    public abstract DriverMemory Memory { get; }

    /// <summary>Publishes what was added, and kicks if the device wants that.</summary>
    public abstract void Submit();

    /// <summary>Waits until something was used.</summary>
    /// <param name="timeoutMs">-1 waits without limit.</param>
    /// <returns>False when the time ran out.</returns>
    public abstract bool WaitForUsed(int timeoutMs);
}
