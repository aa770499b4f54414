// The loop of a queue whose requests take effect exactly once: each is committed to the queue's lane before it is
// answered. See DeviceJournal for the order of the stores.
//
// A request is handled at once, in the order of the ring; or it is kept open (Defer) and takes effect later (Finish),
// many of them at a time and in any order. What an open request is, is written nowhere but in the ring: it has had no
// effect, and after a kill it is taken again. Its effect is one step, on the queue's thread, at its end: it reads the
// state as it is then, so that requests take effect in the order in which they are finished.
//
// A ring without an in-flight region says which requests it still holds by their order alone: there one is open at a
// time. With IN_ORDER a finished request may wait for an older one; its entry stays until it is returned.
//
// Not here: a note of what an open request has begun outside. A device whose requests do something there that is not
// the same when it is done again keeps to the order of the ring, as ConsoleTransmitQueue does.
using Outboard.Virtio.Queue;

namespace Outboard.Virtio.Journal;

/// <summary>Serves a queue by way of a journal. All members are called on the queue's thread.</summary>
public abstract class JournaledQueue : QueueHandler
{
    private readonly Virtqueue _queue;
    private OpenRequest[] _open = [];
    private bool _isSettled;
    private bool _isDeferred;
    private bool _waits;

    /// <param name="queue">The queue, no larger than the journal's entries.</param>
    /// <param name="lane">The queue's lane.</param>
    protected JournaledQueue(Virtqueue queue, JournalLane lane)
    {
        ArgumentNullException.ThrowIfNull(queue);
        ArgumentNullException.ThrowIfNull(lane);
        _queue = queue;
        Lane = lane;
    }

    /// <summary>The queue's state.</summary>
    protected JournalLane Lane { get; }

    /// <summary>Requests that are open.</summary>
    protected int OpenCount { get; private set; }

    /// <inheritdoc/>
    public override bool WantsChains => !_waits && HasRoom;

    private bool HasRoom => OpenCount == 0 || _queue.IsTracked;

    /// <inheritdoc/>
    public sealed override int Drain(int limit)
    {
        _waits = false;
        if (!TrySettle())
        {
            return 0;
        }

        RetirePublished();
        int taken = 0;
        while (taken < limit && WantsChains && TryHandleNext())
        {
            taken++;
        }

        return taken;
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        if (_isSettled && !_queue.HasUnpublished)
        {
            Lane.Retire(_queue);
        }

        base.Dispose();
        GC.SuppressFinalize(this);
    }

    /// <summary>
    /// Handles a request: reads it, changes state and sets a reply by <see cref="Lane"/>; or keeps it open, by
    /// <see cref="Defer"/> and nothing else. Whatever else it does must come to the same when it is done again: it is,
    /// if this process is killed before the commit.
    /// </summary>
    /// <returns>
    /// False when it cannot be done now, and has changed nothing: the chain stays in the ring until
    /// <see cref="QueueContext.Wake"/>.
    /// </returns>
    protected abstract bool TryHandle(scoped in DescriptorChain chain);

    /// <summary>The request has taken effect. What is done here is lost, and not done twice, in a kill.</summary>
    protected virtual void OnCommitted(scoped in DescriptorChain chain)
    {
    }

    /// <summary>
    /// Keeps the request that is being handled open: it takes effect when <see cref="Finish"/> is called for its slot.
    /// A queue that is stopping, or whose memory is changing, waits for that (<see cref="QueueHandler.Quiesce"/>).
    /// </summary>
    /// <returns>The request's slot, which stands for it until it is finished.</returns>
    protected int Defer(scoped in DescriptorChain chain)
    {
        if (_open.Length == 0)
        {
            _open = new OpenRequest[_queue.Size];
        }

        _isDeferred = true;
        OpenCount++;
        _open[chain.Slot] = new OpenRequest(chain.Detach(), IsOpen: true);
        return chain.Slot;
    }

    /// <summary>An open request takes effect, and is answered. On the queue's thread.</summary>
    /// <param name="slot">What <see cref="Defer"/> gave.</param>
    /// <exception cref="InvariantException">No request is open there.</exception>
    protected void Finish(int slot)
    {
        if ((uint)slot >= (uint)_open.Length || !_open[slot].IsOpen)
        {
            throw new InvariantException($"queue {_queue.Index}: no request is open in slot {slot}");
        }

        OpenRequest open = _open[slot];
        _open[slot] = default;
        OpenCount--;
        Lane.Begin();
        TakeEffect(open.Request);
        ReadOnlySpan<byte> reply = Lane.Commit(slot, open.Position);
        open.Request.Complete((uint)open.Request.Writable.CopyFrom(0, reply));
    }

    /// <summary>
    /// An open request is being finished: as <see cref="TryHandle"/>, which the device does not refuse any more.
    /// </summary>
    protected virtual void TakeEffect(PendingRequest request) =>
        throw new InvariantException("a device that keeps requests open says how they take effect");

    private bool TrySettle()
    {
        if (!_isSettled && _queue.HasBegun)
        {
            Lane.Settle(_queue);
            _isSettled = true;
        }

        return _isSettled;
    }

    private bool TryHandleNext()
    {
        ushort position = _queue.Position;
        if (!_queue.TryTake(out DescriptorChain chain))
        {
            return false;
        }

        if (Lane.TryReplay(chain.Slot, position, out ReadOnlySpan<byte> reply))
        {
            chain.Complete((uint)chain.Writable.CopyFrom(0, reply));
            return true;
        }

        Lane.Begin();
        if (!TryHandle(in chain))
        {
            Lane.Abandon();
            _queue.PutBack(chain.Detach(), position);
            _waits = true;
            return false;
        }

        if (_isDeferred)
        {
            _isDeferred = false;
            Lane.Abandon();
            _open[chain.Slot] = _open[chain.Slot] with { Position = position };
            return true;
        }

        reply = Lane.Commit(chain.Slot, position);
        OnCommitted(in chain);
        chain.Complete((uint)chain.Writable.CopyFrom(0, reply));
        return true;
    }

    /// <summary>
    /// Between a publication and the next chain: the driver may use a slot again as soon as it sees it returned.
    /// </summary>
    private void RetirePublished()
    {
        if (_queue.HasUnpublished)
        {
            _queue.Publish();
        }

        Lane.Retire(_queue);
    }

    private readonly record struct OpenRequest(PendingRequest Request, bool IsOpen)
    {
        internal ushort Position { get; init; }
    }
}
