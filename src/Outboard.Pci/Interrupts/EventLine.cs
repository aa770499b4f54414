// The usual way of an interrupt: an eventfd.
using Outboard.Linux.Events;

namespace Outboard.Pci.Interrupts;

/// <summary>An interrupt that signals an eventfd, which is owned here.</summary>
public sealed class EventLine(EventFd eventFd) : InterruptLine
{
    /// <inheritdoc/>
    public override void Signal() => _ = eventFd.Signal();

    /// <inheritdoc/>
    public override bool TryWithdraw() => eventFd.Take() > 0;

    /// <inheritdoc/>
    public override EventFd? Share() => new(eventFd.Descriptor.Duplicate());

    /// <inheritdoc/>
    public override void Dispose() => eventFd.Dispose();
}
