// IN_ORDER, both sides: what the ring looks like byte by byte, stops with holes, and what a bad peer may try.
using System.Buffers.Binary;
using Outboard.Memory;
using Outboard.Tests.Virtio.Rig;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class InOrderTests
{
    private const ulong Split = VirtioFeatures.Version1 | VirtioFeatures.InOrder;
    private const ulong Packed = Split | VirtioFeatures.RingPacked;

    [Fact]
    public void What_overtook_waits_and_one_entry_stands_for_the_batch()
    {
        using RawRing ring = new(8, Split);
        (Virtqueue queue, List<PendingRequest> held) = TakeMixed(ring, 4);
        using (queue)
        {
            held[2].Complete(4);
            held[1].Complete(4);
            Assert.Equal(2, queue.WaitingForTurn);
            Assert.Equal(2, queue.InFlight);
            Assert.False(queue.HasUnpublished);
            held[0].Complete(4);
            Assert.Equal(0, queue.WaitingForTurn);
            Assert.True(queue.HasUnpublished);
            queue.Publish();
            Assert.Equal(3, ring.UsedIndex);

            // Chains are two descriptors each: heads 0, 2, 4. The entry of the first names the last.
            Assert.Equal((4u, 4u), ring.Used(0));
            Assert.Equal((0u, 0u), ring.Used(1));
            held[3].Complete(4);
            queue.Publish();
            Assert.Equal((6u, 4u), ring.Used(3));
        }
    }

    [Fact]
    public void A_chain_that_was_not_filled_has_an_entry_of_its_own()
    {
        using RawRing ring = new(8, Split);
        (Virtqueue queue, List<PendingRequest> held) = TakeMixed(ring, 4);
        using (queue)
        {
            held[0].Complete(3);
            held[1].Complete(4);
            held[2].Complete(1);
            held[3].Complete(4);
            queue.Publish();
            Assert.Equal(4, ring.UsedIndex);
            Assert.Equal((0u, 3u), ring.Used(0));
            Assert.Equal((4u, 1u), ring.Used(1));
            Assert.Equal((0u, 0u), ring.Used(2));
            Assert.Equal((6u, 4u), ring.Used(3));
        }
    }

    [Fact]
    public void Buffers_that_are_only_written_have_an_entry_each()
    {
        using RawRing ring = new(4, Split);
        DriverBuffer buffer = ring.Memory.Allocate(16);
        using Virtqueue queue = ring.Open();
        for (ushort i = 0; i < 3; i++)
        {
            ring.OfferOne(i, buffer, RawRing.Write);
            Assert.True(queue.TryTake(out DescriptorChain chain));
            chain.Complete(16);
        }

        queue.Publish();
        Assert.Equal([(0u, 16u), (1u, 16u), (2u, 16u)], Enumerable.Range(0, 3).Select(ring.Used));
    }

    [Fact]
    public void Packed_batch_is_one_used_descriptor()
    {
        using DriverMemory memory = new(1 << 16);
        DriverQueue driver = DriverQueue.Create(0, 8, memory, Packed);
        using Virtqueue queue = Virtqueue.Create(VirtqueuePropertyTests.Setup(driver, memory, Packed));
        DriverBuffer buffer = memory.Allocate(64);
        for (uint i = 0; i < 3; i++)
        {
            Assert.True(driver.TryAdd([buffer.Slice(0, 8)], [buffer.Slice(8, 4)], 10 + i));
        }

        driver.Publish();
        Assert.True(memory.Memory.TryGetWindow(driver.Addresses.Descriptors, 128, out MemoryWindow ring));
        List<PendingRequest> held = TakeAll(queue);
        held[2].Complete(4);
        held[0].Complete(4);
        held[1].Complete(4);
        Assert.Equal(0, ring.Read<ushort>(14) & PackedRing.Used);
        queue.Publish();
        PackedDescriptor first = ring.Read<PackedDescriptor>(0);
        Assert.Equal((2, 4u), (first.Id, first.Length));
        Assert.Equal(PackedRing.Used | PackedRing.Available | SplitRing.Write, first.Flags);

        // The other descriptors are as the driver left them.
        Assert.Equal(PackedRing.Available, ring.Read<PackedDescriptor>(32).Flags & ~(SplitRing.Next | SplitRing.Write));
        Assert.Equal([(10u, 4u), (11u, 4u), (12u, 4u)], CollectAll(driver));
        Assert.Equal(8, driver.FreeDescriptors);
    }

    [Theory]
    [InlineData(Split)]
    [InlineData(Packed)]
    public void Driver_uses_descriptors_round_the_ring(ulong features)
    {
        using DriverMemory memory = new(1 << 16);
        DriverQueue driver = DriverQueue.Create(0, 8, memory, features);
        using Virtqueue queue = Virtqueue.Create(VirtqueuePropertyTests.Setup(driver, memory, features));
        Assert.True(memory.Memory.TryGetWindow(driver.Addresses.Descriptors, 128, out MemoryWindow table));
        DriverBuffer buffer = memory.Allocate(64);
        for (uint i = 0; i < 20; i++)
        {
            // Three descriptors each, in a ring of eight: chain i begins at 3 i.
            Assert.True(driver.TryAdd([buffer.Slice(i, 1), buffer.Slice(0, 2)], [buffer.Slice(8, 4)], i));
            driver.Publish();
            uint head = 3 * i % 8;
            Assert.Equal(buffer.GuestAddress + i, table.Read<ulong>(head * 16));
            if (features == Split)
            {
                Assert.Equal((head + 1) % 8, table.Read<SplitDescriptor>(head * 16).Next);
                Assert.Equal(0, table.Read<SplitDescriptor>((head + 2) % 8 * 16).Next);
            }

            Assert.True(queue.TryTake(out DescriptorChain chain));
            chain.Complete(4);
            queue.Publish();
            Assert.Equal([(i, 4u)], CollectAll(driver));
        }
    }

    [Theory]
    [InlineData(1u, 1)]
    [InlineData(4u, 2)]
    [InlineData(8u, 1)]
    [InlineData(uint.MaxValue, 3)]
    public void Split_driver_refuses_a_batch_that_cannot_be(uint id, ushort usedIndex)
    {
        // Chains begin at 0, 2 and 4: 1 is the inside of one, 4 is not among the two oldest, 8 is nowhere.
        using DriverMemory memory = new(1 << 16);
        DriverQueue driver = DriverQueue.Create(0, 8, memory, Split);
        Add(driver, memory, 3);
        MemoryWindow used = UsedRing(driver, memory);
        used.Write(4, new SplitUsedElement(id, 4));
        used.WriteRelease16(2, usedIndex);
        Assert.Throws<InvalidDataException>(() => driver.TryCollect(out _, out _));
        Assert.Throws<InvalidDataException>(() => driver.TryCollect(out _, out _));
    }

    [Fact]
    public void Split_driver_refuses_more_than_is_in_flight()
    {
        using DriverMemory memory = new(1 << 16);
        DriverQueue driver = DriverQueue.Create(0, 8, memory, Split);
        Add(driver, memory, 2);
        MemoryWindow used = UsedRing(driver, memory);
        used.Write(4, new SplitUsedElement(2, 4));
        used.WriteRelease16(2, 5);
        Assert.Equal((0u, 4u), CollectOne(driver));
        Assert.Equal((1u, 4u), CollectOne(driver));
        Assert.Throws<InvalidDataException>(() => driver.TryCollect(out _, out _));
    }

    [Theory]
    [InlineData(3)]
    [InlineData(8)]
    [InlineData(0xFFFF)]
    public void Packed_driver_refuses_a_buffer_that_the_device_does_not_hold(int id)
    {
        using DriverMemory memory = new(1 << 16);
        DriverQueue driver = DriverQueue.Create(0, 8, memory, Packed);
        Add(driver, memory, 3);
        Assert.True(memory.Memory.TryGetWindow(driver.Addresses.Descriptors, 128, out MemoryWindow ring));
        ring.Write(PackedRing.IdOffset, (ushort)id);
        ring.WriteRelease16(PackedRing.FlagsOffset, PackedRing.Used | PackedRing.Available);
        Assert.Throws<InvalidDataException>(() => driver.TryCollect(out _, out _));
    }

    [Fact]
    public void Driver_does_not_sleep_in_the_middle_of_a_batch()
    {
        using DriverMemory memory = new(1 << 16);
        DriverQueue driver = DriverQueue.Create(0, 8, memory, Packed);
        using Virtqueue queue = Virtqueue.Create(VirtqueuePropertyTests.Setup(driver, memory, Packed));
        Add(driver, memory, 3);
        TakeAll(queue).ForEach(request => request.Complete(4));
        queue.Publish();
        Assert.Equal((0u, 4u), CollectOne(driver));
        Assert.True(driver.ArmCalls());
        Assert.Throws<InvalidOperationException>(() => driver.ResubmitInFlight());
        Assert.Equal(2, CollectAll(driver).Count);
        Assert.False(driver.ArmCalls());
    }

    [Fact]
    public void A_chain_that_waits_is_still_the_devices()
    {
        using RawRing ring = new(8, Split);
        (Virtqueue queue, List<PendingRequest> held) = TakeMixed(ring, 2);
        using (queue)
        {
            held[1].Complete(4);
            Assert.Throws<InvariantException>(() => held[1].Complete(4));
            Assert.Throws<InvariantException>(() => held[1].LetGo());
            ring.Offer(2);
            Assert.False(queue.TryTake(out _));
            Assert.Equal(VirtqueueFault.HeadInFlight, queue.Fault);
        }
    }

    [Theory]
    [InlineData(Split)]
    [InlineData(Packed)]
    public void What_waits_behind_a_hole_is_the_successors(ulong features)
    {
        using DriverMemory memory = new(1 << 16);
        DriverQueue driver = DriverQueue.Create(0, 8, memory, features);
        bool isPacked = features == Packed;
        DriverBuffer region = memory.Allocate(InflightSpec.QueueBytes(isPacked, 8), 64);
        Assert.True(memory.Memory.TryGetWindow(region.GuestAddress, region.Length, out MemoryWindow record));
        Add(driver, memory, 3);
        using (Virtqueue queue = Open(driver, memory, features, record))
        {
            List<PendingRequest> held = TakeAll(queue);
            held[0].Complete(4);
            held[2].Complete(4);
            queue.Publish();
            Assert.Equal((1, 1), (queue.InFlight, queue.WaitingForTurn));
        }

        Assert.Equal([(0u, 4u)], CollectAll(driver));
        Assert.True(driver.TryAdd([Pool(memory).Slice(0, 4)], [], 3));
        driver.Publish();
        using Virtqueue next = Open(driver, memory, features, record);
        List<PendingRequest> again = TakeAll(next);
        Assert.Equal(3, again.Count);
        again[2].Complete(0);
        again[1].Complete(2);
        Assert.False(next.HasUnpublished);
        again[0].Complete(4);
        next.Publish();
        Assert.Equal([(1u, 4u), (2u, 2u), (3u, 0u)], CollectAll(driver));
    }

    [Theory]
    [InlineData(Split)]
    [InlineData(Packed)]
    public async Task Stop_counts_what_waits_as_left_and_a_drain_leaves_nothing(ulong features)
    {
        await using QueueWorker worker = new("test");
        foreach (QueueStop how in (QueueStop[])[QueueStop.Suspend, QueueStop.Drain])
        {
            HoldDevice device = new();
            ServedRing ring = await ServedRing.StartAsync(device, worker, features: features);
            for (uint i = 0; i < 3; i++)
            {
                ring.Submit(i);
            }

            PendingRequest[] held = [device.Take(), device.Take(), device.Take()];
            held[2].Complete(4);
            held[1].Complete(4);
            Task<uint> stop = ring.Queue.StopAsync(how);
            if (how == QueueStop.Drain)
            {
                held[0].Complete(4);
            }

            await stop.WaitAsync(
                TimeSpan.FromMilliseconds(ServedRing.PatienceMs), TestContext.Current.CancellationToken);
            Assert.Equal(how == QueueStop.Drain ? 0 : 3, ring.Queue.LeftInFlight);
            Assert.Equal(how == QueueStop.Drain ? 3 : 0, CollectAll(ring.Driver).Count);
        }
    }

    private static (Virtqueue Queue, List<PendingRequest> Held) TakeMixed(RawRing ring, int count)
    {
        DriverBuffer buffer = ring.Memory.Allocate(16);
        for (ushort i = 0; i < count; i++)
        {
            ring.Describe(2 * i, buffer.Slice(0, 8), RawRing.Next, (ushort)((2 * i) + 1));
            ring.Describe((2 * i) + 1, buffer.Slice(8, 4), RawRing.Write);
            ring.Offer((ushort)(2 * i));
        }

        Virtqueue queue = ring.Open();
        List<PendingRequest> held = TakeAll(queue);
        Assert.Equal(count, held.Count);
        return (queue, held);
    }

    private static List<PendingRequest> TakeAll(Virtqueue queue)
    {
        List<PendingRequest> held = [];
        while (queue.TryTake(out DescriptorChain chain))
        {
            held.Add(chain.Detach());
        }

        Assert.Equal(VirtqueueFault.None, queue.Fault);
        return held;
    }

    private static (uint Token, uint Written) CollectOne(DriverQueue driver)
    {
        Assert.True(driver.TryCollect(out uint token, out uint written));
        return (token, written);
    }

    private static List<(uint Token, uint Written)> CollectAll(DriverQueue driver)
    {
        List<(uint Token, uint Written)> all = [];
        while (driver.TryCollect(out uint token, out uint written))
        {
            all.Add((token, written));
        }

        return all;
    }

    /// <summary>Chains of a readable and a writable buffer, which is filled by 4 bytes; tokens from 0 on.</summary>
    private static void Add(DriverQueue driver, DriverMemory memory, uint count)
    {
        DriverBuffer pool = Pool(memory);
        for (uint i = 0; i < count; i++)
        {
            Assert.True(driver.TryAdd([pool.Slice(0, 8)], [pool.Slice(8, 4)], i));
        }

        driver.Publish();
    }

    private static DriverBuffer Pool(DriverMemory memory)
    {
        DriverBuffer pool = memory.Allocate(16);
        BinaryPrimitives.WriteUInt32LittleEndian(pool.Span, 1);
        return pool;
    }

    private static MemoryWindow UsedRing(DriverQueue driver, DriverMemory memory)
    {
        Assert.True(memory.Memory.TryGetWindow(driver.Addresses.Used, 4 + (8 * 8), out MemoryWindow used));
        return used;
    }

    private static Virtqueue Open(DriverQueue driver, DriverMemory memory, ulong features, MemoryWindow record) =>
        Virtqueue.Create(new VringSetup
        {
            Index = 0,
            Size = driver.Size,
            Addresses = driver.Addresses,
            Base = driver.UsedBase,
            Features = features,
            Memory = memory.Memory,
            Inflight = record,
        });
}
