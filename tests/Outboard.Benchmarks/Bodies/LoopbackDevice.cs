// A device that does nothing, on the driver's own thread: it returns whatever is available. The cheapest other half for
// measuring a driver, and a way to serve a ring without threads in tests.
using Outboard.Memory;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.Benchmarks.Bodies;

/// <summary>Copies available entries to the used ring.</summary>
public sealed class LoopbackDevice
{
    private readonly MemoryWindow _available;
    private readonly MemoryWindow _used;
    private readonly uint _mask;
    private ushort _next;

    /// <summary>Serves a driver's ring.</summary>
    public LoopbackDevice(SplitDriverQueue ring, DriverMemory memory)
    {
        _mask = (uint)ring.Size - 1;
        memory.Memory.TryGetWindow(ring.Addresses.Available, SplitRing.AvailableBytes(ring.Size), out _available);
        memory.Memory.TryGetWindow(ring.Addresses.Used, SplitRing.UsedBytes(ring.Size), out _used);
    }

    /// <summary>Returns everything that is available.</summary>
    public void Serve()
    {
        ushort end = _available.ReadAcquire16(SplitRing.IndexOffset);
        for (; _next != end; _next++)
        {
            uint head = _available.Read<ushort>(SplitRing.EntriesOffset + (2 * (_next & _mask)));
            _used.Write(SplitRing.EntriesOffset + (8 * (_next & _mask)), new SplitUsedElement(head, 1));
        }

        _used.WriteRelease16(SplitRing.IndexOffset, end);
    }
}

/// <summary>A link to a <see cref="LoopbackDevice"/>.</summary>
public sealed class LoopbackLink(SplitDriverQueue ring, DriverMemory memory) : DriverQueueLink
{
    private readonly LoopbackDevice _device = new(ring, memory);

    /// <inheritdoc/>
    public override DriverQueue Ring => ring;

    /// <inheritdoc/>
    public override DriverMemory Memory => memory;

    /// <inheritdoc/>
    public override void Submit()
    {
        ring.Publish();
        _ = ring.ShouldKick();
        _device.Serve();
    }

    /// <inheritdoc/>
    public override bool WaitForUsed(int timeoutMs) => true;
}
