// The bitmap of dirty pages: which bits a range sets, what lies outside, and several threads at once.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Xunit;

namespace Outboard.Tests.Memory;

public sealed class DirtyLogTests
{
    private const ulong Page = DirtyLog.PageBytes;

    [Theory]
    [InlineData(0, 1, 0, 0)]
    [InlineData(4095, 1, 0, 0)]
    [InlineData(4095, 2, 0, 1)]
    [InlineData(4096, 4096, 1, 1)]
    [InlineData(63 * Page, 2 * Page, 63, 64)]
    [InlineData(1, 200 * Page, 0, 200)]
    [InlineData(64 * Page, 64 * Page, 64, 127)]
    public void A_range_marks_each_page_that_it_touches(ulong address, ulong length, ulong first, ulong last)
    {
        using DirtyLog log = Log(64);
        log.Mark(address, length);
        List<ulong> pages = [];
        log.Harvest(pages);
        Assert.Equal(Enumerable.Range((int)first, (int)(last - first + 1)).Select(page => (ulong)page), pages);
        pages.Clear();
        log.Harvest(pages);
        Assert.Empty(pages);
    }

    [Fact]
    public void Bits_are_counted_from_the_lowest_of_each_byte()
    {
        using FileDescriptor file = MemFd.Create("outboard-log-test", 64);
        using MemoryMapping view = MemoryMapping.Map(file, 0, 64);
        using DirtyLog log = new(MemoryMapping.Map(file, 0, 64));
        log.Mark(0, 1);
        log.Mark(9 * Page, 1);
        log.Mark(511 * Page, 1);
        Assert.Equal<byte>([1, 2], view.Segment.Span[..2].ToArray());
        Assert.Equal(0x80, view.Segment.Span[63]);
    }

    [Theory]
    [InlineData(512 * Page, 1)]
    [InlineData(ulong.MaxValue, 1)]
    [InlineData(ulong.MaxValue - 5, ulong.MaxValue)]
    [InlineData(0, 0)]
    public void Pages_without_a_bit_are_passed_over(ulong address, ulong length)
    {
        using DirtyLog log = Log(64);
        log.Mark(address, length);
        List<ulong> pages = [];
        log.Harvest(pages);
        Assert.Empty(pages);
    }

    [Fact]
    public void A_range_that_leaves_the_log_marks_what_is_inside()
    {
        using DirtyLog log = Log(64);
        log.Mark(510 * Page, ulong.MaxValue);
        List<ulong> pages = [];
        log.Harvest(pages);
        Assert.Equal([510, 511], pages);
    }

    [Theory]
    [InlineData(0, 512 * Page, true)]
    [InlineData(0, (512 * Page) + 1, false)]
    [InlineData(512 * Page, 0, true)]
    [InlineData(511 * Page, Page, true)]
    [InlineData(511 * Page, Page + 1, false)]
    [InlineData(ulong.MaxValue, 2, false)]
    public void Cover(ulong address, ulong length, bool covers)
    {
        using DirtyLog log = Log(64);
        Assert.Equal(covers, log.Covers(address, length));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(64 * Page)]
    [InlineData((64 * Page) - 1)]
    [InlineData(0x1_0000_0000)]
    public void Bytes_that_are_computed_cover_the_end(ulong end)
    {
        using DirtyLog log = Log(DirtyLog.BytesFor(end));
        Assert.True(log.Covers(0, end));
    }

    [Fact]
    public void A_size_that_is_no_multiple_of_a_word_has_that_many_pages()
    {
        using DirtyLog log = Log(9);
        log.Mark(0, 1000 * Page);
        List<ulong> pages = [];
        log.Harvest(pages);
        Assert.Equal(72, pages.Count);
    }

    [Fact]
    public void A_misaligned_bitmap_is_refused()
    {
        using FileDescriptor file = MemFd.Create("outboard-log-test", 64);
        using MemoryMapping mapping = MemoryMapping.Map(file, 4, 60);
        Assert.Throws<GuestMemoryException>(() => new DirtyLog(mapping));
    }

    [Fact]
    public void A_truncated_file_costs_marks_and_nothing_else()
    {
        using FileDescriptor file = MemFd.CreateUnsealed("outboard-log-test", 8192);
        using DirtyLog log = new(MemoryMapping.Map(file, 0, 8192));
        MemFd.Resize(file, 0);
        log.Mark(0, 65536 * Page);
        Assert.True(log.IsTruncated);
    }

    [Fact]
    public async Task Marks_of_several_threads_are_all_kept_while_another_harvests()
    {
        const int threads = 4;
        const ulong pages = 64 * 64;
        using DirtyLog log = Log(pages / 8);
        HashSet<ulong> seen = [];
        int running = threads;
        Task[] marking = [.. Enumerable.Range(0, threads).Select(thread => Task.Run(() =>
        {
            // Each thread marks other bits of the same words.
            for (ulong page = (ulong)thread; page < pages; page += threads)
            {
                log.Mark(page * Page, 1);
            }

            Interlocked.Decrement(ref running);
        }))];
        do
        {
            List<ulong> taken = [];
            log.Harvest(taken);
            seen.UnionWith(taken);
        }
        while (Volatile.Read(ref running) > 0);

        await Task.WhenAll(marking);
        List<ulong> rest = [];
        log.Harvest(rest);
        seen.UnionWith(rest);
        Assert.Equal((int)pages, seen.Count);
    }

    [Fact]
    public void Host_addresses_lead_back_to_the_guest()
    {
        using TestRegions regions = new();
        regions.Add(0x8000, 0x3000, fileOffset: 0x4000);
        regions.Add(0x10_0000, 0x1234, fileOffset: 0x123);
        regions.Add(0, 0x1000, fileOffset: 0x4000);
        HostAddressMap map = new(regions.Memory);
        int hint = 0;
        foreach (MemoryRegion region in regions.Regions)
        {
            foreach (long offset in (long[])[0, 1, (long)region.SizeBytes - 1])
            {
                IoSegment segment = region.Segment.Slice(offset, 1);
                Assert.True(map.TryFind(in segment, ref hint, out ulong address));
                Assert.Equal(region.GuestAddress + (ulong)offset, address);
            }
        }

        using DriverBytes other = new();
        IoSegment foreign = other.Segment;
        Assert.False(map.TryFind(in foreign, ref hint, out _));
        Assert.False(new HostAddressMap(GuestMemory.Empty).TryFind(in foreign, ref hint, out _));
    }

    private static DirtyLog Log(ulong bytes)
    {
        using FileDescriptor file = MemFd.Create("outboard-log-test", bytes);
        return new DirtyLog(MemoryMapping.Map(file, 0, bytes));
    }

    private sealed class DriverBytes : IDisposable
    {
        private readonly MemoryMapping _mapping;

        internal DriverBytes()
        {
            using FileDescriptor file = MemFd.Create("outboard-other", 4096);
            _mapping = MemoryMapping.Map(file, 0, 4096);
        }

        internal IoSegment Segment => _mapping.Segment;

        public void Dispose() => _mapping.Dispose();
    }
}
