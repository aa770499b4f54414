// A notification between driver and device, whatever carries it: an eventfd, a doorbell register, an interrupt vector.
using Outboard.Linux;
using Outboard.Linux.Events;

namespace Outboard.Virtio;

/// <summary>One direction of notification. A kick is waited for, a call is signalled.</summary>
public abstract class Notifier : IDisposable
{
    /// <summary>Notifies the other side. May be called from any thread; never blocks.</summary>
    public abstract void Signal();

    /// <summary>
    /// The descriptor that becomes readable with each notification; null when it cannot be waited for.
    /// </summary>
    public abstract FileDescriptor? Waitable { get; }

    /// <inheritdoc/>
    public abstract void Dispose();
}

/// <summary>A notifier on an eventfd.</summary>
public sealed class EventFdNotifier : Notifier
{
    private readonly EventFd _event;

    /// <summary>Takes ownership of an eventfd.</summary>
    public EventFdNotifier(EventFd eventFd)
    {
        ArgumentNullException.ThrowIfNull(eventFd);
        _event = eventFd;
    }

    /// <inheritdoc/>
    public override FileDescriptor? Waitable => _event.Descriptor;

    /// <inheritdoc/>
    public override void Signal() => _ = _event.Signal();

    /// <inheritdoc/>
    public override void Dispose() => _event.Dispose();
}
