// SET_VRING_BASE: where the device goes on.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetVringBaseTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetVringBase;

    protected override byte[] GoodPayload => State(0, 0);

    [Theory]
    [InlineData(0x10000)]
    [InlineData(0x80000000)]
    [InlineData(uint.MaxValue)]
    public Task More_than_16_bits_are_refused(uint num) => ExpectRefusedAsync(State(0, num));

    [Theory]
    [InlineData(3)]
    [InlineData(256)]
    [InlineData(uint.MaxValue)]
    public Task Index_out_of_range_is_refused(uint index) => ExpectRefusedAsync(State(index, 0));

    [Fact]
    public async Task Running_ring_is_refused()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await peer.RefusedAsync(Request, State(0, 8));
        await ring.RoundTripAsync();
        Assert.Equal(1U, await ring.StopAsync(peer));
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(0x8000)]
    [InlineData(0xFFFF)]
    public async Task What_was_set_is_told_by_get_vring_base(uint num)
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoBytesAsync(Request, State(1, num));
        byte[] reply = await peer.AskAsync(FrontendRequest.GetVringBase, State(1, 0), WirePeer.NoReply);
        Assert.Equal(State(1, num), reply);
    }

    private static byte[] State(uint index, uint num) => WirePeer.Bytes(new VringStatePayload(index, num));
}
