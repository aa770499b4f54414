// Asynchronous file I/O for one worker thread: operations go in by Try..., are handed over in a batch by Submit, and
// come back by Reap. Two siblings do the work: io_uring, and threads where io_uring is not allowed.
// Not here: the rest of a short read or write (the caller submits it again), guest addresses, ordering between
// operations.
using Outboard.Linux.Events;
using Outboard.Linux.Native;

namespace Outboard.Linux.Files;

/// <summary>Queues file operations and collects their completions without blocking and without allocating.</summary>
/// <remarks>
/// <para>All members are called by the thread that created the engine, except <see cref="Dispose"/>, which another
/// thread may call when that thread has ended with nothing in flight.</para>
/// <para>Operations are independent of each other: a <see cref="TryDataSync"/> covers the writes whose completions were
/// reaped before it was queued, and no others.</para>
/// <para>Results are the kernel's: a read or write may move fewer bytes than asked. The rest is the caller's to
/// queue.</para>
/// <para>Waiting: <see cref="CompletionDescriptor"/> is made for an edge-triggered <see cref="Epoll"/>. No wake-up is
/// lost by a caller who, each time it is woken and before it sleeps, calls <see cref="Reap"/> until that returns 0 (or
/// less than the span holds). For then nothing was waiting at that moment, and the first completion after it
/// signals.</para>
/// </remarks>
public abstract class FileIoEngine : IDisposable
{
    /// <summary>More operations in flight than this never helped a disk, and each slot has 16 KiB of address
    /// space.</summary>
    public const int MaxDepth = 4096;

    /// <summary>How often <see cref="Dispose"/> looks again while the kernel still works on an operation.</summary>
    private const int DrainPollMs = 100;

    private readonly Thread _creator = Thread.CurrentThread;
    private bool _disposed;

    private protected FileIoEngine(int depth) => Slots = new OperationSlots(depth);

    /// <summary><c>io_uring</c> or <c>threads</c>.</summary>
    public abstract string Name { get; }

    /// <summary>Becomes readable when completions wait. To be watched, never to be read or written by the
    /// caller.</summary>
    public FileDescriptor CompletionDescriptor => Signal.Descriptor;

    /// <summary>How many more operations can be queued now.</summary>
    public int FreeSlots => Slots.FreeCount;

    /// <summary>Operations queued, running, or completed and not reaped yet.</summary>
    public int InFlight => Slots.Count - Slots.FreeCount;

    private protected OperationSlots Slots { get; }

    /// <summary>Signalled by the first completion after <see cref="Reap"/> found none.</summary>
    private protected abstract EventFd Signal { get; }

    /// <summary>Whether the calling thread is the one that created this engine.</summary>
    private protected bool IsCreatorThread => ReferenceEquals(Thread.CurrentThread, _creator);

    /// <summary>Creates an engine for the calling thread.</summary>
    /// <param name="depth">Operations that may be in flight, 1 to <see cref="MaxDepth"/>.</param>
    /// <param name="kind">Which engine.</param>
    /// <exception cref="LinuxException">io_uring was asked for by name and the system refuses it.</exception>
    public static FileIoEngine Create(int depth, FileIoEngineKind kind = FileIoEngineKind.Automatic)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(depth);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(depth, MaxDepth);
        if (kind == FileIoEngineKind.Threads)
        {
            return new ThreadFileEngine(depth);
        }

        try
        {
            return new IoUringFileEngine(depth);
        }
        catch (LinuxException) when (kind == FileIoEngineKind.Automatic)
        {
            return new ThreadFileEngine(depth);
        }
    }

    /// <summary>Queues a read at <paramref name="offset"/>.</summary>
    /// <param name="file">An open file; it stays open until the completion is reaped.</param>
    /// <param name="segments">At most 1024; copied, but the memory they name is in use until the completion is
    /// reaped.</param>
    /// <param name="offset">Byte offset in the file.</param>
    /// <param name="tag">Comes back with the completion.</param>
    /// <returns>False when no slot is free: reap first.</returns>
    public bool TryRead(BlockFile file, ReadOnlySpan<IoSegment> segments, long offset, ulong tag) =>
        TryMove(FileOperation.Read, file, segments, offset, 0, tag);

    /// <summary>Queues a write at <paramref name="offset"/>; as <see cref="TryRead"/>.</summary>
    /// <param name="file">An open file.</param>
    /// <param name="segments">What to write.</param>
    /// <param name="offset">Byte offset in the file.</param>
    /// <param name="tag">Comes back with the completion.</param>
    /// <param name="durable">The bytes are on stable storage when the operation completes (RWF_DSYNC).</param>
    public bool TryWrite(
        BlockFile file, ReadOnlySpan<IoSegment> segments, long offset, ulong tag, bool durable = false) =>
        TryMove(FileOperation.Write, file, segments, offset, durable ? Libc.RWF_DSYNC : 0, tag);

    /// <summary>Queues an fdatasync.</summary>
    public bool TryDataSync(BlockFile file, ulong tag) => TryStart(FileOperation.DataSync, file, 0, 0, 0, tag);

    /// <summary>Queues an fallocate; block devices take it too (punch a hole, zero a range).</summary>
    public bool TryAllocate(BlockFile file, AllocateMode mode, long offset, long length, ulong tag) =>
        TryStart(FileOperation.Allocate, file, (int)mode, offset, length, tag);

    /// <summary>Hands everything that is queued to the kernel or to the threads, without waiting.</summary>
    public abstract void Submit();

    /// <summary>Takes completions, without waiting. Cheap when nothing is in flight.</summary>
    /// <returns>How many were written to <paramref name="completions"/>; fewer than it holds means that no more
    /// wait.</returns>
    public abstract int Reap(Span<FileCompletion> completions);

    /// <summary>Whether an operation is in flight whose tag has this upper half. Looks at every slot.</summary>
    // SAFETY: the index is below the number of slots.
    public unsafe bool HasInFlight(uint owner)
    {
        for (int i = 0; i < Slots.Count; i++)
        {
            if (Slots[i]->State != SlotState.Free && (uint)(Slots[i]->Tag >> 32) == owner)
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>
    /// Asks for the early end of every operation whose tag has this upper half. Each still completes: with -ECANCELED
    /// when it never began or was stopped, with its own result when it could not be.
    /// </summary>
    // SAFETY: the index is below the number of slots.
    public unsafe void Cancel(uint owner)
    {
        Submit();
        for (int i = 0; i < Slots.Count; i++)
        {
            OperationSlot* slot = Slots[i];
            if (slot->State == SlotState.InFlight && (uint)(slot->Tag >> 32) == owner)
            {
                Volatile.Write(ref *(int*)&slot->State, (int)SlotState.Cancelled);
                CancelSlot(i);
            }
        }

        Submit();
    }

    /// <summary>Lets go of a file before it is closed, with none of its operations in flight.</summary>
    /// <remarks>io_uring keeps an own reference to a file it has seen; until this call (or the engine's end) its open
    /// file description lives on, with its locks.</remarks>
    public abstract void Release(BlockFile file);

    /// <summary>Waits for what is in flight, then frees everything.</summary>
    /// <exception cref="InvalidOperationException">Operations are in flight and this is not the creator's thread: what
    /// the kernel may still read stays allocated. A bug of the caller.</exception>
    public void Dispose()
    {
        if (_disposed)
        {
            return;
        }

        _disposed = true;
        bool drained = InFlight == 0 || TryDrain();
        Close();
        if (!drained)
        {
            throw new InvalidOperationException($"{InFlight} operations in flight, and not the creator's thread");
        }

        Slots.Dispose();
        GC.SuppressFinalize(this);
    }

    /// <summary>An operation that was handed over is to end early; its slot is marked.</summary>
    private protected abstract void CancelSlot(int slot);

    /// <summary>Puts the filled slot into the queue that <see cref="Submit"/> hands over.</summary>
    private protected abstract void Enqueue(int slot, BlockFile file);

    /// <summary>Ends the machinery of the sibling; nothing is in flight, unless the caller erred.</summary>
    private protected abstract void Close();

    private bool TryDrain()
    {
        if (!IsCreatorThread)
        {
            return false;
        }

        Span<FileCompletion> dropped = stackalloc FileCompletion[16];
        Submit();
        while (InFlight > 0)
        {
            if (Reap(dropped) == 0)
            {
                _ = Signal.Wait(DrainPollMs);
            }
        }

        return true;
    }

    // SAFETY: the slot was just taken and belongs to this call; the segments fit, as was checked.
    private unsafe bool TryMove(
        FileOperation operation, BlockFile file, ReadOnlySpan<IoSegment> segments, long offset, int flags, ulong tag)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(segments.Length, OperationSlots.MaxSegments);
        int index = Slots.Take();
        if (index < 0)
        {
            return false;
        }

        OperationSlot* slot = Slots[index];
        slot->Tag = tag;
        slot->Operation = operation;
        slot->Descriptor = file.Number;
        slot->Offset = offset;
        slot->Flags = flags;
        Slots.SetSegments(index, segments);
        Enqueue(index, file);
        return true;
    }

    // SAFETY: the slot was just taken and belongs to this call.
    private unsafe bool TryStart(
        FileOperation operation, BlockFile file, int flags, long offset, long length, ulong tag)
    {
        ArgumentNullException.ThrowIfNull(file);
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        int index = Slots.Take();
        if (index < 0)
        {
            return false;
        }

        OperationSlot* slot = Slots[index];
        slot->Tag = tag;
        slot->Operation = operation;
        slot->Descriptor = file.Number;
        slot->Offset = offset;
        slot->Flags = flags;
        slot->SegmentCount = 0;
        slot->Single = new IoSegment(0, (nuint)length);
        Enqueue(index, file);
        return true;
    }
}
