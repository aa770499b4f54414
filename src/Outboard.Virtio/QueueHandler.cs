// What serves one queue while it runs. All members are called on the queue's thread.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Files;
using Outboard.Virtio.Queue;

namespace Outboard.Virtio;

/// <summary>What a handler gets to work with.</summary>
public sealed class QueueContext : IoContext
{
    private readonly QueueWorker _worker;
    private readonly RunningQueue _running;
    private readonly Action<Action> _post;
    private readonly List<(FileDescriptor Original, FileDescriptor Own)> _watched = [];

    internal QueueContext(Virtqueue queue, QueueWorker worker, RunningQueue running, Action<Action> post)
    {
        Queue = queue;
        _worker = worker;
        _running = running;
        _post = post;
        TagPrefix = (ulong)running.Id << 32;
    }

    /// <summary>The queue.</summary>
    public Virtqueue Queue { get; }

    /// <inheritdoc/>
    /// <remarks>Completions come back in <see cref="QueueHandler.OnFileCompletion"/>.</remarks>
    public override FileIoEngine Files => _worker.Files;

    /// <inheritdoc/>
    public override void Post(Action action) => _post(action);

    /// <summary>Has the worker give this queue a turn, soon; from any thread.</summary>
    public void Wake() => _post(static () => { });

    /// <summary>
    /// Has the worker wait for a descriptor: <see cref="QueueHandler.OnReady"/> is called when it becomes ready, and
    /// once at the beginning if it is. Edge-triggered: use the descriptor until it would block. Ends when the queue
    /// stops.
    /// </summary>
    /// <param name="descriptor">What to wait for; it stays the caller's, open until the queue is stopped.</param>
    /// <param name="readiness">For what: a receiver waits for bytes, a sender for room.</param>
    public void Watch(FileDescriptor descriptor, Readiness readiness = Readiness.Readable)
    {
        // A duplicate, since several queues of one worker may wait for the same descriptor, each for something else.
        FileDescriptor own = descriptor.Duplicate();
        try
        {
            _worker.Watch(own, readiness, _running);
        }
        catch
        {
            own.Dispose();
            throw;
        }

        _watched.Add((descriptor, own));
    }

    /// <summary>Ends the wait for a descriptor that <see cref="Watch"/> began. On the queue's thread.</summary>
    public void EndWatch(FileDescriptor descriptor)
    {
        int place = _watched.FindIndex(watched => watched.Original == descriptor);
        if (place >= 0)
        {
            _worker.EndWatch(_watched[place].Own);
            _watched[place].Own.Dispose();
            _watched.RemoveAt(place);
        }
    }

    /// <summary>
    /// Calls the driver although nothing was used: a queue may be an interrupt and nothing else. On the queue's thread.
    /// </summary>
    public void CallDriver() => _running.CallDriver();

    /// <summary>
    /// Ends all waits for descriptors before the queue stops, for a handler that goes over to another descriptor. On
    /// the queue's thread.
    /// </summary>
    public void EndWatches()
    {
        foreach ((_, FileDescriptor own) in _watched)
        {
            _worker.EndWatch(own);
            own.Dispose();
        }

        _watched.Clear();
    }
}

/// <summary>Serves one queue.</summary>
public abstract class QueueHandler : IDisposable
{
    /// <summary>Takes up to <paramref name="limit"/> chains and starts or finishes them.</summary>
    /// <returns>How many were taken.</returns>
    public abstract int Drain(int limit);

    /// <summary>
    /// The most chains between two publications while the driver works beside us, on another CPU: more of them where
    /// chains are served faster than cache lines travel.
    /// </summary>
    public virtual int EarlyLimit => 8;

    /// <summary>A file operation that this handler started is done.</summary>
    /// <param name="tag">The lower 32 bits of the operation's tag.</param>
    /// <param name="result">Bytes, or a negative error number.</param>
    public virtual void OnFileCompletion(uint tag, int result)
    {
    }

    /// <summary>
    /// Whether the handler would take a chain now. While it would not (a receiver without a packet, a source that is to
    /// be spared), chains may stay in the ring and the worker sleeps; <see cref="OnReady"/> or
    /// <see cref="QueueContext.Wake"/> bring the next turn.
    /// </summary>
    public virtual bool WantsChains => true;

    /// <summary>The ring is enabled or disabled; told once at the start, too. While it is not, no turn comes.</summary>
    public virtual void OnEnabled(bool enabled)
    {
    }

    /// <summary>
    /// The driver kicked, whether it made anything available or not: a queue may be a doorbell. Kicks that come close
    /// together are told once; the first one may be no kick at all. A turn follows.
    /// </summary>
    public virtual void OnKick()
    {
    }

    /// <summary>A watched descriptor became ready. A turn follows.</summary>
    public virtual void OnReady()
    {
    }

    /// <summary>Whether requests wait inside the handler for room that another turn may find.</summary>
    public virtual bool HasBacklog => false;

    /// <summary>Goes on with the backlog.</summary>
    public virtual void Retry()
    {
    }

    /// <summary>
    /// The queue is being stopped or its memory is changing: no chain is taken any more. What is in flight must come to
    /// its end by itself, or here; what waits for an event that may never come is to be let go
    /// (<see cref="PendingRequest.LetGo"/>).
    /// </summary>
    public virtual void Quiesce()
    {
    }

    /// <summary>
    /// Whether something other than this thread and its file operations (a thread of the device, hardware) may still
    /// touch the buffers of requests in flight. A queue that is stopped without waiting for its requests waits for the
    /// end of this; <see cref="QueueContext.Wake"/> has it look again.
    /// </summary>
    public virtual bool HoldsMemory => false;

    /// <summary>The queue is stopped; nothing is in flight.</summary>
    public virtual void Dispose() => GC.SuppressFinalize(this);
}

/// <summary>The loop of levels (a) and (b): one call of HandleRequest for each chain.</summary>
internal sealed class RequestLoop(VirtioDevice device, QueueContext context) : QueueHandler
{
    private readonly Virtqueue _queue = context.Queue;

    public override int Drain(int limit)
    {
        int taken = 0;
        while (taken < limit && _queue.TryTake(out DescriptorChain chain))
        {
            taken++;
            uint generation = _queue.Generation(chain.Slot);
            uint written = device.HandleRequest(_queue.Index, chain);
            if (!_queue.IsDetached(chain.Slot, generation))
            {
                chain.Complete(written);
            }
        }

        return taken;
    }

    public override void Quiesce() => device.OnQueueStopping(_queue.Index);
}
