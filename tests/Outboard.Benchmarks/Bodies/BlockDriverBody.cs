// What a block request costs its driver, with a device that only returns.
using Outboard.Devices.Block.Driver;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.Benchmarks.Bodies;

/// <summary>Reads at depth 32.</summary>
public sealed class BlockDriverBody : BenchmarkBody
{
    private const int Depth = 32;
    private const uint BlockBytes = 4096;

    private readonly DriverMemory _memory = new((1 << 20) + BlockDriver.MemoryBytes(Depth, BlockBytes));
    private readonly BlockDriver _driver;
    private readonly BlockCompletion[] _completions = new BlockCompletion[Depth];

    /// <summary>Makes the driver.</summary>
    public BlockDriverBody()
    {
        SplitDriverQueue ring = new(0, 256, _memory, VirtioFeatures.EventIndex);
        _driver = new BlockDriver(new LoopbackLink(ring, _memory), Depth, BlockBytes);
    }

    /// <inheritdoc/>
    public override void Run()
    {
        for (int done = 0; done < Operations; done += Depth)
        {
            for (int slot = 0; slot < Depth; slot++)
            {
                _driver.TryRead(slot, (ulong)slot * 8, BlockBytes);
            }

            _driver.Submit();
            _driver.Collect(_completions);
        }
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        _memory.Dispose();
        base.Dispose();
    }
}
