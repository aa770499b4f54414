// Random life of a ring, split or packed: device and driver of the product against each other, and against a model that
// knows only which requests exist. Content, order of publication, lengths and counts are compared at every step.
using Outboard.Memory;
using Outboard.Tests.Virtio.Rig;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class VirtqueuePropertyTests
{
    private const ulong Version1 = RawRing.FeatureVersion1;
    private const ulong EventIndex = RawRing.FeatureEventIndex;
    private const ulong Indirect = RawRing.FeatureIndirect;
    private const ulong Packed = RawRing.FeaturePacked;
    private const ulong InOrder = RawRing.FeatureInOrder;

    public static TheoryData<int, ulong> Kinds
    {
        get
        {
            TheoryData<int, ulong> kinds = [];
            for (int size = 1; size <= 32768; size *= 2)
            {
                kinds.Add(size, Version1);
                kinds.Add(size, Version1 | EventIndex);
                kinds.Add(size, Version1 | Indirect);
                kinds.Add(size, Version1 | EventIndex | Indirect);
                kinds.Add(size, Version1 | Packed | EventIndex);
                kinds.Add(size, Version1 | Packed | Indirect);
                kinds.Add(size, Version1 | InOrder | EventIndex | Indirect);
                kinds.Add(size, Version1 | InOrder | Packed);
            }

            kinds.Add(3, Version1 | Packed);
            kinds.Add(7, Version1 | Packed | Indirect);
            kinds.Add(1000, Version1 | Packed | EventIndex);
            kinds.Add(3, Version1 | InOrder | Packed);
            kinds.Add(7, Version1 | InOrder | Packed | Indirect);
            kinds.Add(1000, Version1 | InOrder | Packed | EventIndex | Indirect);

            return kinds;
        }
    }

    [Theory]
    [MemberData(nameof(Kinds))]
    public void Requests_pass_through_unchanged(int size, ulong features)
    {
        using RingLife life = new(size, features, seed: size + (int)(features >> 28));
        for (int step = 0; step < 1500; step++)
        {
            life.Step();
        }

        life.Finish();
    }

    [Theory]
    [InlineData(1, Version1)]
    [InlineData(4, Version1 | EventIndex)]
    [InlineData(64, Version1)]
    [InlineData(32768, Version1 | EventIndex)]
    [InlineData(3, Version1 | Packed)]
    [InlineData(4, Version1 | Packed | EventIndex)]
    [InlineData(4, Version1 | InOrder)]
    [InlineData(32768, Version1 | InOrder | EventIndex)]
    [InlineData(5, Version1 | InOrder | Packed)]
    [InlineData(32768, Version1 | InOrder | Packed)]
    public void Indices_wrap_at_65536(int size, ulong features)
    {
        using DriverMemory memory = new(4 << 20);
        DriverQueue driver = DriverQueue.Create(0, size, memory, features);
        using Virtqueue device = Virtqueue.Create(Setup(driver, memory, features));
        DriverBuffer buffer = memory.Allocate(16);
        uint next = 0;
        uint collected = 0;
        while (collected < 140_000)
        {
            while (driver.TryAdd([], [buffer], next))
            {
                next++;
            }

            driver.Publish();
            while (device.TryTake(out DescriptorChain chain))
            {
                chain.Complete(chain.Writable.Length == 16 ? 16u : 0);
            }

            device.Publish();
            while (driver.TryCollect(out uint token, out uint written))
            {
                Assert.Equal(collected++, token);
                Assert.Equal(16u, written);
            }
        }

        Assert.True((features & Packed) != 0 || (ushort)next == device.Base);
    }

    [Theory]
    [InlineData(65535, 65535)]
    [InlineData(65530, 12)]
    [InlineData(0, 65535)]
    public void A_ring_is_taken_over_at_any_index(int available, int used)
    {
        using RawRing ring = new(8);
        DriverBuffer buffer = ring.Memory.Allocate(16);
        ring.AvailableIndex = (ushort)available;
        ring.UsedIndex = (ushort)used;
        using Virtqueue queue = ring.Open((ushort)available);
        Assert.False(queue.HasAvailable);
        for (int i = 0; i < 20; i++)
        {
            ring.OfferOne((ushort)(i % 8), buffer);
            Assert.True(queue.TryTake(out DescriptorChain chain));
            Assert.False(queue.TryTake(out _));
            chain.Complete((uint)i);
            queue.Publish();
            Assert.Equal(((uint)(i % 8), (uint)i), ring.Used(used + i));
            Assert.Equal((ushort)(used + i + 1), ring.UsedIndex);
            Assert.Equal((ushort)(available + i + 1), queue.Base);
        }
    }

    [Fact]
    public void What_was_taken_is_not_seen_to_change()
    {
        // The driver rewrites the descriptor after it was taken: the device goes on with what it read.
        using RawRing ring = new(8);
        DriverBuffer buffer = ring.Memory.Allocate(16);
        ring.OfferOne(0, buffer, RawRing.Write);
        using Virtqueue queue = ring.Open();
        Assert.True(queue.TryTake(out DescriptorChain chain));
        ring.Describe(0, 0, 0xFFFF_FFFF, RawRing.Next | RawRing.Indirect, 9);
        Assert.Equal(16, chain.Writable.Length);
        Assert.Equal(0, chain.Readable.Length);
        chain.Complete(16);
        queue.Publish();
        Assert.Equal((0u, 16u), ring.Used(0));
    }

    [Fact]
    public void Used_chains_are_invisible_until_they_are_published()
    {
        using RawRing ring = new(8);
        DriverBuffer buffer = ring.Memory.Allocate(16);
        using Virtqueue queue = ring.Open();
        for (ushort i = 0; i < 3; i++)
        {
            ring.OfferOne(i, buffer);
            Assert.True(queue.TryTake(out DescriptorChain chain));
            chain.Complete(i);
            Assert.True(queue.HasUnpublished);
            Assert.Equal(0, ring.UsedIndex);
        }

        queue.Publish();
        Assert.False(queue.HasUnpublished);
        Assert.Equal(3, ring.UsedIndex);
    }

    [Fact]
    public void Too_much_in_flight_stops_the_taking_until_some_is_done()
    {
        using RawRing ring = new(1024, RawRing.FeatureVersion1 | RawRing.FeatureIndirect);
        DriverBuffer buffer = ring.Memory.Allocate(16);
        DriverBuffer table = ring.Memory.Allocate(16 * 1024, 16);
        for (int i = 0; i < 1024; i++)
        {
            ushort next = (ushort)(i < 1023 ? RawRing.Next : 0);
            RawRing.Describe(table, i, buffer.GuestAddress, 1, next, (ushort)(i + 1));
        }

        for (ushort i = 0; i < 1024; i++)
        {
            ring.OfferOne(i, table, RawRing.Indirect);
        }

        using Virtqueue queue = ring.Open();
        List<PendingRequest> held = [];
        while (queue.TryTake(out DescriptorChain chain))
        {
            held.Add(chain.Detach());
        }

        Assert.InRange(held.Count, 100, 1023);
        Assert.Equal(VirtqueueFault.None, queue.Fault);
        Assert.False(queue.HasAvailable, "a queue that can take nothing has no work: its worker may sleep");
        Assert.False(queue.ArmKicks());
        held[0].Complete(0);
        Assert.True(queue.HasAvailable);
        Assert.True(queue.TryTake(out _));
    }

    internal static VringSetup Setup(
        DriverQueue driver, DriverMemory memory, ulong features, GuestMemory? regions = null) => new()
    {
        Index = driver.Index,
        Size = driver.Size,
        Addresses = driver.Addresses,
        Base = driver.InitialBase,
        Features = features,
        Memory = regions ?? memory.Memory,
    };
}
