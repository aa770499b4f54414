// REGION_READ.
using Outboard.Linux;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class RegionReadTests : CommandTest
{
    protected override VfioUserCommand Command => VfioUserCommand.RegionRead;

    protected override byte[] GoodPayload => Read(0, 0, 4);

    [Fact]
    public async Task Any_width_at_any_offset()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        Assert.Equal("VFUT"u8.ToArray(), await client.ReadRegionAsync(0, 0, 4));
        Assert.Equal("FUT"u8.ToArray(), await client.ReadRegionAsync(0, 1, 3));
        Assert.Equal(0x1000, (await client.ReadRegionAsync(0, 0, 0x1000)).Length);
        Assert.Equal([0x0d, 0xf0, 0x57, 0x7e], await client.ReadRegionAsync(7, 0, 4));
        Assert.Equal(0x1000, (await client.ReadRegionAsync(7, 0, 0x1000)).Length);
        Assert.Equal([0], await client.ReadRegionAsync(1, 0x1f, 1));
        Assert.Empty(await client.ReadRegionAsync(0, 0, 0));
        Assert.Empty(await client.ReadRegionAsync(0, 0x1000, 0));
    }

    [Theory]
    [InlineData(0, 0x1000, 1)]
    [InlineData(0, 0xfff, 2)]
    [InlineData(0, ulong.MaxValue, 256)]
    [InlineData(0, 0, 0x1001)]
    [InlineData(1, 0x20, 1)]
    [InlineData(7, 0xffd, 4)]
    [InlineData(4, 0, (1 << 20) + 8)]
    [InlineData(4, 0, uint.MaxValue)]
    [InlineData(3, 0, 1)]
    [InlineData(6, 0, 1)]
    [InlineData(8, 0, 1)]
    [InlineData(9, 0, 1)]
    [InlineData(0xdeadbeef, 0, 1)]
    public Task Accesses_outside_are_refused(uint region, ulong offset, uint count) =>
        ExpectRefusedAsync(Read(region, offset, count));

    [Fact]
    public async Task The_largest_transfer_goes_through()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        Assert.Equal(1 << 20, (await client.ReadRegionAsync(4, 0, 1 << 20)).Length);
        Assert.Equal(1 << 20, (await client.ReadRegionAsync(4, 1 << 20, 1 << 20)).Length);
    }

    private static byte[] Read(uint region, ulong offset, uint count) =>
        WireClient.Bytes(new RegionAccessPayload(offset, region, count));
}
