// ADD_MEM_REG: one more region, with one descriptor.
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class AddMemRegTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.AddMemReg;

    protected override ProtocolFeatures Gate => ProtocolFeatures.ConfigureMemSlots;

    protected override byte[] GoodPayload => WirePeer.Bytes(Region());

    private const ulong Page = 4096;

    protected override int MaxDescriptors => 1;

    private protected override FileDescriptor[] GoodDescriptors() => [Rig.MemoryFile(4 * Page)];

    [Fact]
    public Task Missing_descriptor_is_refused() => ExpectRefusedAsync(GoodPayload);

    [Fact]
    public Task Size_zero_is_refused() => RefusedAsync(Region(size: 0));

    [Fact]
    public Task Region_beyond_the_end_of_its_file_is_refused() => RefusedAsync(Region(size: (4 * Page) + 1));

    [Theory]
    [InlineData(1)]
    [InlineData(4 * Page)]
    [InlineData(ulong.MaxValue)]
    [InlineData(ulong.MaxValue - 0xFFF)]
    [InlineData(1UL << 63)]
    public Task Offset_beyond_the_end_of_its_file_is_refused(ulong offset) =>
        RefusedAsync(Region(size: 4 * Page, offset: offset));

    [Theory]
    [InlineData(ulong.MaxValue)]
    [InlineData(1UL << 63)]
    [InlineData(1UL << 47)]
    public Task Enormous_size_is_refused(ulong size) => RefusedAsync(Region(size: size));

    [Fact]
    public async Task Region_that_wraps_around_is_refused()
    {
        await RefusedAsync(Region(guest: ulong.MaxValue - Page + 2));
        await RefusedAsync(Region(user: ulong.MaxValue - Page + 2));
    }

    [Fact]
    public Task Eventfd_is_no_memory() => ExpectRefusedAsync(GoodPayload, Rig.Event().Descriptor);

    [Fact]
    public Task Socket_is_no_memory() => ExpectRefusedAsync(GoodPayload, Rig.SocketPair().Passed);

    [Theory]
    [InlineData(0UL)]
    [InlineData(Page - 1)]
    public async Task Overlap_in_guest_addresses_is_refused(ulong shift)
    {
        using WirePeer peer = await ConnectPreparedAsync();
        FileDescriptor file = Rig.MemoryFile(4 * Page);
        await peer.DoAsync(Request, Region(guest: 0x100000), file);
        await peer.RefusedAsync(Request, WirePeer.Bytes(Region(guest: 0x100000 + shift, user: 0x50000)), file);
        await peer.RefusedAsync(Request, WirePeer.Bytes(Region(guest: 0x100000 - shift, user: 0x50000)), file);
        await peer.DoAsync(Request, Region(guest: 0x100000 + Page, user: 0x50000), file);
        await peer.DoAsync(Request, Region(guest: 0x100000 - Page, user: 0x60000), file);
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(Page - 1)]
    public async Task Overlap_in_user_addresses_is_refused(ulong shift)
    {
        using WirePeer peer = await ConnectPreparedAsync();
        FileDescriptor file = Rig.MemoryFile(4 * Page);
        await peer.DoAsync(Request, Region(guest: 0x100000, user: 0x50000), file);
        await peer.RefusedAsync(Request, WirePeer.Bytes(Region(guest: 0x200000, user: 0x50000 + shift)), file);
        await peer.RefusedAsync(Request, WirePeer.Bytes(Region(guest: 0x200000, user: 0x50000 - shift)), file);
        await peer.DoAsync(Request, Region(guest: 0x200000, user: 0x50000 + Page), file);
    }

    [Fact]
    public async Task With_guest_addresses_the_user_address_is_the_same_and_may_be_zero()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync(WirePeer.OfferedProtocolFeatures);
        FileDescriptor file = Rig.MemoryFile(4 * Page);
        await peer.RefusedAsync(Request, WirePeer.Bytes(Region(guest: 0, user: 0x1000)), file);
        await peer.DoAsync(Request, Region(guest: 0, user: 0), file);
        await peer.DoAsync(FrontendRequest.RemMemReg, Region(guest: 0, user: 0));
    }

    [Fact]
    public async Task As_many_as_are_offered_and_not_one_more()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        FileDescriptor file = Rig.MemoryFile(4 * Page);
        for (ulong i = 0; i < 509; i++)
        {
            await peer.DoAsync(Request, Region((i + 1) << 20, (i + 1) << 20), file);
        }

        await peer.RefusedAsync(Request, WirePeer.Bytes(Region(510UL << 20, 510UL << 20)), file);
        await peer.DoAsync(FrontendRequest.RemMemReg, Region(1UL << 20, 1UL << 20));
        await peer.DoAsync(Request, Region(510UL << 20, 510UL << 20), file);
    }

    [Fact]
    public async Task Odd_sizes_and_offsets_are_mapped()
    {
        // libblkio shares what its process has, not whole pages.
        using WirePeer peer = await ConnectPreparedAsync();
        FileDescriptor file = Rig.MemoryFile(4 * Page);
        await peer.DoAsync(Request, Region(size: 0x3b1), file);
        await peer.DoAsync(Request, Region(guest: 0x200001, user: 0x900010, size: 0x2345, offset: 0x10), file);
    }

    [Fact]
    public async Task Addresses_may_be_zero()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoAsync(Request, Region(guest: 0, user: 0), Rig.MemoryFile(Page));
    }

    [Fact]
    public async Task Refused_region_is_not_mapped()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        FileDescriptor file = Rig.MemoryFile(4 * Page);
        await peer.DoAsync(Request, Region(), file);
        OpenThings before = OpenThings.Count();
        await peer.RefusedAsync(Request, WirePeer.Bytes(Region()), file);
        await before.AssertNothingLeftAsync();
    }

    private static SingleMemoryRegionPayload Region(
        ulong guest = 0x100000, ulong user = 0x7f00_0000_0000, ulong size = Page, ulong offset = 0) =>
        new(0, new MemoryRegionPayload(guest, size, user, offset));

    private Task RefusedAsync(SingleMemoryRegionPayload region) =>
        ExpectRefusedAsync(WirePeer.Bytes(region), GoodDescriptors());
}
