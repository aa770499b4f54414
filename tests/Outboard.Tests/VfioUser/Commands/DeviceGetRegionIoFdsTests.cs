// DEVICE_GET_REGION_IO_FDS: doorbells that are rung without a message.
using Outboard.Linux.Events;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class DeviceGetRegionIoFdsTests : CommandTest
{
    protected override VfioUserCommand Command => VfioUserCommand.DeviceGetRegionIoFds;

    protected override byte[] GoodPayload => Ask(1, 16);

    [Fact]
    public async Task Doorbells_and_their_descriptors()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        WireMessage reply = await client.CallAsync(Command, Ask(0, 16 + (3 * 40)));
        byte[] expected =
        [
            .. WireClient.Bytes(new RegionIoFdsPayload(136, 0, 0, 3)),
            .. WireClient.Bytes(new IoEventFdEntry(0x100, 4, 0, 0, 0, 0, 0)),
            .. WireClient.Bytes(new IoEventFdEntry(0x104, 4, 0, 0, 1, 0, 0xcafe)),
            .. WireClient.Bytes(new IoEventFdEntry(0x108, 8, 1, 0, 0, 0, 0)),
        ];
        Assert.Equal(expected, reply.Payload);
        Assert.Equal(2, reply.Descriptors.Length);
        using EventFd first = new(reply.Descriptors[0]);
        using EventFd second = new(reply.Descriptors[1]);
        first.Signal();
        first.Signal();
        second.Signal();
        Assert.Equal(2u, await client.ReadRegionAsync<uint>(0, 0x110));
        Assert.Equal(1u, await client.ReadRegionAsync<uint>(0, 0x114));
    }

    [Theory]
    [InlineData(16)]
    [InlineData(135)]
    public async Task Without_room_only_the_need_is_told(uint argsz)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        WireMessage reply = await client.CallAsync(Command, Ask(0, argsz));
        Assert.Equal(WireClient.Bytes(new RegionIoFdsPayload(136, 0, 0, 3)), reply.Payload);
        Assert.Empty(reply.Descriptors);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(7)]
    public async Task Other_regions_have_none(uint index)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        WireMessage reply = await client.CallAsync(Command, Ask(index, 4096));
        Assert.Equal(WireClient.Bytes(new RegionIoFdsPayload(16, 0, index, 0)), reply.Payload);
    }

    [Fact]
    public async Task Ill_formed_ones_are_refused()
    {
        await ExpectRefusedAsync(Ask(0, 15));
        await ExpectRefusedAsync(Ask(0, (1 << 20) + 1));
        await ExpectRefusedAsync(Ask(0, 200, flags: 1));
        await ExpectRefusedAsync(Ask(0, 200, count: 1));
        await ExpectRefusedAsync(Ask(3, 200));
        await ExpectRefusedAsync(Ask(8, 200));
        await ExpectRefusedAsync(Ask(512, 200));
    }

    [Fact]
    public async Task A_client_that_takes_fewer_descriptors_gets_the_first_ones()
    {
        using WireClient client = await ConnectNegotiatedAsync("{}");
        WireMessage reply = await client.CallAsync(Command, Ask(0, 200));
        Assert.Equal(new RegionIoFdsPayload(96, 0, 0, 2), reply.Read<RegionIoFdsPayload>());
        Assert.Equal(0x104UL, reply.Read<IoEventFdEntry>(56).Offset);
        Assert.Single(reply.Descriptors);
        reply.Descriptors[0].Dispose();
    }

    private static byte[] Ask(uint index, uint argsz, uint flags = 0, uint count = 0) =>
        WireClient.Bytes(new RegionIoFdsPayload(argsz, flags, index, count));
}
