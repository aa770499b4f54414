// DEVICE_GET_REGION_INFO: sizes, flags, and what can be mapped, when there is room to tell.
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class DeviceGetRegionInfoTests : CommandTest
{
    protected override VfioUserCommand Command => VfioUserCommand.DeviceGetRegionInfo;

    protected override byte[] GoodPayload => Ask(0, 32);

    [Theory]
    [InlineData(0, 3, 0x1000)]
    [InlineData(1, 3, 0x20)]
    [InlineData(3, 0, 0)]
    [InlineData(5, 3, 0x1000)]
    [InlineData(6, 0, 0)]
    [InlineData(7, 3, 0x1000)]
    [InlineData(8, 0, 0)]
    public async Task Regions_without_mapping(uint index, uint flags, ulong size)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        WireMessage reply = await client.CallAsync(Command, Ask(index, 200));
        RegionInfoPayload expected = new(32, (RegionFlags)flags, index, 0, size, 0);
        Assert.Equal(WireClient.Bytes(expected), reply.Payload);
        Assert.Empty(reply.Descriptors);
    }

    [Theory]
    [InlineData(32)]
    [InlineData(79)]
    public async Task Without_room_the_need_is_told_and_nothing_else(uint argsz)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        WireMessage reply = await client.CallAsync(Command, Ask(2, argsz));
        RegionInfoPayload expected = new(80, (RegionFlags)7, 2, 0, 0x4000, 0);
        Assert.Equal(WireClient.Bytes(expected), reply.Payload);
        Assert.Empty(reply.Descriptors);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(48)]
    public async Task Areas_and_descriptor_come_together(int room)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        WireMessage reply = await client.CallAsync(Command, [.. Ask(2, 80), .. new byte[room]]);
        byte[] expected =
        [
            .. WireClient.Bytes(new RegionInfoPayload(80, (RegionFlags)15, 2, 32, 0x4000, 0)),
            .. WireClient.Bytes(new SparseMmapPayload(1, 1, 0, 2, 0)),
            .. WireClient.Bytes(0x1000UL), .. WireClient.Bytes(0x1000UL),
            .. WireClient.Bytes(0x3000UL), .. WireClient.Bytes(0x1000UL),
        ];
        Assert.Equal(expected, reply.Payload);
        Assert.Single(reply.Descriptors).Dispose();
    }

    [Fact]
    public async Task Ill_formed_ones_are_refused()
    {
        await ExpectRefusedAsync(Ask(0, 31));
        await ExpectRefusedAsync(Ask(9, 32));
        await ExpectRefusedAsync(Ask(uint.MaxValue, 32));
    }

    private static byte[] Ask(uint index, uint argsz) =>
        WireClient.Bytes(new RegionInfoPayload(argsz, 0, index, 0, 0, 0));
}
