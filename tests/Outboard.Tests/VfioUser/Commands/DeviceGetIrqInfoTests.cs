// DEVICE_GET_IRQ_INFO.
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class DeviceGetIrqInfoTests : CommandTest
{
    protected override VfioUserCommand Command => VfioUserCommand.DeviceGetIrqInfo;

    protected override byte[] GoodPayload => Ask(0, 16);

    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 4)]
    [InlineData(2, 8)]
    [InlineData(3, 1)]
    [InlineData(4, 1)]
    public async Task Vectors_of_each_kind(uint index, uint count)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        foreach (uint argsz in (uint[])[16, 17, 4096])
        {
            WireMessage reply = await client.CallAsync(Command, Ask(index, argsz));
            Assert.Equal(WireClient.Bytes(new IrqInfoPayload(16, IrqFlags.EventFd, index, count)), reply.Payload);
        }
    }

    [Fact]
    public async Task Ill_formed_ones_are_refused()
    {
        await ExpectRefusedAsync(Ask(0, 8));
        await ExpectRefusedAsync(Ask(5, 16));
        await ExpectRefusedAsync(Ask(uint.MaxValue, 16));
    }

    private static byte[] Ask(uint index, uint argsz) => WireClient.Bytes(new IrqInfoPayload(argsz, 0, index, 0));
}
