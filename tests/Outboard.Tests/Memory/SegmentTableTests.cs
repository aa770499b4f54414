// Where the buffers of chains are kept: growth, reuse, and what it may cost.
using Outboard.Linux;
using Outboard.Memory;
using Xunit;

namespace Outboard.Tests.Memory;

public sealed class SegmentTableTests
{
    private const int SegmentBytes = 16;

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    [InlineData(5)]
    [InlineData(16)]
    [InlineData(17)]
    [InlineData(1000)]
    [InlineData(40_000)]
    public void Segments_keep_their_order_however_many(int count)
    {
        using SegmentTable table = new(3);
        int[] counts = new int[3];
        for (int i = 0; i < count; i++)
        {
            for (int slot = 0; slot < 3; slot++)
            {
                table.Append(slot, ref counts[slot], Segment(slot, i));
            }
        }

        for (int slot = 0; slot < 3; slot++)
        {
            Span<IoSegment> segments = table.Segments(slot, 0, count);
            for (int i = 0; i < count; i++)
            {
                Assert.Equal(Segment(slot, i), segments[i]);
            }
        }

        Assert.Equal(count <= SegmentTable.InlineCapacity, table.OverflowBytes == 0);
    }

    [Theory]
    [InlineData(-1, 1)]
    [InlineData(0, 5)]
    [InlineData(4, 1)]
    [InlineData(1, int.MaxValue)]
    [InlineData(0, -1)]
    public void A_range_outside_of_a_slot_is_refused(int start, int count)
    {
        using SegmentTable table = new(2);
        Assert.Throws<InvalidOperationException>(() => table.Segments(1, start, count).Length);
        Assert.Throws<IndexOutOfRangeException>(() => table.Segments(2, 0, 1).Length);
        Assert.Equal(0, table.Segments(1, 4, 0).Length);
    }

    [Fact]
    public void Very_large_blocks_are_given_back()
    {
        using SegmentTable table = new(2);
        Fill(table, 0, 257);
        Assert.Equal(1024 * SegmentBytes, table.OverflowBytes);
        table.Release(0);
        Assert.Equal(0, table.OverflowBytes);
        Fill(table, 0, 3);
        Assert.Equal(3, table.Segments(0, 0, 3).Length);
    }

    [Fact]
    public void A_moderate_block_is_kept_for_the_next_chain()
    {
        using SegmentTable table = new(2);
        Fill(table, 0, 200);
        table.Release(0);
        long kept = table.OverflowBytes;
        Assert.Equal(256 * SegmentBytes, kept);
        Fill(table, 0, 200);
        table.Release(0);
        Assert.Equal(kept, table.OverflowBytes);
    }

    [Fact]
    public void What_is_kept_stays_far_below_the_budget_of_a_queue()
    {
        // Each slot once had a chain of 65 buffers: what the idle slots keep must not throttle the queue for ever.
        using SegmentTable table = new(32768);
        for (int slot = 0; slot < 32768; slot++)
        {
            Fill(table, slot, 65);
            table.Release(slot);
        }

        Assert.InRange(table.OverflowBytes, 0, Outboard.Virtio.Queue.Virtqueue.SegmentBudgetBytes / 2);
    }

    [Fact]
    public void Disposal_frees_everything_and_may_come_twice()
    {
        SegmentTable table = new(4);
        Fill(table, 1, 100);
        table.Dispose();
        Assert.Equal(0, table.OverflowBytes);
        table.Dispose();
    }

    private static void Fill(SegmentTable table, int slot, int count)
    {
        int filled = 0;
        while (filled < count)
        {
            table.Append(slot, ref filled, Segment(slot, filled));
        }
    }

    private static IoSegment Segment(int slot, int index) => new((nuint)(0x10000 + slot), (nuint)(index + 1));
}
