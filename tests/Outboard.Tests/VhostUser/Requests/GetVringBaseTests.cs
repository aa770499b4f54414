// GET_VRING_BASE: stops a ring and tells where it stands. The waiting is in RingStopTests.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GetVringBaseTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.GetVringBase;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => State(0, 0);

    [Theory]
    [InlineData(3)]
    [InlineData(256)]
    [InlineData(uint.MaxValue)]
    public Task Index_out_of_range_is_refused(uint index) => ExpectRefusedAsync(State(index, 0));

    [Theory]
    [InlineData(WirePeer.NoReply)]
    [InlineData(WirePeer.NeedReply)]
    public async Task Ring_that_never_ran_is_answered_again_and_again(uint flags)
    {
        using WirePeer peer = await ConnectPreparedAsync();
        for (uint index = 0; index < 3; index++)
        {
            Assert.Equal(State(index, 0), await peer.AskAsync(Request, State(index, 0), flags));
            Assert.Equal(State(index, 0), await peer.AskAsync(Request, State(index, 0), flags));
        }
    }

    [Fact]
    public async Task Number_in_the_request_is_ignored()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        Assert.Equal(State(1, 0), await peer.AskAsync(Request, State(1, 77), WirePeer.NoReply));
    }

    [Fact]
    public async Task Tells_the_index_of_the_next_request_repeatedly()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync(1);
        await ring.RoundTripAsync(2);
        await ring.RoundTripAsync(3);
        Assert.Equal(3U, await ring.StopAsync(peer));
        Assert.Equal(3U, await ring.StopAsync(peer));
    }

    [Fact]
    public async Task Lets_go_of_kick_and_call()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        OpenThings before = OpenThings.Count();
        await ring.CallAsync(peer);
        await ring.NumAsync(peer);
        await ring.AddrAsync(peer);
        await ring.KickAsync(peer);
        await ring.EnableAsync(peer);
        await ring.RoundTripAsync();
        await ring.StopAsync(peer);
        Assert.True(OpenThings.Count().Events <= before.Events + 1, "the worker's own eventfd is all that is left");
    }

    private static byte[] State(uint index, uint num) => WirePeer.Bytes(new VringStatePayload(index, num));
}
