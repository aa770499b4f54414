// The device's half of a virtqueue alone: the chains are laid out once, and offered again and again by moving the
// available index.
using Outboard.Memory;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.Benchmarks.Bodies;

/// <summary>Takes, completes and publishes chains, in batches of 32.</summary>
public sealed class VirtqueueBody : BenchmarkBody
{
    private const int Batch = 32;
    private const int MostDescriptors = 4;
    private const ulong Features =
        VirtioFeatures.Version1 | VirtioFeatures.EventIndex | VirtioFeatures.IndirectDescriptors;

    private readonly DriverMemory _memory = new(4 << 20);
    private readonly Virtqueue _queue;
    private readonly MemoryWindow _available;
    private ushort _index;

    /// <summary>Lays out 256 chains.</summary>
    public VirtqueueBody(int descriptors, bool isIndirect)
    {
        int size = Operations * MostDescriptors;
        SplitDriverQueue ring = new(0, size, _memory, Features, isIndirect ? MostDescriptors : 0);
        DriverBuffer[] buffers = [.. Enumerable.Range(0, descriptors).Select(_ => _memory.Allocate(64))];
        for (uint i = 0; i < (uint)Operations * MostDescriptors; i++)
        {
            // Heads fill the whole ring of entries; direct chains fill the table before that.
            if (!ring.TryAdd(buffers.AsSpan(0, 1), buffers.AsSpan(1), i))
            {
                break;
            }
        }

        _queue = Virtqueue.Create(new VringSetup
        {
            Index = 0,
            Size = ring.Size,
            Addresses = ring.Addresses,
            Base = 0,
            Features = Features,
            Memory = _memory.Memory,
        });
        _memory.Memory.TryGetWindow(ring.Addresses.Available, SplitRing.AvailableBytes(ring.Size), out _available);
        RepeatEntries(ring.Size, ring.InFlight);
    }

    /// <inheritdoc/>
    public override void Run()
    {
        for (int done = 0; done < Operations; done += Batch)
        {
            _index += Batch;
            _available.WriteRelease16(SplitRing.IndexOffset, _index);
            while (_queue.TryTake(out DescriptorChain chain))
            {
                chain.Complete(0);
            }

            _queue.Publish();
            _ = _queue.ShouldCall();
        }
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _queue.Dispose();
        _memory.Dispose();
        base.Dispose();
    }

    private void RepeatEntries(int size, int chains)
    {
        for (int i = chains; i < size; i++)
        {
            ushort head = _available.Read<ushort>(SplitRing.EntriesOffset + (2 * (uint)(i % chains)));
            _available.Write(SplitRing.EntriesOffset + (2 * (uint)i), head);
        }
    }
}
