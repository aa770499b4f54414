// Translation of guest addresses, against a model that looks at one byte at a time.
using Outboard.Linux;
using Outboard.Memory;
using Xunit;

namespace Outboard.Tests.Memory;

public sealed class GuestMemoryTests
{
    private const ulong Top = ulong.MaxValue;

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(17)]
    [InlineData(64)]
    [InlineData(509)]
    public void Every_range_is_translated_as_its_bytes_are(int count)
    {
        for (int seed = 0; seed < 8; seed++)
        {
            Random random = new((count * 1000) + seed);
            using TestRegions regions = RandomLayout(random, count);
            GuestMemory memory = regions.Memory;
            int hint = random.Next(count + 2);
            for (int i = 0; i < 300; i++)
            {
                MemoryRegion near = regions.Regions[random.Next(count)];
                ulong address = near.GuestAddress + (ulong)random.Next(-20, (int)near.SizeBytes + 20);
                uint length = (uint)random.Next(random.Next(4) == 0 ? 5000 : 60);
                Check(memory, regions, address, length, ref hint);
            }
        }
    }

    [Fact]
    public void A_region_may_end_at_the_top_of_the_address_space()
    {
        using TestRegions regions = new();
        MemoryRegion low = regions.Add(0, 16);
        MemoryRegion high = regions.Add(Top - 4095, 4096);
        int hint = 0;
        Check(regions.Memory, regions, Top - 10, 11, ref hint);
        Check(regions.Memory, regions, Top, 1, ref hint);
        Assert.False(TryTranslate(regions.Memory, Top - 3, 5, ref hint, out _));
        Assert.False(TryTranslate(regions.Memory, Top, 2, ref hint, out _));
        Assert.True(regions.Memory.TryGetWindow(Top - 7, 8, out _));
        Assert.False(regions.Memory.TryGetWindow(Top - 7, 9, out _));
        Assert.Equal(16UL, low.SizeBytes);
        Assert.Equal(4096UL, high.SizeBytes);
    }

    [Theory]
    [InlineData(Top - 4094, 0UL)]
    [InlineData(Top, 0UL)]
    [InlineData(0UL, Top - 4094)]
    public void A_region_that_wraps_around_is_refused(ulong guestAddress, ulong userAddress)
    {
        using TestRegions regions = new();
        Assert.Throws<GuestMemoryException>(() => regions.Add(guestAddress, 4096, userAddress: userAddress));
    }

    [Theory]
    [InlineData(0x1000, 0x1000, 0x1000, 0x1000, true)]
    [InlineData(0x1000, 0x1000, 0x1FFF, 0x10, true)]
    [InlineData(0x1000, 0x1000, 0xFF1, 0x10, true)]
    [InlineData(0x1000, 0x1000, 0xFF0, 0x10, false)]
    [InlineData(0x1000, 0x1000, 0x2000, 0x10, false)]
    [InlineData(0x1000, 0x1000, 0x1800, 0x10, true)]
    [InlineData(0x1000, 0x10, 0x800, 0x2000, true)]
    public void Overlap_is_refused(int first, int firstSize, int second, int secondSize, bool overlaps)
    {
        using TestRegions regions = new();
        regions.Add((ulong)first, (ulong)firstSize);
        GuestMemory one = regions.Memory;
        MemoryRegion added = regions.Add((ulong)second, (ulong)secondSize);
        Assert.Equal(overlaps, Record.Exception(() => one.Add(added)) is GuestMemoryException);
        Assert.Equal(overlaps, Record.Exception(() => regions.Memory) is GuestMemoryException);
    }

    [Fact]
    public void There_may_be_509_regions_and_no_more()
    {
        using TestRegions regions = new();
        for (int i = 0; i < GuestMemory.MaxRegions; i++)
        {
            regions.Add((ulong)i * 4096, 4096);
        }

        GuestMemory full = regions.Memory;
        Assert.Equal(GuestMemory.MaxRegions, full.Regions.Length);
        MemoryRegion last = regions.Add(1UL << 40, 4096);
        Assert.Throws<GuestMemoryException>(() => full.Add(last));
        Assert.Equal(GuestMemory.MaxRegions, full.Remove(regions.Regions[7]).Add(last).Regions.Length);
    }

    [Fact]
    public void A_snapshot_does_not_change()
    {
        using TestRegions regions = new();
        MemoryRegion first = regions.Add(0, 4096);
        GuestMemory one = regions.Memory;
        MemoryRegion second = regions.Add(4096, 4096);
        GuestMemory two = one.Add(second);
        GuestMemory none = one.Remove(first);
        int hint = 0;
        Assert.False(TryTranslate(one, 4095, 2, ref hint, out _));
        Assert.True(TryTranslate(two, 4095, 2, ref hint, out List<IoSegment> segments));
        Assert.Equal(2, segments.Count);
        Assert.Equal(1, hint);
        Assert.False(TryTranslate(none, 0, 1, ref hint, out _));
        Assert.Empty(GuestMemory.Empty.Regions);
        Assert.False(GuestMemory.Empty.TryGetWindow(0, 0, out _));
    }

    [Fact]
    public void Nothing_is_translated_to_nothing_wherever_it_lies()
    {
        using TestRegions regions = new();
        regions.Add(0x1000, 4096);
        int hint = 0;
        foreach (ulong address in new ulong[] { 0, 0x1000, 0x1FFF, 0x2000, Top })
        {
            Assert.True(TryTranslate(regions.Memory, address, 0, ref hint, out List<IoSegment> segments));
            Assert.Empty(segments);
        }
    }

    [Fact]
    public void A_window_lies_in_one_region()
    {
        using TestRegions regions = new();
        MemoryRegion first = regions.Add(0x1000, 0x1000);
        regions.Add(0x2000, 0x1000, fileOffset: 0x8000);
        GuestMemory memory = regions.Memory;
        Assert.True(memory.TryGetWindow(0x1010, 0xFF0, out MemoryWindow window));
        Assert.Equal(0xFF0u, window.Length);
        window.Write(0, 0x1234);
        Assert.Equal(0x34, first.Segment.Slice(0x10, 1).Span[0]);
        Assert.False(memory.TryGetWindow(0x1010, 0xFF1, out _));
        Assert.False(memory.TryGetWindow(0xFFF, 1, out _));
        Assert.False(memory.TryGetWindow(0x3000, 0, out _));
        Assert.False(memory.TryGetWindow(0x1000, ulong.MaxValue, out _));
        Assert.True(memory.TryGetWindow(0x2FFF, 1, out _));
    }

    [Fact]
    public void User_addresses_are_translated()
    {
        using TestRegions regions = new();
        regions.Add(0x1000, 0x1000, userAddress: 0x7F00_0000_0000);
        regions.Add(0x8000, 0x2000, userAddress: 0x7E00_0000_0800);
        GuestMemory memory = regions.Memory;
        Assert.True(memory.TryTranslateUserAddress(0x7F00_0000_0FFF, out ulong guest));
        Assert.Equal(0x1FFFUL, guest);
        Assert.True(memory.TryTranslateUserAddress(0x7E00_0000_0800, out guest));
        Assert.Equal(0x8000UL, guest);
        Assert.False(memory.TryTranslateUserAddress(0x7F00_0000_1000, out guest));
        Assert.False(memory.TryTranslateUserAddress(0x7E00_0000_07FF, out guest));
        Assert.Equal(0UL, guest);
    }

    [Fact]
    public void A_buffer_of_almost_4_GiB_comes_in_segments_that_fit_a_span()
    {
        const ulong size = 5UL << 30;
        using TestRegions regions = new(size);
        regions.Add(0x1000, size);
        int hint = 0;
        foreach (uint length in new[] { 0x4000_0000u, 0x4000_0001u, 0x8000_0000u, 0xFFFF_FFFFu })
        {
            Assert.True(TryTranslate(regions.Memory, 0x1234, length, ref hint, out List<IoSegment> segments));
            Assert.All(segments, segment => Assert.Equal(segment.Length, segment.Span.Length));
            Assert.Equal(length, segments.Sum(segment => segment.Length));
            for (int i = 1; i < segments.Count; i++)
            {
                Assert.Equal(segments[i - 1].Address + (nuint)segments[i - 1].Length, segments[i].Address);
            }
        }
    }

    [Fact]
    public void A_range_across_all_regions_cannot_grow_a_chain_without_bound()
    {
        using TestRegions regions = new();
        for (int i = 0; i < GuestMemory.MaxRegions; i++)
        {
            regions.Add((ulong)i, 1);
        }

        using SegmentTable table = new(1);
        int count = 0;
        int hint = 0;
        int accepted = 0;
        while (accepted < 100_000
            && regions.Memory.TryAppend(0, GuestMemory.MaxRegions, table, 0, ref count, ref hint))
        {
            accepted++;
        }

        Assert.InRange(accepted, 1, 1000);
        Assert.InRange(table.OverflowBytes, 1, 16 << 20);
    }

    private static TestRegions RandomLayout(Random random, int count)
    {
        TestRegions regions = new();
        ulong address = (ulong)random.Next(1000);
        for (int i = 0; i < count; i++)
        {
            ulong size = (ulong)random.Next(1, random.Next(3) == 0 ? 3000 : 40);
            regions.Add(address, size, fileOffset: (ulong)random.Next(1 << 19));
            address += size + (ulong)(random.Next(2) == 0 ? 0 : random.Next(30));
        }

        return regions;
    }

    private static void Check(GuestMemory memory, TestRegions regions, ulong address, uint length, ref int hint)
    {
        List<nuint>? expected = [];
        for (ulong i = 0; i < length && expected is not null; i++)
        {
            ulong at = address + i;
            MemoryRegion? region = regions.Regions.FirstOrDefault(
                r => at >= r.GuestAddress && at - r.GuestAddress < r.SizeBytes);
            if (region is null || at < address)
            {
                expected = null;
            }
            else
            {
                expected.Add(region.Segment.Address + (nuint)(at - region.GuestAddress));
            }
        }

        bool isMapped = TryTranslate(memory, address, length, ref hint, out List<IoSegment> segments);
        Assert.Equal(expected is not null, isMapped);
        if (expected is not null)
        {
            Assert.DoesNotContain(segments, segment => segment.Length == 0);
            Assert.Equal(
                expected, segments.SelectMany(s => Enumerable.Range(0, (int)s.Length), (s, i) => s.Address + (nuint)i));
        }
    }

    private static bool TryTranslate(
        GuestMemory memory, ulong address, uint length, ref int hint, out List<IoSegment> segments)
    {
        using SegmentTable table = new(1);
        int count = 0;
        bool isMapped = memory.TryAppend(address, length, table, 0, ref count, ref hint);
        segments = [.. table.Segments(0, 0, count)];
        return isMapped;
    }
}
