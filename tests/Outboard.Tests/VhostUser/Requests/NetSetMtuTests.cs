// NET_SET_MTU: what the guest will send; the device says whether its network carries that.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class NetSetMtuTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.NetSetMtu;

    protected override ProtocolFeatures Gate => ProtocolFeatures.NetMtu;

    protected override byte[] GoodPayload => WirePeer.Bytes(1500UL);

    [Theory]
    [InlineData(1501)]
    [InlineData(0x8000_0000)]
    [InlineData(0x1_0000_05DC)]
    [InlineData(ulong.MaxValue)]
    public Task What_the_network_does_not_carry_is_refused(ulong mtu) => ExpectRefusedAsync(WirePeer.Bytes(mtu));

    [Fact]
    public async Task Device_learns_it()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoAsync(Request, 1400UL);
        Assert.Equal(1400, Rig.Device.Mtu);
    }
}
