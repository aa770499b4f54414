// A disk that keeps a list of what was asked of it, and a disk whose operations end when the test says so.
using System.Collections.Concurrent;
using Outboard.Devices.Block.Backends;
using Outboard.Linux;
using Outboard.Virtio;

namespace Outboard.Tests.Devices.Block;

/// <summary>Wraps a disk and records every operation and every flush of the control plane.</summary>
internal sealed class RecordingDisk(Disk inner) : Disk
{
    /// <summary>Operations, in the order of their start.</summary>
    public ConcurrentQueue<DiskOperation> Operations { get; } = new();

    /// <summary>Flushes asked by the control plane.</summary>
    public int Flushes { get; private set; }

    /// <summary>What a flush of the control plane returns.</summary>
    public int FlushResult { get; set; }

    /// <summary>What each operation returns instead of being carried out; 0 carries it out.</summary>
    public int Result { get; set; }

    public override long SizeBytes => inner.SizeBytes;

    public override string Description => inner.Description;

    public override DiskQueue OpenQueue(IoContext context, IDiskQueueOwner owner, int depth) =>
        new Queue(this, inner.OpenQueue(context, owner, depth));

    public override int Flush()
    {
        Flushes++;
        return FlushResult;
    }

    public override void Dispose() => inner.Dispose();

    private sealed class Queue(RecordingDisk disk, DiskQueue inner) : DiskQueue
    {
        public override bool HasBacklog => inner.HasBacklog;

        public override int Start(uint request, in DiskOperation operation, ReadOnlySpan<IoSegment> segments)
        {
            disk.Operations.Enqueue(operation);
            return disk.Result != 0 ? disk.Result : inner.Start(request, in operation, segments);
        }

        public override void OnFileCompletion(uint request, int result) => inner.OnFileCompletion(request, result);

        public override void Retry() => inner.Retry();

        public override void Dispose()
        {
            inner.Dispose();
            base.Dispose();
        }
    }
}

/// <summary>A disk whose operations all stay pending until <see cref="Release"/>.</summary>
internal sealed class HeldDisk(long sizeBytes) : Disk
{
    private readonly ConcurrentQueue<(IoContext Context, IDiskQueueOwner Owner, uint Request)> _held = new();

    public int Held => _held.Count;

    /// <summary>Operations that are held; a later one throws.</summary>
    public int FailsAfter { get; set; } = int.MaxValue;

    public override long SizeBytes => sizeBytes;

    public override string Description => "held";

    public override DiskQueue OpenQueue(IoContext context, IDiskQueueOwner owner, int depth) =>
        new Queue(this, context, owner);

    /// <summary>Ends the oldest operation, on its queue's thread.</summary>
    public bool Release(int result = 0)
    {
        if (!_held.TryDequeue(out (IoContext Context, IDiskQueueOwner Owner, uint Request) oldest))
        {
            return false;
        }

        oldest.Context.Post(() =>
        {
            _ = oldest.Owner.Segments(oldest.Request);
            oldest.Owner.OnDiskCompletion(oldest.Request, result);
        });
        return true;
    }

    public override void Dispose()
    {
    }

    private sealed class Queue(HeldDisk disk, IoContext context, IDiskQueueOwner owner) : DiskQueue
    {
        public override int Start(uint request, in DiskOperation operation, ReadOnlySpan<IoSegment> segments)
        {
            if (disk._held.Count >= disk.FailsAfter)
            {
                throw new InvalidOperationException("a bug of the disk");
            }

            disk._held.Enqueue((context, owner, request));
            return Pending;
        }
    }
}
