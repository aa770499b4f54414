// Where a queue finds its ring and the tables of its chains: in one region (the usual case, which is not here), over
// several regions, or behind an IOMMU.
//
// Behind an IOMMU a queue has no guest memory of its own: every buffer comes here. When translations are missing the
// queue waits: it takes nothing, says what it needs, and goes on when that has come. Its thread waits for nobody.
// Ring areas are translated as well. A queue whose ring is not translated, or whose translation was withdrawn, is
// closed: it touches no ring until it has been opened (again).
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Virtio.Spec;

namespace Outboard.Virtio.Queue;

public abstract partial class Virtqueue
{
    private readonly List<IoSegment> _pieces = [];
    private readonly List<(ulong Start, ulong Last)> _areas = [];
    private List<StitchedMapping> _stitched = [];
    private AlignedBuffer? _tableCopy;
    private VirtqueueFault _fault;
    private bool _hasRings;
    private bool _hasBegun;
    private bool _waits;
    private bool _isOutside;
    private ushort _waitedAt;

    /// <summary>Why the queue is parked, or <see cref="VirtqueueFault.None"/>.</summary>
    public VirtqueueFault Fault
    {
        get => _fault;
        private protected set
        {
            _fault = value;
            UpdateBlocked();
        }
    }

    /// <summary>Told, on the queue's thread, what the queue waits for.</summary>
    internal Action<IReadOnlyList<IovaMiss>>? Untranslated { get; set; }

    /// <summary>Told, on the queue's thread, what the IOMMU does not allow; the queue is faulted.</summary>
    internal Action<IovaMiss>? AccessFailed { get; set; }

    /// <summary>Whether the queue waits for translations. From any thread.</summary>
    internal bool WaitsForTranslation => _view is { Waits: true };

    /// <summary>Whether the ring's translation was withdrawn, so that it has to be opened again.</summary>
    internal bool IsClosed => !_hasRings && !_waits && _fault == VirtqueueFault.None;

    /// <summary>Whether the ring was opened once: where the device goes on is known.</summary>
    internal bool HasBegun => _hasBegun;

    /// <summary>Whether the ring must not be touched or nothing can be taken: a fault, or translations are missing.
    /// </summary>
    private protected bool IsBlocked { get; private set; } = true;

    /// <summary>Adopts another memory snapshot. Nothing may be in flight whose buffers it lacks.</summary>
    /// <param name="memory">The snapshot.</param>
    /// <param name="moved">Where the ring lies in it, when that has changed.</param>
    /// <returns>False when the ring is not in the new memory; the queue is faulted then.</returns>
    public bool TryAdopt(GuestMemory memory, VringAddresses? moved = null)
    {
        Addresses = moved ?? Addresses;
        Dirty = Dirty?.With(memory);
        if (_view is null)
        {
            Memory = memory;
        }
        else
        {
            _view.Memory = memory;
            if (_inFlight > 0)
            {
                // Nothing of the old memory goes away, so the ring stays where it is.
                return true;
            }

            EndWait();
        }

        if (TryOpenRings() || _waits)
        {
            return true;
        }

        Fault = VirtqueueFault.RingOutsideMemory;
        return false;
    }

    /// <summary>Asks (again) for what the queue waits for.</summary>
    internal void AskForTranslations()
    {
        if (_waits)
        {
            Untranslated?.Invoke(_view!.Misses);
        }
    }

    /// <summary>A translation has arrived.</summary>
    internal void OnTranslated(in IommuEntry entry)
    {
        if (!_waits)
        {
            return;
        }

        _view!.Deliver(entry);
        if (_view.Misses.Count == 0)
        {
            EndWait();
            Reopen();
        }
    }

    /// <summary>The front-end will not translate a page.</summary>
    internal void OnTranslationRefused(IovaMiss page)
    {
        if (_waits && _view!.IsMissing(page))
        {
            Deny();
        }
    }

    /// <summary>Opens a ring that is closed.</summary>
    internal void Reopen()
    {
        if (IsClosed && !TryOpenRings() && !_waits)
        {
            Fault = VirtqueueFault.RingOutsideMemory;
        }
    }

    /// <summary>
    /// Forgets translations of a range that was withdrawn from the table.
    /// </summary>
    /// <returns>Whether something in flight, or the ring itself, still uses it.</returns>
    internal bool IsUsing(ulong start, ulong last)
    {
        if (_view is null)
        {
            return false;
        }

        _view.Forget(start, last);
        if (IsRingIn(start, last))
        {
            return _inFlight > 0 || HasUnpublished || OwesCall;
        }

        for (int slot = 0; slot < _slots.Length && _inFlight > 0; slot++)
        {
            if ((_slots[slot].State & ChainState.Held) != 0 && _view.IsUsing(slot, start, last))
            {
                return true;
            }
        }

        return false;
    }

    /// <summary>Lets go of a range that nothing uses any more; a ring that lies there is closed.</summary>
    internal void Withdraw(ulong start, ulong last)
    {
        if (IsRingIn(start, last))
        {
            bool hadMore = HasAvailable;
            CloseRings();
            if (hadMore)
            {
                // Nobody will kick for what is in the ring already.
                Reopen();
            }
        }
    }

    /// <summary>Opens the ring at the start; behind an IOMMU the queue may have to wait for that.</summary>
    /// <exception cref="VringSetupException">It is not in memory, or cannot be served.</exception>
    private protected void OpenAtStart(string areas)
    {
        if (!TryOpenRings() && !_waits)
        {
            Dispose();
            throw new VringSetupException(
                "addr", $"the ring of queue {Index} is misaligned, not in guest memory, or scattered over pages that " +
                $"cannot be mapped side by side ({areas})");
        }
    }

    /// <summary>Finds a ring area. Where it is scattered, its pages are mapped a second time side by side.</summary>
    private protected bool TryMap(ulong address, uint length, MemoryAccess access, out MemoryWindow window)
    {
        if (_view is null && Memory.TryGetWindow(address, length, out window))
        {
            return true;
        }

        window = default;
        _pieces.Clear();
        _areas.Add((address, address + length - 1));
        if (!TryGather(address, length, access))
        {
            _isOutside |= _view is not { Outcome: IommuOutcome.Missing };
            return false;
        }

        if (_pieces.Count == 1)
        {
            window = MemoryWindow.Of(_pieces[0]);
            return true;
        }

        if (StitchedMapping.TryCreate(CollectionsMarshal.AsSpan(_pieces)) is not { } stitched)
        {
            _isOutside = true;
            return false;
        }

        _stitched.Add(stitched);
        window = MemoryWindow.Of(stitched.Segment);
        return true;
    }

    /// <summary>Finds an indirect table. Where it is scattered it is copied; it is read once anyway.</summary>
    private protected VirtqueueFault OpenTable(ulong address, uint length, out MemoryWindow window)
    {
        if (Memory.TryGetWindow(address, length, out window))
        {
            return VirtqueueFault.None;
        }

        _pieces.Clear();
        if (!TryGather(address, length, MemoryAccess.Read))
        {
            return _view is { Outcome: IommuOutcome.Missing }
                ? VirtqueueFault.Untranslated
                : VirtqueueFault.IndirectTableOutsideMemory;
        }

        if (_pieces.Count == 1)
        {
            window = MemoryWindow.Of(_pieces[0]);
            return VirtqueueFault.None;
        }

        _tableCopy ??= new AlignedBuffer(
            Math.Max(Size, MaxIndirectDescriptors) * (long)SplitRing.DescriptorBytes);
        IoSegment copy = _tableCopy.Segment.Slice(0, length);
        Scatter.CopyTo(CollectionsMarshal.AsSpan(_pieces), 0, copy.Span);
        window = MemoryWindow.Of(copy);
        return VirtqueueFault.None;
    }

    /// <summary>Why a buffer could not be appended to a slot that has <paramref name="count"/> segments.</summary>
    private protected VirtqueueFault WhyNot(int count) => _view?.Outcome switch
    {
        IommuOutcome.Missing => VirtqueueFault.Untranslated,
        IommuOutcome.OutsideMemory => VirtqueueFault.BufferOutsideMemory,
        IommuOutcome.TooManyPieces => VirtqueueFault.ChainTooLong,
        _ => count < SegmentTable.MaxSegments ? VirtqueueFault.BufferOutsideMemory : VirtqueueFault.ChainTooLong,
    };

    /// <summary>
    /// Waits for what was found missing: nothing is taken until it has come. When it has come meanwhile nothing waits.
    /// </summary>
    private protected void Wait()
    {
        if (_hasRings && _waitedAt != Position)
        {
            _waitedAt = Position;
            _view!.ForgetKept();
        }

        if (_view!.TryWait())
        {
            _waits = true;
            UpdateBlocked();
            Untranslated?.Invoke(_view.Misses);
        }
    }

    /// <summary>The ring is there for the first time: reads from it where the device goes on.</summary>
    private protected abstract void Begin();

    private bool TryGather(ulong address, uint length, MemoryAccess access) => _view is null
        ? Memory.TryGather(address, length, _pieces)
        : _view.TryGather(address, length, access, _pieces);

    /// <summary>Opens the ring.</summary>
    /// <returns>False when the queue waits for translations, or when the ring is nowhere.</returns>
    private bool TryOpenRings()
    {
        while (true)
        {
            List<StitchedMapping> old = _stitched;
            _stitched = [];
            _areas.Clear();
            _isOutside = false;
            _hasRings = TryMapRings();
            old.ForEach(static mapping => mapping.Dispose());
            if (_hasRings)
            {
                return TryBegin();
            }

            UpdateBlocked();
            if (_isOutside || _view is not { Misses.Count: > 0 })
            {
                return false;
            }

            Wait();
            if (_waits)
            {
                return false;
            }
        }
    }

    private bool TryBegin()
    {
        UpdateBlocked();
        if (_hasBegun)
        {
            return true;
        }

        _hasBegun = true;
        if (_view is null)
        {
            Begin();
            return true;
        }

        try
        {
            Begin();
            return true;
        }
        catch (VringSetupException)
        {
            // Found late, when no request is there any more that could be refused.
            Fault = VirtqueueFault.RingUnusable;
            return true;
        }
    }

    private void CloseRings()
    {
        _hasRings = false;
        UpdateBlocked();
        _areas.Clear();
        _stitched.ForEach(static mapping => mapping.Dispose());
        _stitched.Clear();
    }

    private bool IsRingIn(ulong start, ulong last)
    {
        foreach ((ulong areaStart, ulong areaLast) in _areas)
        {
            if (_hasRings && areaStart <= last && areaLast >= start)
            {
                return true;
            }
        }

        return false;
    }

    private void Deny()
    {
        IovaMiss denied = _view!.Denied;
        EndWait();
        Fault = VirtqueueFault.TranslationRefused;
        AccessFailed?.Invoke(denied);
    }

    private void EndWait()
    {
        if (_waits)
        {
            _waits = false;
            _view!.EndWait();
            UpdateBlocked();
        }
    }

    private void UpdateBlocked() => IsBlocked = _fault != VirtqueueFault.None || _waits || !_hasRings;

    /// <summary>
    /// After <see cref="TryAppendBuffer"/> failed: translates by the IOMMU, if there is one. What it lacks is noted,
    /// and the chain followed to its end, so that everything that is missing is asked for at once.
    /// </summary>
    [MethodImpl(MethodImplOptions.NoInlining)]
    private protected VirtqueueFault Translate(
        int slot, ulong address, uint length, bool isWritable, ref int count, ref bool isUntranslated)
    {
        MemoryAccess access = isWritable ? MemoryAccess.Write : MemoryAccess.Read;
        if (_view is not null && _view.TryAppend(address, length, access, _segments, slot, ref count))
        {
            return VirtqueueFault.None;
        }

        VirtqueueFault fault = WhyNot(count);
        if (fault != VirtqueueFault.Untranslated)
        {
            return fault;
        }

        isUntranslated = true;
        return VirtqueueFault.None;
    }

    /// <summary>A chain while it is followed.</summary>
    private protected struct Walk
    {
        internal int Slot;

        /// <summary>Segments so far.</summary>
        internal int Count;

        /// <summary>Segments that are readable; -1 until the first writable descriptor.</summary>
        internal int Readable;

        /// <summary>Bytes of all buffers so far.</summary>
        internal ulong Bytes;

        internal int Hint;

        /// <summary>Whether a buffer is not translated yet.</summary>
        internal bool IsUntranslated;
    }
}
