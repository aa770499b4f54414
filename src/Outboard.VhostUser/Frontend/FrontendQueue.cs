// A queue that a front-end runs: the driver's ring, and the two eventfds that belong to it.
using Outboard.Linux.Events;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.VhostUser.Frontend;

/// <summary>A queue in use by a front-end.</summary>
public sealed class FrontendQueue : IDisposable
{
    internal FrontendQueue(SplitDriverQueue ring, DriverMemory memory)
    {
        Ring = ring;
        Memory = memory;
    }

    /// <summary>The driver's side of the ring.</summary>
    public SplitDriverQueue Ring { get; }

    /// <summary>The memory that holds the ring.</summary>
    public DriverMemory Memory { get; }

    /// <summary>Driver to device.</summary>
    public EventFd Kick { get; } = new();

    /// <summary>Device to driver.</summary>
    public EventFd Call { get; } = new();

    /// <summary>Publishes what was added, and kicks if the device wants that.</summary>
    public void Submit()
    {
        Ring.Publish();
        if (Ring.ShouldKick())
        {
            Kick.Signal();
        }
    }

    /// <summary>Waits until something was used.</summary>
    /// <returns>False when the time ran out.</returns>
    public bool WaitForUsed(int timeoutMs)
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

    /// <summary>Closes the eventfds. The device has stopped the ring.</summary>
    public void Dispose()
    {
        Kick.Dispose();
        Call.Dispose();
    }
}
