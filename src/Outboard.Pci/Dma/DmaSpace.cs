// What a transport gives a function to reach guest memory. Windows that the client shared are mapped; the others are
// reached by messages, where the transport has them.
using Outboard.Memory;

namespace Outboard.Pci.Dma;

/// <summary>Which way an access to guest memory takes.</summary>
public enum DmaRoute
{
    /// <summary>Mapped memory where there is some, else messages.</summary>
    Automatic,

    /// <summary>Messages, also where memory is mapped.</summary>
    Messages,
}

/// <summary>Guest memory as a function sees it. All members may be called from any thread.</summary>
public abstract class DmaSpace
{
    /// <summary>
    /// The mapped memory that may be read and written, as an immutable snapshot. A function that keeps one beyond a
    /// call must let go of it in <see cref="PciFunction.OnMemoryChangedAsync"/>.
    /// </summary>
    public abstract GuestMemory Memory { get; }

    /// <summary>Windows that the client has announced at present.</summary>
    public abstract int WindowCount { get; }

    /// <summary>Reads guest memory; the range may span windows.</summary>
    /// <exception cref="DmaException">A byte is in no window, may not be read, or the client refused.</exception>
    public abstract ValueTask ReadAsync(
        ulong address, Memory<byte> destination, DmaRoute route = DmaRoute.Automatic,
        CancellationToken cancellation = default);

    /// <summary>Writes guest memory; the range may span windows.</summary>
    /// <exception cref="DmaException">A byte is in no window, may not be written, or the client refused.</exception>
    public abstract ValueTask WriteAsync(
        ulong address, ReadOnlyMemory<byte> source, DmaRoute route = DmaRoute.Automatic,
        CancellationToken cancellation = default);

    /// <summary>No guest memory: before a client has come, and after it has gone.</summary>
    public static DmaSpace None { get; } = new NoDmaSpace();

    private sealed class NoDmaSpace : DmaSpace
    {
        public override GuestMemory Memory => GuestMemory.Empty;

        public override int WindowCount => 0;

        public override ValueTask ReadAsync(
            ulong address, Memory<byte> destination, DmaRoute route, CancellationToken cancellation) =>
            ValueTask.FromException(new DmaException(Linux.Errno.NoEntry, address));

        public override ValueTask WriteAsync(
            ulong address, ReadOnlyMemory<byte> source, DmaRoute route, CancellationToken cancellation) =>
            ValueTask.FromException(new DmaException(Linux.Errno.NoEntry, address));
    }
}

/// <summary>An access to guest memory failed.</summary>
public sealed class DmaException(int errno, ulong address)
    : IOException($"guest address 0x{address:x}: errno {errno}")
{
    /// <summary>
    /// The error number: ENOENT for no window, EACCES for a missing permission, else the client's own.
    /// </summary>
    public int Errno { get; } = errno;

    /// <summary>Where it failed.</summary>
    public ulong Address { get; } = address;
}
