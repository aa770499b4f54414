// Guest memory in pieces, as a machine gives it, becomes few regions for a back-end.
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.VhostUser.Frontend;
using Xunit;

namespace Outboard.Tests.VfioUser.Bridge;

public sealed class PassedRegionTests : IDisposable
{
    private const ulong Page = 0x1000;
    private readonly FileSharedMemory _first = new(MemFd.Create("first", 64 * Page));
    private readonly FileSharedMemory _second = new(MemFd.Create("second", 64 * Page));
    private readonly List<MemoryRegion> _regions = [];

    public void Dispose()
    {
        _regions.ForEach(region => region.Dispose());
        _first.Dispose();
        _second.Dispose();
    }

    [Fact]
    public void Neighbours_in_guest_and_object_are_one()
    {
        Add(_first, 0, 0, 4);
        Add(_first, 4 * Page, 4, 4);
        Add(_first, 8 * Page, 9, 1);
        Add(_first, 9 * Page, 10, 1);
        Add(_second, 10 * Page, 11, 1);
        Add(_second, 20 * Page, 12, 2);
        PassedRegion[] regions = PassedRegion.Of(GuestMemory.Create(_regions), 8, out int leftOut);
        Assert.Equal(0, leftOut);
        Assert.Equal(
            [(0, 8 * Page, 0UL), (8 * Page, 2 * Page, 9 * Page), (10 * Page, Page, 11 * Page),
                (20 * Page, 2 * Page, 12 * Page)],
            regions.Select(region => (region.GuestAddress, region.SizeBytes, region.Offset)));
        Assert.True(regions[0].IsSame(regions[0] with { }));
        Assert.False(regions[0].IsSame(regions[0] with { Offset = Page }));
        Assert.False(regions[0].IsSame(regions[0] with { Identity = regions[2].Identity }));
    }

    [Fact]
    public void The_smallest_are_left_out_and_what_has_no_object_is_not_passed_on()
    {
        Add(_first, 0, 0, 1);
        Add(_first, 16 * Page, 16, 3);
        Add(_first, 32 * Page, 32, 2);
        Add(_first, ulong.MaxValue - (2 * Page) + 1, 40, 1);
        _regions.Add(new MemoryRegion(48 * Page, 0, _first.Map(0, Page)));
        PassedRegion[] regions = PassedRegion.Of(GuestMemory.Create(_regions), 2, out int leftOut);
        Assert.Equal(1, leftOut);
        Assert.Equal([16 * Page, 32 * Page], regions.Select(region => region.GuestAddress));
    }

    private void Add(FileSharedMemory memory, ulong address, ulong filePage, ulong pages) => _regions.Add(
        new MemoryRegion(address, 0, memory.Map(filePage * Page, pages * Page))
        {
            Source = new RegionSource(new FileSharedMemory(memory.Descriptor.Duplicate()), filePage * Page),
        });
}
