// REM_MEM_REG: takes a region away. With rings in it: MemoryChangeTests.
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class RemMemRegTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.RemMemReg;

    protected override ProtocolFeatures Gate => ProtocolFeatures.ConfigureMemSlots;

    protected override byte[] GoodPayload => WirePeer.Bytes(_region);

    private readonly SingleMemoryRegionPayload _region =
        new(0, new MemoryRegionPayload(0x100000, 4096, 0x7f00_0000_0000, 0));

    protected override int MaxDescriptors => 1;

    private protected override async Task PrepareAsync(WirePeer peer)
    {
        await peer.NegotiateAsync();
        await peer.DoAsync(FrontendRequest.AddMemReg, _region, Rig.MemoryFile());
    }

    [Fact]
    public async Task Unknown_region_is_refused()
    {
        MemoryRegionPayload region = _region.Region;
        await ExpectRefusedAsync(WirePeer.Bytes(_region with { Region = region with { GuestAddress = 0x200000 } }));
        await ExpectRefusedAsync(WirePeer.Bytes(_region with { Region = region with { UserAddress = 0x200000 } }));
        await ExpectRefusedAsync(WirePeer.Bytes(_region with { Region = region with { SizeBytes = 2048 } }));
    }

    [Fact]
    public async Task Second_removal_is_refused()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoAsync(Request, _region);
        await peer.RefusedAsync(Request, GoodPayload);
    }

    [Fact]
    public async Task Offset_in_the_file_is_ignored()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoAsync(Request, _region with { Region = _region.Region with { MmapOffset = 12345 } });
    }

    [Fact]
    public async Task Descriptor_that_comes_along_is_closed()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        FileDescriptor file = Rig.MemoryFile();
        OpenThings before = OpenThings.Count();
        await peer.DoAsync(Request, _region, file);
        await (before with { Mappings = before.Mappings - 1 }).AssertNothingLeftAsync();
    }

    [Fact]
    public async Task Region_may_be_added_again()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        for (int i = 0; i < 5; i++)
        {
            await peer.DoAsync(Request, _region);
            await peer.DoAsync(FrontendRequest.AddMemReg, _region, Rig.MemoryFile());
        }
    }
}
