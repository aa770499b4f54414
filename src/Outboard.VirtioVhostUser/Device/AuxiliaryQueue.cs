// A queue that is nothing but two notifications: the driver's kick of it is a doorbell, which signals the front-end's
// call (or error, or log) notifier; and the front-end's kick of a ring calls the driver on it. Its ring stays empty.
//
// The notifiers are used and closed on the queue's own thread only, so ringing a doorbell takes no lock; whoever
// changes them leaves the new ones with the slot and has the queue adopt them. While the queue does not run they wait
// in the slot, which rings doorbells itself then, for drivers that have them apart from queues; and a thread looks for
// kicks for such a driver (KickWatch). A doorbell without a notifier does nothing, and the front-end's kick is not
// looked at (nor lost: its count stays in the eventfd) until it was handed over.
using Outboard.Linux;
using Outboard.Virtio;
using Outboard.Virtio.Queue;

namespace Outboard.VirtioVhostUser.Device;

/// <summary>The notifiers of one auxiliary queue, whether it runs or not. From any thread.</summary>
/// <param name="ring">The ring that the queue belongs to.</param>
/// <param name="watch">Who waits for kicks that no queue waits for; null while that is nobody.</param>
internal sealed class AuxiliarySlot(int ring, Func<KickWatch?> watch) : IDisposable
{
    private readonly Lock _lock = new();
    private AuxiliaryQueue? _queue;
    private Change _doorbell;
    private Change _kick;
    private KickWatch? _watched;

    /// <summary>What the driver's doorbell signals from now on; owned by this slot. Null is a dead doorbell.</summary>
    internal void SetDoorbell(Notifier? target) => Set(ref _doorbell, target);

    /// <summary>What calls the driver from now on; owned by this slot.</summary>
    internal void SetKick(Notifier? source)
    {
        lock (_lock)
        {
            EndWatch();
            Set(ref _kick, source);
            if (_queue is null && source?.Waitable is { } waitable)
            {
                _watched = watch();
                _watched?.Begin(ring, waitable);
            }
        }
    }

    /// <summary>A driver rings the doorbell by other means than the queue. From any thread, at once.</summary>
    internal void Ring()
    {
        lock (_lock)
        {
            _doorbell.Notifier?.Signal();
        }
    }

    internal void Attach(AuxiliaryQueue queue)
    {
        lock (_lock)
        {
            _queue = queue;
            EndWatch();
        }
    }

    /// <summary>The queue stops: what it used waits here, unless something newer does.</summary>
    internal void Detach(AuxiliaryQueue queue, Notifier? doorbell, Notifier? kick)
    {
        lock (_lock)
        {
            if (_queue == queue)
            {
                _queue = null;
            }

            Return(ref _doorbell, doorbell);
            Return(ref _kick, kick);
        }
    }

    /// <summary>What the queue is to use, if that has changed.</summary>
    internal (bool HasDoorbell, Notifier? Doorbell, bool HasKick, Notifier? Kick) Take()
    {
        lock (_lock)
        {
            (Change doorbell, Change kick) = (_doorbell, _kick);
            (_doorbell, _kick) = (default, default);
            return (doorbell.IsPending, doorbell.Notifier, kick.IsPending, kick.Notifier);
        }
    }

    public void Dispose()
    {
        SetDoorbell(null);
        SetKick(null);
    }

    private static void Return(ref Change change, Notifier? notifier)
    {
        if (change.IsPending)
        {
            notifier?.Dispose();
        }
        else if (notifier is not null)
        {
            change = new Change(true, notifier);
        }
    }

    private void EndWatch()
    {
        _watched?.End(ring);
        _watched = null;
    }

    private void Set(ref Change change, Notifier? notifier)
    {
        lock (_lock)
        {
            change.Notifier?.Dispose();
            change = new Change(true, notifier);
            _queue?.Adopt();
        }
    }

    private readonly record struct Change(bool IsPending, Notifier? Notifier);
}

/// <summary>Serves one auxiliary queue.</summary>
internal sealed class AuxiliaryQueue : QueueHandler
{
    private readonly AuxiliarySlot _slot;
    private readonly QueueContext _context;
    private readonly Virtqueue _queue;
    private Notifier? _doorbell;
    private Notifier? _kick;

    internal AuxiliaryQueue(AuxiliarySlot slot, QueueContext context)
    {
        _slot = slot;
        _context = context;
        _queue = context.Queue;
        slot.Attach(this);
        AdoptNow();
    }

    /// <summary>Nothing is ever expected in the ring; what is found there goes back.</summary>
    public override int Drain(int limit)
    {
        int taken = 0;
        while (taken < limit && _queue.TryTake(out DescriptorChain chain))
        {
            taken++;
            chain.Complete(0);
        }

        return taken;
    }

    public override void OnKick() => _doorbell?.Signal();

    public override void OnReady() => _context.CallDriver();

    /// <summary>Has the queue use what waits in the slot. From any thread.</summary>
    internal void Adopt() => _context.Post(AdoptNow);

    public override void Dispose()
    {
        // Its watch has ended with the queue.
        _slot.Detach(this, _doorbell, _kick);
        base.Dispose();
    }

    private void AdoptNow()
    {
        (bool hasDoorbell, Notifier? doorbell, bool hasKick, Notifier? kick) = _slot.Take();
        if (hasDoorbell)
        {
            _doorbell?.Dispose();
            _doorbell = doorbell;
        }

        if (hasKick)
        {
            if (_kick?.Waitable is { } old)
            {
                _context.EndWatch(old);
            }

            _kick?.Dispose();
            _kick = kick;
            if (kick?.Waitable is { } waitable)
            {
                TryWatch(waitable);
            }
        }
    }

    /// <summary>What cannot be waited for never kicks: the front-end has itself to blame.</summary>
    private void TryWatch(FileDescriptor waitable)
    {
        try
        {
            _context.Watch(waitable);
        }
        catch (IOException)
        {
            // Nothing is watched then.
        }
    }
}
