// CLOSE_CRYPTO_SESSION: only what was created is closed, once.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class CloseCryptoSessionTests : TalentedRequestTest
{
    protected override FrontendRequest Request => FrontendRequest.CloseCryptoSession;

    protected override ProtocolFeatures Gate => ProtocolFeatures.CryptoSession;

    protected override byte[] GoodPayload => WirePeer.Bytes(1UL);

    private protected override async Task PrepareAsync(WirePeer peer)
    {
        await base.PrepareAsync(peer);
        Device.Sessions.Add(1);
    }

    [Fact]
    public async Task Session_is_closed_once()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoAsync(Request, 1UL);
        Assert.Empty(Device.Sessions);
        await peer.RefusedAsync(Request, WirePeer.Bytes(1UL));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(2)]
    [InlineData(ulong.MaxValue)]
    public Task Unknown_session_is_refused(ulong session) => ExpectRefusedAsync(WirePeer.Bytes(session));
}
