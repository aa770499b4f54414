// SET_STATUS: the device status field, 8 bits.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetStatusTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetStatus;

    protected override ProtocolFeatures Gate => ProtocolFeatures.Status;

    protected override byte[] GoodPayload => WirePeer.Bytes(0xFUL);

    [Theory]
    [InlineData(0x100UL)]
    [InlineData(0xFFUL << 8)]
    [InlineData(1UL << 63)]
    public Task More_than_8_bits_are_refused(ulong status) => ExpectRefusedAsync(WirePeer.Bytes(status));

    [Theory]
    [InlineData(0x08UL)]
    [InlineData(0x0BUL)]
    [InlineData(0x0FUL)]
    [InlineData(0x80UL)]
    [InlineData(0x00UL)]
    public async Task Any_order_of_steps_is_taken(ulong status)
    {
        // QEMU sets FEATURES_OK alone; DPDK begins with 0xB.
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoAsync(Request, status);
        Assert.Equal(status, await peer.AskValueAsync(FrontendRequest.GetStatus));
    }
}
