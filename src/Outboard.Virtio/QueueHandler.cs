// What serves one queue while it runs. All members are called on the queue's thread.
using Outboard.Linux.Files;
using Outboard.Virtio.Queue;

namespace Outboard.Virtio;

/// <summary>What a handler gets to work with.</summary>
public sealed class QueueContext
{
    private readonly QueueWorker _worker;
    private readonly Action<Action> _post;

    internal QueueContext(Virtqueue queue, QueueWorker worker, uint handlerId, Action<Action> post)
    {
        Queue = queue;
        _worker = worker;
        _post = post;
        TagPrefix = (ulong)handlerId << 32;
    }

    /// <summary>The queue.</summary>
    public Virtqueue Queue { get; }

    /// <summary>Asynchronous file I/O of this thread. Created at the first use.</summary>
    public FileIoEngine Files => _worker.Files;

    /// <summary>
    /// The upper 32 bits of every tag that this handler gives to <see cref="Files"/>; the lower ones are its own and
    /// come back in <see cref="QueueHandler.OnFileCompletion"/>.
    /// </summary>
    public ulong TagPrefix { get; }

    /// <summary>Runs an action on the queue's thread, soon; from any thread. Not for the way of a request.</summary>
    /// <remarks>What it completes is published. When the queue has been stopped meanwhile it is not run.</remarks>
    public void Post(Action action) => _post(action);
}

/// <summary>Serves one queue.</summary>
public abstract class QueueHandler : IDisposable
{
    /// <summary>Takes up to <paramref name="limit"/> chains and starts or finishes them.</summary>
    /// <returns>How many were taken.</returns>
    public abstract int Drain(int limit);

    /// <summary>A file operation that this handler started is done.</summary>
    /// <param name="tag">The lower 32 bits of the operation's tag.</param>
    /// <param name="result">Bytes, or a negative error number.</param>
    public virtual void OnFileCompletion(uint tag, int result)
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
    /// its end by itself, or here.
    /// </summary>
    public virtual void Quiesce()
    {
    }

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
}
