// The other side of waist 2: a PCI function as a driver sees it, whoever serves it and by whatever transport. Drivers
// are written against this, and know no protocol.
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Pci.Bars;
using Outboard.Pci.Interrupts;

namespace Outboard.Pci.Driver;

/// <summary>A PCI function that a driver has taken hold of. All members may be called from any thread.</summary>
public abstract class PciHandle
{
    /// <summary>The region number of the configuration space; BARs have their own, 0 to 5, and 6 is the ROM.</summary>
    public const int Config = 7;

    /// <summary>Reads a region.</summary>
    /// <exception cref="IOException">The function refuses, or nobody serves it any more.</exception>
    public abstract Task ReadAsync(int region, ulong offset, Memory<byte> destination, CancellationToken cancellation);

    /// <summary>Writes a region, and waits until the write has taken effect.</summary>
    /// <exception cref="IOException">The function refuses, or nobody serves it any more.</exception>
    public abstract Task WriteAsync(
        int region, ulong offset, ReadOnlyMemory<byte> source, CancellationToken cancellation);

    /// <summary>Writes a region without waiting: a doorbell. A refusal is not heard of.</summary>
    public abstract void Post(int region, ulong offset, ReadOnlySpan<byte> source);

    /// <summary>
    /// Binds eventfds to vectors, one after another from <paramref name="start"/> on; null lets go of all of a kind.
    /// The eventfds stay the caller's.
    /// </summary>
    public abstract Task BindAsync(
        InterruptKind kind, int start, IReadOnlyList<EventFd>? events, CancellationToken cancellation);

    /// <summary>How many vectors of a kind there are.</summary>
    public abstract Task<int> CountVectorsAsync(InterruptKind kind, CancellationToken cancellation);

    /// <summary>Lets the function reach memory at a guest address.</summary>
    public abstract Task MapAsync(
        ulong guestAddress, FileSharedMemory memory, ulong offset, ulong sizeBytes, CancellationToken cancellation);

    /// <summary>Takes memory away. When the task ends the function does not use it any more.</summary>
    public abstract Task UnmapAsync(ulong guestAddress, ulong sizeBytes, CancellationToken cancellation);

    /// <summary>
    /// The doorbells of a BAR that can be rung by eventfds; empty when it has none. The caller disposes the eventfds.
    /// </summary>
    public abstract Task<IReadOnlyList<PciDoorbell>> OpenDoorbellsAsync(int bar, CancellationToken cancellation);

    /// <summary>A part of a BAR that this process can map: a window onto memory of somebody else.</summary>
    /// <param name="bar">The BAR.</param>
    /// <param name="offset">First byte of the part.</param>
    /// <param name="sizeBytes">Bytes.</param>
    /// <exception cref="IOException">It cannot be mapped.</exception>
    public virtual SharedMemory OpenWindow(int bar, ulong offset, ulong sizeBytes) =>
        throw new IOException($"BAR {bar} cannot be mapped");

    /// <summary>Ends when nobody serves the function any more, which most handles never find out by themselves.
    /// </summary>
    public virtual Task WaitForLossAsync(CancellationToken cancellation) =>
        Task.Delay(Timeout.InfiniteTimeSpan, cancellation);

    /// <summary>Resets the function.</summary>
    public abstract Task ResetAsync(CancellationToken cancellation);
}
