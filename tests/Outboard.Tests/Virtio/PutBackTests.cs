// A chain that was taken and put back is the next one to be taken, on both kinds of rings.
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class PutBackTests
{
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void Chains_that_are_put_back_are_taken_again_in_their_order(bool packed)
    {
        ulong features = VirtioFeatures.Version1 | (packed ? VirtioFeatures.RingPacked : 0);
        using DriverMemory memory = new(1 << 20);
        DriverQueue ring = packed
            ? new PackedDriverQueue(0, 8, memory, features)
            : new SplitDriverQueue(0, 8, memory, features);
        DriverBuffer buffer = memory.Allocate(64);
        uint start = packed ? PackedPosition.Start.Packed | ((uint)PackedPosition.Start.Packed << 16) : 0u;
        using Virtqueue queue = Virtqueue.Create(new VringSetup
        {
            Index = 0, Size = 8, Addresses = ring.Addresses, Base = start, Features = features, Memory = memory.Memory,
        });
        for (uint round = 0; round < 20; round++)
        {
            for (uint i = 0; i < 3; i++)
            {
                Assert.True(ring.TryAdd([buffer], i == 1 ? [buffer] : [], (round * 3) + i));
            }

            ring.Publish();
            Complete(queue);
            Stack<(PendingRequest Request, ushort Position)> held = new();
            for (int i = 0; i < 2; i++)
            {
                ushort position = queue.Position;
                Assert.True(queue.TryTake(out DescriptorChain chain));
                held.Push((chain.Detach(), position));
            }

            Assert.False(queue.TryTake(out _));
            while (held.TryPop(out (PendingRequest Request, ushort Position) last))
            {
                queue.PutBack(last.Request, last.Position);
            }

            Assert.Equal(0, queue.InFlight);
            Complete(queue);
            Complete(queue);
            queue.Publish();
            for (uint i = 0; i < 3; i++)
            {
                Assert.True(ring.TryCollect(out uint token, out _));
                Assert.Equal((round * 3) + i, token);
            }
        }
    }

    private static void Complete(Virtqueue queue)
    {
        Assert.True(queue.TryTake(out DescriptorChain chain));
        chain.Complete(0);
    }
}
