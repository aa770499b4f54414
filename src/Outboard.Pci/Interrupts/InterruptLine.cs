// How an interrupt leaves the process: what a transport binds to a vector.
using Outboard.Linux.Events;

namespace Outboard.Pci.Interrupts;

/// <summary>The way of one interrupt to the guest.</summary>
public abstract class InterruptLine : IDisposable
{
    /// <summary>Interrupts. May be called from any thread; never blocks.</summary>
    public abstract void Signal();

    /// <summary>Takes back a signal that nobody has seen yet. May be called from any thread; never blocks.</summary>
    /// <returns>Whether there was one: whoever listens will not learn of it.</returns>
    public virtual bool TryWithdraw() => false;

    /// <summary>The line as an eventfd of its own, the caller's from now on; null when it is none.</summary>
    public virtual EventFd? Share() => null;

    /// <inheritdoc/>
    public abstract void Dispose();
}

/// <summary>The five groups of interrupts of a function, numbered as VFIO numbers them.</summary>
public enum InterruptKind
{
    /// <summary>The pin.</summary>
    Intx = 0,

    /// <summary>Message signalled interrupts.</summary>
    Msi = 1,

    /// <summary>MSI-X.</summary>
    Msix = 2,

    /// <summary>The device had an error that it cannot recover from.</summary>
    Error = 3,

    /// <summary>The device asks to be given back.</summary>
    Request = 4,
}

/// <summary>What became of a trigger.</summary>
public enum TriggerOutcome
{
    /// <summary>The interrupt is on its way.</summary>
    Signalled,

    /// <summary>It is masked: pending until it is unmasked.</summary>
    Held,

    /// <summary>Nobody listens to this vector.</summary>
    NotBound,

    /// <summary>The function has no such vector.</summary>
    NoSuchVector,
}
