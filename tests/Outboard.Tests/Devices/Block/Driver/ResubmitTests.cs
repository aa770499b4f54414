// The ring half of surviving a back-end's crash: what was in flight is available once more, and nothing else.
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block.Driver;

public sealed class ResubmitTests : IDisposable
{
    private const int Size = 16;
    private const ulong Features = VirtioFeatures.Version1 | VirtioFeatures.EventIndex;

    private readonly DriverMemory _memory = new(1 << 20);
    private readonly SplitDriverQueue _ring;
    private readonly DriverBuffer _buffer;

    public ResubmitTests()
    {
        _ring = new SplitDriverQueue(0, Size, _memory, Features);
        _buffer = _memory.Allocate(64);
    }

    public void Dispose() => _memory.Dispose();

    [Theory]
    [InlineData(0)]
    [InlineData(5)]
    [InlineData(1000)]
    public void A_successor_gets_what_the_dead_device_held_in_order(int before)
    {
        // One chain that is never completed lets the ring go round beneath it.
        Virtqueue dead = Device(0);
        Add(999);
        for (uint i = 0; i < before; i++)
        {
            Add(i);
            CompleteOne(dead, isFirst: i == 0);
        }

        Add(1);
        Add(2);
        Add(3);
        _ring.Publish();
        List<PendingRequest> taken = TakeAll(dead, alreadyHeld: before > 0 ? 0 : 1);
        taken[^2].Complete(0);
        dead.Publish();
        Assert.Equal([2u], CollectAll());
        dead.Dispose();

        ushort start = (ushort)_ring.ResubmitInFlight();
        using Virtqueue successor = Device(start);
        while (successor.TryTake(out DescriptorChain chain))
        {
            chain.Complete(0);
        }

        successor.Publish();
        Assert.Equal([999u, 1u, 3u], CollectAll());
        Assert.Equal(0, _ring.InFlight);
        Assert.Equal(Size, _ring.FreeDescriptors);
    }

    [Fact]
    public void What_was_used_must_be_collected_first()
    {
        using Virtqueue device = Device(0);
        Add(1);
        _ring.Publish();
        Assert.True(device.TryTake(out DescriptorChain chain));
        chain.Complete(0);
        device.Publish();
        Assert.Throws<InvalidOperationException>(() => _ring.ResubmitInFlight());
    }

    private void Add(uint token) => Assert.True(_ring.TryAdd([_buffer], [], token));

    private void CompleteOne(Virtqueue device, bool isFirst)
    {
        _ring.Publish();
        if (isFirst)
        {
            Assert.True(device.TryTake(out DescriptorChain held));
            held.Detach();
        }

        Assert.True(device.TryTake(out DescriptorChain chain));
        chain.Complete(0);
        device.Publish();
        Assert.Single(CollectAll());
    }

    private static List<PendingRequest> TakeAll(Virtqueue device, int alreadyHeld)
    {
        List<PendingRequest> taken = [];
        while (device.TryTake(out DescriptorChain chain))
        {
            taken.Add(chain.Detach());
        }

        Assert.Equal(3 + alreadyHeld, taken.Count);
        return taken;
    }

    private List<uint> CollectAll()
    {
        List<uint> tokens = [];
        while (_ring.TryCollect(out uint token, out _))
        {
            tokens.Add(token);
        }

        return tokens;
    }

    private Virtqueue Device(ushort availableIndex) => Virtqueue.Create(new VringSetup
    {
        Index = 0,
        Size = Size,
        Addresses = _ring.Addresses,
        Base = availableIndex,
        Features = Features,
        Memory = _memory.Memory,
    });
}
