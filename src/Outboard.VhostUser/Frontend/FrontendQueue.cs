// A queue that a front-end runs: the driver's ring, and the two eventfds that belong to it.
using Outboard.Linux.Events;
using Outboard.VhostUser.Channel;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.VhostUser.Frontend;

/// <summary>A queue in use by a front-end.</summary>
public sealed class FrontendQueue : DriverQueueLink, IDisposable
{
    /// <summary>Makes a queue of a ring that exists, for <see cref="VhostUserFrontend.ResumeQueueAsync"/>.</summary>
    public FrontendQueue(DriverQueue ring, DriverMemory memory)
    {
        Ring = ring;
        Memory = memory;
    }

    /// <inheritdoc/>
    public override DriverQueue Ring { get; }

    /// <summary>The memory that holds the ring.</summary>
    public override DriverMemory Memory { get; }

    /// <summary>Driver to device.</summary>
    public EventFd Kick { get; } = new();

    /// <summary>The page that the device wants to be told by, when it has offered one.</summary>
    internal DoorbellPages Doorbell { get; set; } = new();

    /// <summary>Device to driver.</summary>
    public EventFd Call { get; } = new();

    /// <inheritdoc/>
    public override void Submit()
    {
        Ring.Publish();
        if (Ring.ShouldKick() && !Doorbell.TryRing(Ring.Index))
        {
            SignalKick();
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

    /// <summary>How the device is kicked when no eventfd was given to it.</summary>
    internal RepeatedExchange? KickByMessage { get; set; }

    /// <summary>Kicks the device, whether it wants that or not.</summary>
    internal void SignalKick()
    {
        if (KickByMessage is { } exchange)
        {
            exchange.Request();
        }
        else
        {
            Kick.Signal();
        }
    }

    /// <summary>Closes the eventfds. The device has stopped the ring.</summary>
    public void Dispose()
    {
        Kick.Dispose();
        Call.Dispose();
    }
}
