// A submission queue's access to one namespace: the disk's queue, and its place on the worker's thread.
using Outboard.Devices.Block.Backends;
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Virtio;

namespace Outboard.Devices.Nvme.Queues;

/// <summary>Binds a submission queue, a namespace and a worker. Used by the worker's thread.</summary>
internal sealed class DiskChannel : IoContext, IDisposable
{
    private readonly NvmeWorker _worker;
    private readonly SubmissionQueue _owner;
    private readonly uint _id;

    internal DiskChannel(NvmeWorker worker, SubmissionQueue owner, NvmeNamespace place, int depth)
    {
        _worker = worker;
        _owner = owner;
        Namespace = place;
        _id = worker.Register(this);
        TagPrefix = (ulong)_id << 32;
        Queue = place.Disk.OpenQueue(this, owner, depth);
    }

    internal NvmeNamespace Namespace { get; }

    internal DiskQueue Queue { get; }

    public override FileIoEngine Files => _worker.Files;

    /// <remarks>
    /// Commands of a queue that is reset are ended without their disk, while the queue may still wait for messages:
    /// what was kept for later would be the end of a command that has had one.
    /// </remarks>
    public override void Post(Action action) => _worker.Post(() =>
    {
        if (!_owner.IsStopped && !_owner.IsDiscarding)
        {
            action();
        }
    });

    public void Dispose()
    {
        Queue.Dispose();
        _worker.Unregister(_id);
    }

    /// <remarks>A cancelled operation of a queue that is reset is nobody's news.</remarks>
    internal void OnFileCompletion(uint tag, int result)
    {
        if (!_owner.IsDiscarding || result != -Errno.Canceled)
        {
            Queue.OnFileCompletion(tag, result);
        }
    }

    /// <summary>Asks for the early end of what is in flight.</summary>
    /// <returns>Whether something is.</returns>
    internal bool CancelFileOperations() => _worker.CancelFileOperations(_id);
}
