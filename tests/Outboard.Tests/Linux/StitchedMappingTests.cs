// Scattered pages, mapped a second time side by side.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Xunit;

namespace Outboard.Tests.Linux;

public sealed class StitchedMappingTests : IDisposable
{
    private const int Page = 4096;

    private readonly FileDescriptor _file = MemFd.Create("stitched", 8 * Page);
    private readonly MemoryMapping _mapping;

    public StitchedMappingTests() => _mapping = MemoryMapping.Map(_file, 0, 8 * Page);

    public void Dispose()
    {
        _mapping.Dispose();
        _file.Dispose();
    }

    [Fact]
    public void Both_views_show_the_same_pages()
    {
        IoSegment all = _mapping.Segment;
        using StitchedMapping stitched = StitchedMapping.TryCreate(
            [all.Slice((5 * Page) + 100, Page - 100), all.Slice(Page, 2 * Page), all.Slice(0, 8)])!;
        Assert.Equal((3 * Page) - 100 + 8, stitched.Segment.Length);
        all.Slice((5 * Page) + 100, 1).Span[0] = 1;
        all.Slice(Page, 1).Span[0] = 2;
        all.Slice((3 * Page) - 1, 1).Span[0] = 3;
        all.Slice(7, 1).Span[0] = 4;
        Span<byte> seen = stitched.Segment.Span;
        Assert.Equal([1, 2, 3, 4], (byte[])[seen[0], seen[Page - 100], seen[(3 * Page) - 101], seen[^1]]);
        seen[1] = 9;
        Assert.Equal(9, all.Slice((5 * Page) + 101, 1).Span[0]);
    }

    [Fact]
    public void The_same_page_may_stand_twice()
    {
        IoSegment page = _mapping.Segment.Slice(Page, Page);
        using StitchedMapping stitched = StitchedMapping.TryCreate([page, page])!;
        stitched.Segment.Span[0] = 7;
        Assert.Equal(7, stitched.Segment.Span[Page]);
    }

    [Theory]
    [InlineData(0, Page - 1, Page, Page)]
    [InlineData(0, Page, Page + 1, Page)]
    public void Pieces_that_do_not_meet_at_pages_are_refused(int first, int length, int second, int secondLength) =>
        Assert.Null(StitchedMapping.TryCreate(
            [_mapping.Segment.Slice(first, length), _mapping.Segment.Slice(second, secondLength)]));

    [Fact]
    public void Private_memory_is_refused_and_nothing_stays_mapped()
    {
        using AlignedBuffer buffer = new(2 * Page);
        Assert.Null(StitchedMapping.TryCreate([_mapping.Segment.Slice(0, Page), buffer.Segment.Slice(0, Page)]));
        Assert.Null(StitchedMapping.TryCreate([]));
    }
}
