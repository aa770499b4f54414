// Everything that a driver can do wrong on a split ring, each with its exact fault; and what it may do.
using Outboard.Memory;
using Outboard.Tests.Memory;
using Outboard.Tests.Virtio.Rig;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Virtio;

public sealed class SplitVirtqueueFaultTests : IDisposable
{
    private readonly RawRing _ring = new(8);
    private readonly DriverBuffer _buffer;

    public SplitVirtqueueFaultTests() => _buffer = _ring.Memory.Allocate(64);

    public void Dispose() => _ring.Dispose();

    [Theory]
    [InlineData(9)]
    [InlineData(100)]
    [InlineData(65535)]
    public void The_available_index_moves_by_the_queue_size_at_most(int index)
    {
        _ring.AvailableIndex = (ushort)index;
        Expect(VirtqueueFault.AvailableIndexJumped);
    }

    [Fact]
    public void The_available_index_may_not_go_back()
    {
        _ring.OfferOne(0, _buffer);
        using Virtqueue queue = _ring.Open();
        Assert.True(queue.TryTake(out _));
        _ring.AvailableIndex = 0;
        Assert.True(queue.HasAvailable);
        Expect(queue, VirtqueueFault.AvailableIndexJumped);
    }

    [Theory]
    [InlineData(8)]
    [InlineData(65535)]
    public void A_head_lies_in_the_table(int head)
    {
        _ring.Offer((ushort)head);
        Expect(VirtqueueFault.HeadOutOfRange);
    }

    [Fact]
    public void A_head_is_offered_once_until_it_is_used()
    {
        _ring.OfferOne(3, _buffer);
        _ring.Offer(3);
        using Virtqueue queue = _ring.Open();
        Assert.True(queue.TryTake(out _));
        Expect(queue, VirtqueueFault.HeadInFlight);
        Assert.Equal(1, queue.InFlight);
    }

    [Theory]
    [InlineData(8)]
    [InlineData(65535)]
    public void A_next_lies_in_the_table(int next)
    {
        _ring.Describe(0, _buffer, RawRing.Next, (ushort)next);
        _ring.Offer(0);
        Expect(VirtqueueFault.NextOutOfRange);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    public void A_loop_is_a_chain_too_long(int back)
    {
        _ring.Describe(0, _buffer, RawRing.Next, 1);
        _ring.Describe(1, _buffer, RawRing.Next, (ushort)back);
        _ring.Offer(0);
        Expect(VirtqueueFault.ChainTooLong);
    }

    [Fact]
    public void A_chain_of_the_whole_table_is_none()
    {
        for (int i = 0; i < 8; i++)
        {
            _ring.Describe(i, _buffer, i < 7 ? RawRing.Next : (ushort)0, (ushort)(i + 1));
        }

        _ring.Offer(0);
        using Virtqueue queue = _ring.Open();
        Assert.True(queue.TryTake(out DescriptorChain chain));
        Assert.Equal(8 * 64, chain.Readable.Length);
    }

    [Fact]
    public void A_chain_has_4_GiB_at_most()
    {
        using RawRing ring = new(8, memoryBytes: 5UL << 30);
        ring.Describe(0, ring.Memory.GuestAddress, 0xFFFF_FFFF, RawRing.Next, 1);
        ring.Describe(1, ring.Memory.GuestAddress, 1, 0);
        ring.Describe(2, ring.Memory.GuestAddress, 0xFFFF_FFFF, RawRing.Next, 3);
        ring.Describe(3, ring.Memory.GuestAddress, 2, 0);
        ring.Offer(0);
        ring.Offer(2);
        using Virtqueue queue = ring.Open();
        Assert.True(queue.TryTake(out DescriptorChain chain));
        Assert.Equal(1L << 32, chain.Readable.Length);
        Expect(queue, VirtqueueFault.ChainTooLong);
    }

    [Theory]
    [InlineData(0UL, 1u)]
    [InlineData(ulong.MaxValue, 1u)]
    [InlineData(ulong.MaxValue, 2u)]
    [InlineData(0xFFFF_FFFFUL, 2u)]
    [InlineData(0x1_0000_0000UL, 0xFFFF_FFFFu)]
    public void A_buffer_lies_in_guest_memory(ulong address, uint length)
    {
        _ring.Describe(0, address, length);
        _ring.Offer(0);
        Expect(VirtqueueFault.BufferOutsideMemory);
    }

    [Fact]
    public void An_indirect_table_needs_the_feature()
    {
        using RawRing ring = new(8, RawRing.FeatureVersion1);
        ring.Describe(0, ring.Memory.Allocate(16, 16), RawRing.Indirect);
        ring.Offer(0);
        using Virtqueue queue = ring.Open();
        Expect(queue, VirtqueueFault.IndirectNotNegotiated);
    }

    [Theory]
    [InlineData(0u)]
    [InlineData(15u)]
    [InlineData(17u)]
    [InlineData(16u * 1025)]
    [InlineData(0xFFFF_FFF0u)]
    public void An_indirect_table_has_a_whole_number_of_entries_up_to_1024(uint length)
    {
        _ring.Describe(0, _ring.Memory.GuestAddress, length, RawRing.Indirect);
        _ring.Offer(0);
        Expect(VirtqueueFault.IndirectTableSize);
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(ulong.MaxValue - 15)]
    [InlineData(0x1_0000_0000UL + (4 << 20) - 8)]
    public void An_indirect_table_lies_in_guest_memory(ulong address)
    {
        _ring.Describe(0, address, 16, RawRing.Indirect);
        _ring.Offer(0);
        Expect(VirtqueueFault.IndirectTableOutsideMemory);
    }

    [Fact]
    public void An_indirect_table_has_none_inside()
    {
        DriverBuffer table = _ring.Memory.Allocate(32, 16);
        RawRing.Describe(table, 0, table.GuestAddress, 32, RawRing.Indirect);
        _ring.Describe(0, table, RawRing.Indirect);
        _ring.Offer(0);
        Expect(VirtqueueFault.IndirectMisplaced);
    }

    [Fact]
    public void An_indirect_table_is_the_end_of_a_chain()
    {
        DriverBuffer table = _ring.Memory.Allocate(32, 16);
        RawRing.Describe(table, 0, _buffer.GuestAddress, 64);
        _ring.Describe(0, table, RawRing.Indirect | RawRing.Next, 1);
        _ring.Describe(1, _buffer);
        _ring.Offer(0);
        Expect(VirtqueueFault.IndirectMisplaced);
    }

    [Theory]
    [InlineData(2, VirtqueueFault.NextOutOfRange)]
    [InlineData(65535, VirtqueueFault.NextOutOfRange)]
    [InlineData(0, VirtqueueFault.ChainTooLong)]
    [InlineData(1, VirtqueueFault.ChainTooLong)]
    public void A_next_of_an_indirect_table_lies_in_it_and_does_not_loop(int next, VirtqueueFault fault)
    {
        DriverBuffer table = _ring.Memory.Allocate(32, 16);
        RawRing.Describe(table, 0, _buffer.GuestAddress, 64, RawRing.Next, 1);
        RawRing.Describe(table, 1, _buffer.GuestAddress, 64, RawRing.Next, (ushort)next);
        _ring.Describe(0, table, RawRing.Indirect);
        _ring.Offer(0);
        Expect(fault);
    }

    [Fact]
    public void Buffers_may_stand_before_an_indirect_table_whose_write_flag_means_nothing()
    {
        DriverBuffer table = _ring.Memory.Allocate(32, 16);
        RawRing.Describe(table, 0, _buffer.GuestAddress, 10, RawRing.Next, 1);
        RawRing.Describe(table, 1, _buffer.GuestAddress, 20, RawRing.Write);
        _ring.Describe(5, _buffer, RawRing.Next, 6);
        _ring.Describe(6, table, RawRing.Indirect | RawRing.Write);
        _ring.Offer(5);
        using Virtqueue queue = _ring.Open();
        Assert.True(queue.TryTake(out DescriptorChain chain));
        Assert.Equal(74, chain.Readable.Length);
        Assert.Equal(20, chain.Writable.Length);
    }

    [Fact]
    public void An_indirect_table_of_1024_is_followed_although_the_queue_is_shorter()
    {
        DriverBuffer table = _ring.Memory.Allocate(16 * 1024, 16);
        for (int i = 0; i < 1024; i++)
        {
            ushort flags = (ushort)(RawRing.Write | (i < 1023 ? RawRing.Next : 0));
            RawRing.Describe(table, i, _buffer.GuestAddress, 1, flags, (ushort)(i + 1));
        }

        _ring.Describe(0, table, RawRing.Indirect);
        _ring.Offer(0);
        using Virtqueue queue = _ring.Open();
        Assert.True(queue.TryTake(out DescriptorChain chain));
        Assert.Equal(1024, chain.Writable.Segments.Length);
    }

    [Theory]
    [InlineData(false, 64u)]
    [InlineData(true, 64u)]
    [InlineData(false, 0u)]
    public void A_readable_buffer_does_not_follow_a_writable_one(bool isIndirect, uint firstLength)
    {
        DriverBuffer table = _ring.Memory.Allocate(32, 16);
        RawRing.Describe(table, 0, _buffer.GuestAddress, firstLength, RawRing.Write | RawRing.Next, 1);
        RawRing.Describe(table, 1, _buffer.GuestAddress, 64);
        _ring.Describe(0, table, RawRing.Indirect);
        _ring.Describe(1, _buffer.GuestAddress, firstLength, RawRing.Write | RawRing.Next, 2);
        _ring.Describe(2, _buffer);
        _ring.Offer((ushort)(isIndirect ? 0 : 1));
        Expect(VirtqueueFault.ReadableAfterWritable);
    }

    [Fact]
    public void The_ring_stays_in_guest_memory()
    {
        using Virtqueue queue = _ring.Open();
        using TestRegions elsewhere = new();
        elsewhere.Add(0x1000, 4096);
        Assert.False(queue.TryAdopt(elsewhere.Memory));
        _ring.OfferOne(0, _buffer);
        Expect(queue, VirtqueueFault.RingOutsideMemory);
    }

    [Fact]
    public void A_ring_that_left_guest_memory_is_not_touched_any_more()
    {
        using RawRing ring = new(8, RawRing.FeatureVersion1);
        using Virtqueue queue = ring.Open();
        Assert.False(queue.TryAdopt(GuestMemory.Empty));
        ring.UsedFlags = 0;
        queue.SuppressKicks();
        Assert.False(queue.ArmKicks());
        Assert.Equal(0, ring.UsedFlags);
        Assert.False(queue.HasUnpublished);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    [InlineData(65536)]
    [InlineData(-8)]
    public void A_ring_of_another_size_is_refused(int size)
    {
        VringSetup good = _ring.Setup();
        VringSetup setup = new()
        {
            Index = 0,
            Size = size,
            Addresses = good.Addresses,
            Base = 0,
            Features = good.Features,
            Memory = good.Memory,
        };
        Assert.Equal("num", Assert.Throws<VringSetupException>(() => Virtqueue.Create(setup)).Field);
    }

    [Theory]
    [InlineData(8, 0, 0)]
    [InlineData(0, 1, 0)]
    [InlineData(0, 0, 2)]
    [InlineData(1 << 22, 0, 0)]
    [InlineData(0, 1 << 22, 0)]
    [InlineData(0, 0, 1 << 22)]
    [InlineData(0, 0, (4 << 20) - 2048)]
    public void A_ring_misplaced_is_refused(uint descriptors, uint available, uint used)
    {
        VringSetup good = _ring.Setup();
        VringSetup setup = new()
        {
            Index = 0,
            Size = 8,
            Addresses = new VringAddresses(
                good.Addresses.Descriptors + descriptors,
                good.Addresses.Available + available,
                used > 4096 ? _ring.Memory.GuestAddress + (4 << 20) - 64 : good.Addresses.Used + used),
            Base = 0,
            Features = good.Features,
            Memory = good.Memory,
        };
        Assert.Equal("addr", Assert.Throws<VringSetupException>(() => Virtqueue.Create(setup)).Field);
    }

    private void Expect(VirtqueueFault fault)
    {
        using Virtqueue queue = _ring.Open();
        Expect(queue, fault);
    }

    /// <summary>The fault is this one; from then on nothing is taken, whatever the driver does.</summary>
    private void Expect(Virtqueue queue, VirtqueueFault fault)
    {
        uint index = queue.Base;
        Assert.False(queue.TryTake(out _));
        Assert.Equal(fault, queue.Fault);
        Assert.False(queue.HasAvailable);
        _ring.OfferOne(1, _buffer);
        Assert.False(queue.TryTake(out _));
        Assert.False(queue.HasAvailable);
        Assert.False(queue.ArmKicks());
        queue.SuppressKicks();
        Assert.Equal(fault, queue.Fault);
        Assert.Equal(index, queue.Base);
    }
}
