// What a block device stores its blocks in. One disk has many queues: each virtqueue opens one, on its own thread, and
// they share nothing but the storage.
//
// The seam has three verbs: Start an operation, which ends at once or later; OnFileCompletion, by which the thread's
// I/O engine comes back to the queue; and the owner's OnDiskCompletion, by which the queue says that it is done.
using Outboard.Linux;
using Outboard.Virtio;

namespace Outboard.Devices.Block.Backends;

/// <summary>What is to be done.</summary>
public enum DiskOperationKind
{
    /// <summary>Read into the segments.</summary>
    Read,

    /// <summary>Write from the segments.</summary>
    Write,

    /// <summary>Make every write that was completed before durable.</summary>
    Flush,

    /// <summary>Forget a range; it may read as anything, and here reads as zero.</summary>
    Discard,

    /// <summary>Make a range read as zero.</summary>
    WriteZeroes,
}

/// <summary>An operation.</summary>
/// <param name="Kind">What is to be done.</param>
/// <param name="Offset">First byte.</param>
/// <param name="Length">Bytes; of the segments, or of the range.</param>
/// <param name="IsDurable">A write: it must be durable when it completes.</param>
/// <param name="MayUnmap">Write zeroes: the range may become a hole.</param>
public readonly record struct DiskOperation(
    DiskOperationKind Kind, long Offset, long Length, bool IsDurable = false, bool MayUnmap = false);

/// <summary>Who started an operation on a <see cref="DiskQueue"/>.</summary>
public interface IDiskQueueOwner
{
    /// <summary>The segments of an operation in flight: the same each time this is asked.</summary>
    ReadOnlySpan<IoSegment> Segments(uint request);

    /// <summary>An operation that was pending is done.</summary>
    /// <param name="request">The number it was started with.</param>
    /// <param name="result">0, or a negative error number.</param>
    void OnDiskCompletion(uint request, int result);
}

/// <summary>Storage for a block device.</summary>
public abstract class Disk : IDisposable
{
    /// <summary>Bytes; a multiple of 512. May change by <see cref="RefreshSize"/>.</summary>
    public abstract long SizeBytes { get; }

    /// <summary>What offsets and lengths must be multiples of; 512 or more.</summary>
    public virtual int BlockSize => 512;

    /// <summary>The storage's own block size, as a hint; at least <see cref="BlockSize"/>.</summary>
    public virtual int PhysicalBlockSize => BlockSize;

    /// <summary>Whether writes are refused.</summary>
    public virtual bool IsReadOnly => false;

    /// <summary>A line that tells what this is, for logs.</summary>
    public abstract string Description { get; }

    /// <summary>Opens a queue, on the thread that will use it.</summary>
    /// <param name="context">The thread's context.</param>
    /// <param name="owner">Who starts operations and hears of their end.</param>
    /// <param name="depth">Most operations in flight; request numbers are below it.</param>
    public abstract DiskQueue OpenQueue(IoContext context, IDiskQueueOwner owner, int depth);

    /// <summary>Reads the storage's size again.</summary>
    /// <returns>The size in bytes.</returns>
    public virtual long RefreshSize() => SizeBytes;

    /// <summary>Makes every completed write durable, waiting. On the control plane.</summary>
    /// <returns>0, or a negative error number.</returns>
    public virtual int Flush() => 0;

    /// <summary>
    /// Makes sure that nobody else uses the storage in a way that would harm, before it is used (again). May wait a
    /// little for whoever is about to let go of it.
    /// </summary>
    /// <exception cref="IOException">Somebody does.</exception>
    public virtual Task AcquireAsync() => Task.CompletedTask;

    /// <summary>Lets go of the storage, whose every completed write was flushed. Nothing is in flight.</summary>
    public virtual void Release()
    {
    }

    /// <summary>Closes the storage. No queue is open.</summary>
    public abstract void Dispose();
}

/// <summary>One thread's access to a disk. All members are called on that thread.</summary>
public abstract class DiskQueue : IDisposable
{
    /// <summary>The operation goes on; <see cref="IDiskQueueOwner.OnDiskCompletion"/> will tell.</summary>
    public const int Pending = int.MinValue;

    /// <summary>Starts an operation.</summary>
    /// <param name="request">Its number, unique among the operations in flight.</param>
    /// <param name="operation">What to do. Range and alignment have been checked.</param>
    /// <param name="segments">The memory; see <see cref="IDiskQueueOwner.Segments"/>.</param>
    /// <returns>0 when it is done, a negative error number when it failed, or <see cref="Pending"/>.</returns>
    public abstract int Start(uint request, in DiskOperation operation, ReadOnlySpan<IoSegment> segments);

    /// <summary>A file operation with this request's tag is done.</summary>
    public virtual void OnFileCompletion(uint request, int result)
    {
    }

    /// <summary>Whether operations wait that could not be started, for want of room.</summary>
    public virtual bool HasBacklog => false;

    /// <summary>Starts what waits, as far as there is room now.</summary>
    public virtual void Retry()
    {
    }

    /// <summary>Closes the queue. Nothing is in flight.</summary>
    public virtual void Dispose() => GC.SuppressFinalize(this);
}
