// SEND_RARP: the guest's address, for devices in a network.
using Outboard.Devices.Rng;
using Outboard.Linux.Sockets;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SendRarpTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SendRarp;

    protected override ProtocolFeatures Gate => ProtocolFeatures.Rarp;

    protected override byte[] GoodPayload => [0x52, 0x54, 0, 1, 2, 3, 0, 0];

    [Theory]
    [InlineData(new byte[] { 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0, 0 })]
    [InlineData(new byte[] { 0x52, 0x54, 0, 1, 2, 3, 1, 0 })]
    [InlineData(new byte[] { 0x52, 0x54, 0, 1, 2, 3, 0, 0x80 })]
    public Task Other_than_an_address_is_refused(byte[] payload) => ExpectRefusedAsync(payload);

    [Fact]
    public async Task Device_announces_the_address()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoBytesAsync(Request, GoodPayload);
        Assert.Equal(GoodPayload[..6], Rig.Device.Announced);
    }

    [Fact]
    public async Task Device_without_a_network_does_not_offer_it()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
        RngDevice device = new(EntropySource.System);
        Task serving = VhostUserBackend.ServeConnectionAsync(device, new SocketChannel(theirs));
        await using (VhostUserFrontend frontend = new(new SocketChannel(ours)))
        {
            await frontend.NegotiateAsync(TestContext.Current.CancellationToken);
            Assert.False(frontend.OfferedProtocolFeatures.HasFlag(ProtocolFeatures.Rarp));
            Assert.False(frontend.OfferedProtocolFeatures.HasFlag(ProtocolFeatures.NetMtu));
            await Assert.ThrowsAsync<ProtocolException>(
                () => frontend.NetSetMtuAsync(1500, TestContext.Current.CancellationToken));
        }

        await serving.WaitAsync(Eventually.Limit, TestContext.Current.CancellationToken);
    }
}
