// Both halves of a virtqueue on one thread, in either format.
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.Benchmarks.Bodies;

/// <summary>Chains of three descriptors go from the driver to the device and back, in batches of 32.</summary>
public sealed class BothSidesBody : BenchmarkBody
{
    private const int Batch = 32;

    private readonly DriverMemory _memory = new(1 << 20);
    private readonly DriverQueue _driver;
    private readonly Virtqueue _device;
    private readonly DriverBuffer[] _buffers;

    /// <summary>Makes both halves.</summary>
    public BothSidesBody(bool isPacked)
    {
        ulong features = VirtioFeatures.Version1 | VirtioFeatures.EventIndex
            | (isPacked ? VirtioFeatures.RingPacked : 0);
        _driver = DriverQueue.Create(0, 256, _memory, features);
        _device = Virtqueue.Create(new VringSetup
        {
            Index = 0,
            Size = _driver.Size,
            Addresses = _driver.Addresses,
            Base = _driver.InitialBase,
            Features = features,
            Memory = _memory.Memory,
        });
        _buffers = [.. Enumerable.Range(0, 3).Select(_ => _memory.Allocate(64))];
    }

    /// <inheritdoc/>
    public override void Run()
    {
        for (int done = 0; done < Operations; done += Batch)
        {
            for (uint i = 0; i < Batch; i++)
            {
                _driver.TryAdd(_buffers.AsSpan(0, 1), _buffers.AsSpan(1, 2), i);
            }

            _driver.Publish();
            _ = _driver.ShouldKick();
            while (_device.TryTake(out DescriptorChain chain))
            {
                chain.Complete(0);
            }

            _device.Publish();
            _ = _device.ShouldCall();
            while (_driver.TryCollect(out _, out _))
            {
            }
        }
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _device.Dispose();
        _memory.Dispose();
        base.Dispose();
    }
}
