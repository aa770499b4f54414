// The driver's half of a virtqueue, with a device that only returns.
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.Benchmarks.Bodies;

/// <summary>Adds, publishes and collects chains of three descriptors, in batches of 32.</summary>
public sealed class DriverQueueBody : BenchmarkBody
{
    private const int Batch = 32;

    private readonly DriverMemory _memory = new(1 << 20);
    private readonly LoopbackLink _link;
    private readonly DriverBuffer[] _buffers;

    /// <summary>Makes the queue.</summary>
    public DriverQueueBody(bool isIndirect)
    {
        SplitDriverQueue ring = new(0, 256, _memory, VirtioFeatures.EventIndex, isIndirect ? 4 : 0);
        _link = new LoopbackLink(ring, _memory);
        _buffers = [.. Enumerable.Range(0, 3).Select(_ => _memory.Allocate(64))];
    }

    /// <inheritdoc/>
    public override void Run()
    {
        DriverQueue ring = _link.Ring;
        for (int done = 0; done < Operations; done += Batch)
        {
            for (uint i = 0; i < Batch; i++)
            {
                ring.TryAdd(_buffers.AsSpan(0, 1), _buffers.AsSpan(1, 2), i);
            }

            _link.Submit();
            while (ring.TryCollect(out _, out _))
            {
            }
        }
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _memory.Dispose();
        base.Dispose();
    }
}
