// The workers of one device, or of several: started when they are first needed, queues spread over them.
namespace Outboard.Virtio;

/// <summary>A fixed number of workers. May be used from any thread, by several devices.</summary>
/// <param name="count">Number of workers, at least 1.</param>
/// <param name="name">Name of the threads, a number is added.</param>
/// <param name="options">How the workers behave.</param>
public sealed class QueueWorkerSet(int count, string name, QueueWorkerOptions? options = null) : IAsyncDisposable
{
    private readonly QueueWorker?[] _workers = new QueueWorker?[count];
    private readonly Lock _lock = new();
    private int _given;

    /// <summary>Takes a share of the workers for one more user, whose queues follow those of the others.</summary>
    /// <param name="queues">Number of the user's queues.</param>
    /// <returns>What the user adds to a queue's index for <see cref="For"/>.</returns>
    public int Share(int queues)
    {
        lock (_lock)
        {
            int first = _given;
            _given = (_given + queues) % _workers.Length;
            return first;
        }
    }

    /// <summary>The worker for a queue.</summary>
    /// <param name="queue">The queue's index, behind the user's share if there are several users.</param>
    public QueueWorker For(int queue)
    {
        int slot = queue % _workers.Length;
        lock (_lock)
        {
            return _workers[slot] ??= new QueueWorker($"{name}/{slot}", options);
        }
    }

    /// <summary>Ends all threads. All queues are stopped.</summary>
    public async ValueTask DisposeAsync()
    {
        foreach (QueueWorker? worker in _workers)
        {
            if (worker is not null)
            {
                await worker.DisposeAsync().ConfigureAwait(false);
            }
        }
    }
}
