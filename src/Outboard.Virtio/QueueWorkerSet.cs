// The workers of one device, or of several: started when they are first needed, queues spread over them.
namespace Outboard.Virtio;

/// <summary>A fixed number of workers.</summary>
public sealed class QueueWorkerSet(int count, string name, QueueWorkerOptions? options = null) : IAsyncDisposable
{
    private readonly QueueWorker?[] _workers = new QueueWorker?[count];

    /// <summary>The worker for a queue. Not thread-safe.</summary>
    public QueueWorker For(int queue)
    {
        int slot = queue % _workers.Length;
        return _workers[slot] ??= new QueueWorker($"{name}/{slot}", options);
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
