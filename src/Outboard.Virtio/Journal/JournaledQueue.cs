// The loop of a queue whose requests take effect exactly once: each is handled in the order of the ring, at once, and
// committed to the queue's lane before it is answered. See DeviceJournal for the order of the stores.
// Not here: requests that are completed later, or out of order.
using Outboard.Virtio.Queue;

namespace Outboard.Virtio.Journal;

/// <summary>Serves a queue by way of a journal. All members are called on the queue's thread.</summary>
public abstract class JournaledQueue : QueueHandler
{
    private readonly Virtqueue _queue;
    private bool _isSettled;
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

    /// <inheritdoc/>
    public override bool WantsChains => !_waits;

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
        while (taken < limit && !_waits && TryHandleNext())
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
            Lane.Retire();
        }

        base.Dispose();
        GC.SuppressFinalize(this);
    }

    /// <summary>
    /// Handles a request: reads it, changes state and sets a reply by <see cref="Lane"/>. Whatever else it does must
    /// come to the same when it is done again: it is, if this process is killed before the commit.
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
        if (_queue.PublishesBeforeTake)
        {
            RetirePublished();
        }

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

        Lane.Retire();
    }
}
