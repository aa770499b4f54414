// DEVICE_GET_INFO.
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class DeviceGetInfoTests : CommandTest
{
    protected override VfioUserCommand Command => VfioUserCommand.DeviceGetInfo;

    protected override byte[] GoodPayload => WireClient.Bytes(new DeviceInfoPayload(16, 0, 0, 0));

    [Theory]
    [InlineData(16, 0)]
    [InlineData(32, 0)]
    [InlineData(32, 16)]
    public async Task Tells_a_pci_device_that_can_be_reset(uint argsz, int room)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        byte[] payload = [.. WireClient.Bytes(new DeviceInfoPayload(argsz, 0, 0, 0)), .. new byte[room]];
        WireMessage reply = await client.CallAsync(Command, payload);
        Assert.Equal(WireClient.Bytes(new DeviceInfoPayload(16, 3, 9, 5)), reply.Payload);
    }

    [Fact]
    public Task Too_little_room_is_refused() =>
        ExpectRefusedAsync(WireClient.Bytes(new DeviceInfoPayload(8, 0, 0, 0)));
}
