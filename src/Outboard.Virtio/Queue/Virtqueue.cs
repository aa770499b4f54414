// The device's side of a virtqueue: what split and packed rings have in common. A queue is touched by one thread, its
// worker's. Chains are taken, answered in any order, and published in batches:
//
//   TryTake -> (device works) -> Complete -> ... -> Publish -> one call, if the driver wants one
//
// Each chain in flight has a slot (the index of its head descriptor or its buffer id), which holds its translated
// buffers until it is completed. A generation number in the slot makes sure that it is completed exactly once.
// In-flight tracking: see Inflight/. Dirty logging: see DirtyTracker. IOMMU, scattered rings: Virtqueue.Translation.cs.
// Return in the order of availability: Virtqueue.InOrder.cs.
using System.Runtime.CompilerServices;
using Outboard.Linux;
using Outboard.Memory;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Queue;

/// <summary>The device's side of a virtqueue.</summary>
public abstract partial class Virtqueue : IDisposable
{
    /// <summary>
    /// Longest indirect table that is followed when the queue itself is shorter. Linux drivers build tables longer than
    /// a small queue; 1024 is also the most segments that one system call takes.
    /// </summary>
    public const int MaxIndirectDescriptors = 1024;

    /// <summary>
    /// Memory for the buffers of unusually long chains, for each queue. Above it no chain is taken until others are
    /// completed, so that a guest cannot make this process grow without bound.
    /// </summary>
    public const long SegmentBudgetBytes = 8 << 20;

    /// <summary>
    /// Bytes of a chain: virtio-v1.3 "2.7.5.2 Driver Requirements: The Virtqueue Descriptor Table"; packed rings alike.
    /// </summary>
    private protected const ulong MaxChainBytes = 1UL << 32;

    private readonly SegmentTable _segments;
    private readonly ChainSlot[] _slots;
    private readonly IommuView? _view;
    private readonly int _ownerThread;
    private int _inFlight;
    private bool _isPlain;
    private bool _isDisposed;

    private protected Virtqueue(VringSetup setup)
    {
        Index = setup.Index;
        Size = setup.Size;
        Features = setup.Features;
        Addresses = setup.Addresses;
        _view = setup.Iommu is { } table ? new IommuView(table, setup.Memory, setup.Size) : null;
        Memory = _view is null ? setup.Memory : GuestMemory.Empty;
        _ownerThread = Environment.CurrentManagedThreadId;
        _segments = new SegmentTable(setup.Size);
        _slots = new ChainSlot[setup.Size];
        CreateOrder();
        _isPlain = _order is null;
    }

    /// <summary>The queue's index in its device.</summary>
    public int Index { get; }

    /// <summary>Queue size in descriptors.</summary>
    public int Size { get; }

    /// <summary>Where the ring lies.</summary>
    public VringAddresses Addresses { get; private set; }

    /// <summary>Chains taken and not completed.</summary>
    public int InFlight => _inFlight;

    /// <summary>
    /// Whether the ring was taken over from an earlier process, which may have died between a publication and its call,
    /// and the driver was not called since.
    /// </summary>
    internal bool IsTakenOver { get; set; }

    /// <summary>Chains in flight that the device gave up.</summary>
    internal int LetGoCount { get; private set; }

    /// <summary>Whether completed chains wait for <see cref="Publish"/>.</summary>
    public abstract bool HasUnpublished { get; }

    /// <summary>Whether <see cref="ShouldCall"/> has not been asked about something that was published.</summary>
    public abstract bool OwesCall { get; }

    /// <summary>
    /// Whether at least as much was published since <see cref="ShouldCall"/> was asked as waits to be taken: about half
    /// of what the driver had outstanding then. A hint.
    /// </summary>
    internal abstract bool IsHalfDone { get; }

    /// <summary>Where the device stands, as <see cref="VringSetup.Base"/>.</summary>
    public abstract uint Base { get; }

    /// <summary>Where the next chain is taken; for <see cref="PutBack"/>.</summary>
    public abstract ushort Position { get; }

    /// <summary>
    /// Whether the driver has made something available that was not taken. A hint: a look, no validation.
    /// </summary>
    public abstract bool HasAvailable { get; }

    /// <summary>Whether an in-flight region records which chains are held.</summary>
    internal abstract bool IsTracked { get; }

    /// <summary>
    /// Where the driver gets the next chain: the <see cref="Position"/> of a chain that is returned in order.
    /// </summary>
    internal abstract ushort UsedPosition { get; }

    /// <summary>Where completions from other threads are handed to the owner; set by the queue's worker.</summary>
    internal Action<PendingRequest, uint>? RemoteCompletion { get; set; }

    /// <summary>Whether nobody looks at this queue at present; set by the queue's worker.</summary>
    internal bool IsAsleep { get; set; }

    /// <summary>Called when a chain is completed while the queue is asleep: someone has to publish it.</summary>
    internal Action? Awaken { get; set; }

    private protected ulong Features { get; }

    /// <summary>Guest memory; empty behind an IOMMU, so that every translation takes the way through it.</summary>
    private protected GuestMemory Memory { get; private set; }

    /// <summary>Marks what this queue writes; null while no migration runs.</summary>
    private protected DirtyTracker? Dirty { get; private set; }

    private protected bool IsOverBudget => _segments.OverflowBytes > SegmentBudgetBytes && _inFlight > 0;

    /// <summary>Makes the queue for a ring.</summary>
    /// <exception cref="VringSetupException">Size, alignment or placement of the ring is wrong.</exception>
    public static Virtqueue Create(VringSetup setup)
    {
        ArgumentNullException.ThrowIfNull(setup);
        if (setup.Size is < 1 or > SplitRing.MaxSize)
        {
            throw new VringSetupException("num", $"queue size {setup.Size} is not from 1 to {SplitRing.MaxSize}");
        }

        bool isPacked = (setup.Features & VirtioFeatures.RingPacked) != 0;
        Virtqueue queue = isPacked ? new PackedVirtqueue(setup) : new SplitVirtqueue(setup);
        queue.SetLog(setup.Log);
        return queue;
    }

    /// <summary>Takes the next available chain.</summary>
    /// <returns>False when there is none, when the queue is faulted, or when too much is in flight.</returns>
    public abstract bool TryTake(out DescriptorChain chain);

    /// <summary>Makes completed chains visible to the driver.</summary>
    public abstract void Publish();

    /// <summary>Whether the driver wants a call for what was published since the last time this was asked.</summary>
    public abstract bool ShouldCall();

    /// <summary>Asks the driver for kicks, before the worker sleeps.</summary>
    /// <returns>True when something became available meanwhile: do not sleep.</returns>
    public abstract bool ArmKicks();

    /// <summary>Tells the driver that kicks are not needed, while the worker looks by itself.</summary>
    public abstract void SuppressKicks();

    /// <summary>Logs writes from now on, or elsewhere, or no more. Nothing may wait for publication.</summary>
    internal void SetLog(QueueLog? log)
    {
        Dirty = log is null ? null : new DirtyTracker(log, _view?.Memory ?? Memory);
        _isPlain = Dirty is null && _order is null;
        if (Dirty is { } dirty)
        {
            DirtyLog.Fence();
            if (_hasRings)
            {
                MarkWholeRing(dirty);
            }

            dirty.Tell();
        }
    }

    /// <summary>Frees the buffers' storage. Nothing may be in flight, unless the queue failed.</summary>
    public void Dispose()
    {
        if (Dirty is { } dirty && _inFlight > 0)
        {
            MarkHeld(dirty);
        }

        _isDisposed = true;
        _segments.Dispose();
        _tableCopy?.Dispose();
        CloseRings();
        GC.SuppressFinalize(this);
    }

    /// <summary>Whether an earlier process held the chain in this slot, so that it is taken again.</summary>
    internal abstract bool WillBeTakenAgain(int slot);

    /// <summary>Finds the ring in <see cref="Memory"/>.</summary>
    private protected abstract bool TryMapRings();

    /// <summary>Writes a used entry, not yet visible.</summary>
    private protected abstract void PutUsed(int slot, uint written);

    /// <summary>Where the next chain was taken after this one, taken at <paramref name="position"/>.</summary>
    private protected abstract ushort PositionAfter(int slot, ushort position);

    /// <summary>Marks the used entry that was put last. A fence stands before.</summary>
    private protected abstract void MarkUsedEntry(DirtyTracker dirty);

    /// <summary>Marks all of the ring that a device ever writes. A fence stands before.</summary>
    private protected abstract void MarkWholeRing(DirtyTracker dirty);

    /// <summary>Makes a chain the next one of the ring to be taken.</summary>
    private protected abstract void Rewind(int slot, ushort position);

    /// <summary>Makes a chain that an earlier process held one to be taken again.</summary>
    private protected abstract void Requeue(int slot);

    internal ReadOnlySpan<IoSegment> ReadableSegments(int slot)
    {
        ref readonly ChainSlot info = ref _slots[slot];
        return _segments.Segments(slot, info.ReadableStart, info.ReadableCount);
    }

    internal ReadOnlySpan<IoSegment> WritableSegments(int slot)
    {
        ref readonly ChainSlot info = ref _slots[slot];
        return _segments.Segments(slot, info.WritableStart, info.WritableCount);
    }

    internal uint Generation(int slot) => _slots[slot].Generation;

    /// <summary>Notes that a request outlives its handler's call, and gives the number that completes it.</summary>
    internal uint Detach(int slot)
    {
        _slots[slot].State |= ChainState.Detached;
        return _slots[slot].Generation;
    }

    /// <summary>Whether the request that had this generation was detached (and perhaps completed meanwhile).</summary>
    internal bool IsDetached(int slot, uint generation) =>
        (_slots[slot].State & ChainState.Detached) != 0 || _slots[slot].Generation != generation;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    internal void CheckHeld(int slot, uint generation)
    {
        ref readonly ChainSlot info = ref _slots[slot];
        if (_isDisposed || (info.State & ChainState.Held) == 0 || info.Generation != generation)
        {
            ThrowNotHeld(slot);
        }
    }

    private void ThrowNotHeld(int slot) => throw new InvariantException(
        $"queue {Index}: the request in slot {slot} was completed before, or its queue is gone");

    /// <summary>Returns a chain to the driver. On the owner's thread; from others it is handed over.</summary>
    internal void Complete(int slot, uint generation, uint written)
    {
        if (Environment.CurrentManagedThreadId != _ownerThread)
        {
            Action<PendingRequest, uint> handOver = RemoteCompletion
                ?? throw new InvariantException($"queue {Index}: completed on a foreign thread, and no worker owns it");
            handOver(new PendingRequest(this, slot, generation), written);
            return;
        }

        if (_isDisposed)
        {
            // The queue failed and was taken down with requests outstanding; nobody waits for this one any more.
            return;
        }

        CheckHeld(slot, generation);
        ref ChainSlot info = ref _slots[slot];
        ChainState state = info.State;
        info.State = ChainState.Free;
        info.Generation++;
        _inFlight--;
        if (_isPlain)
        {
            PutUsed(slot, written);
        }
        else
        {
            ReturnWatched(slot, written, state);
        }

        _segments.Release(slot);
        if (IsAsleep)
        {
            Awaken?.Invoke();
        }
    }

    /// <summary>Returns a chain of a queue that logs its writes, or returns chains in order.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private void ReturnWatched(int slot, uint written, ChainState state)
    {
        if (_order is null)
        {
            PutUsed(slot, written);
        }

        if (Dirty is { } dirty)
        {
            DirtyLog.Fence();
            MarkWritten(dirty, slot, written);
            if (_order is null)
            {
                MarkUsedEntry(dirty);
            }
        }

        if (_order is { } order)
        {
            ReturnInOrder(order, slot, written, (state & ChainState.Again) != 0);
        }
    }

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private protected bool IsHeld(int slot) => _slots[slot].State != ChainState.Free;

    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private protected bool TryAppendBuffer(
        GuestMemory memory, int slot, ulong address, uint length, ref int count, ref int hint) =>
        memory.TryAppend(address, length, _segments, slot, ref count, ref hint);

    /// <summary>
    /// Notes a chain as taken at a position: <paramref name="readable"/> segments, then the writable ones.
    /// </summary>
    [MethodImpl(MethodImplOptions.AggressiveInlining)]
    private protected DescriptorChain Hold(int slot, int readable, int total, ushort position)
    {
        ref ChainSlot info = ref _slots[slot];
        info.ReadableStart = 0;
        info.ReadableCount = readable;
        info.WritableStart = readable;
        info.WritableCount = total - readable;
        info.State = ChainState.Held;
        info.Position = position;
        info.Trailer = default;
        _inFlight++;
        return new DescriptorChain(this, slot);
    }

    /// <summary>Marks what a device wrote: the first bytes, and a trailer that was cut off.</summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private void MarkWritten(DirtyTracker dirty, int slot, long written)
    {
        ref readonly ChainSlot info = ref _slots[slot];
        dirty.MarkSegments(_segments.Segments(slot, info.WritableStart, info.WritableCount), written);
        dirty.MarkSegment(in info.Trailer, info.Trailer.Length);
    }

    /// <summary>What a failed queue holds may have been written, nobody knows how far.</summary>
    private void MarkHeld(DirtyTracker dirty)
    {
        DirtyLog.Fence();
        for (int slot = 0; slot < _slots.Length; slot++)
        {
            if ((_slots[slot].State & ChainState.Held) != 0)
            {
                MarkWritten(dirty, slot, long.MaxValue);
            }
        }

        dirty.Tell();
    }

    /// <summary>What is true of a chain.</summary>
    [Flags]
    private enum ChainState : byte
    {
        /// <summary>Nothing: the slot is free.</summary>
        Free = 0,

        /// <summary>The device has it.</summary>
        Held = 1,

        /// <summary>It outlives its handler's call.</summary>
        Detached = 2,

        /// <summary>The device gave it up.</summary>
        LetGo = 4,

        /// <summary>An earlier process held it.</summary>
        Again = 8,

        /// <summary>The device is done with it, and an older chain is not returned.</summary>
        Waiting = 16,
    }

    private struct ChainSlot
    {
        internal int ReadableStart;
        internal int ReadableCount;
        internal int WritableStart;
        internal int WritableCount;
        internal uint Generation;

        internal ChainState State;

        /// <summary>Where it was taken; the queue's position then, when an earlier process had taken it.</summary>
        internal ushort Position;

        /// <summary>What was cut off the end of the writable segments; empty for nothing.</summary>
        internal IoSegment Trailer;
    }
}
