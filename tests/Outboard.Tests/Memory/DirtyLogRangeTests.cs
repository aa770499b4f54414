// Taking a part of a log: only that part's marks go.
using Outboard.Memory;
using Xunit;

namespace Outboard.Tests.Memory;

public sealed class DirtyLogRangeTests
{
    [Theory]
    [InlineData(0UL, 0UL)]
    [InlineData(1UL, 62UL)]
    [InlineData(63UL, 64UL)]
    [InlineData(64UL, 127UL)]
    [InlineData(5UL, 300UL)]
    [InlineData(200UL, 1UL << 40)]
    [InlineData(1UL << 41, 1UL << 42)]
    public void Only_the_range_is_taken(ulong first, ulong last)
    {
        using DirtyLog log = DirtyLog.Create(256 * DirtyLog.PageBytes);
        log.Mark(0, 256 * DirtyLog.PageBytes);
        List<ulong> taken = [];
        log.Harvest(first, last, taken);
        ulong[] all = [.. Enumerable.Range(0, 256).Select(page => (ulong)page)];
        Assert.Equal(all.Where(page => page >= first && page <= last), taken);
        List<ulong> rest = [];
        log.Harvest(rest);
        Assert.Equal(all.Except(taken), rest);
    }
}
