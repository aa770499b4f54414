// SET_VRING_ENDIAN: little-endian is what rings are; big-endian is refused, and so is a change of a running ring.
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetVringEndianTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetVringEndian;

    protected override ProtocolFeatures Gate => ProtocolFeatures.CrossEndian;

    protected override byte[] GoodPayload => State(0, 0);

    private protected override Task PrepareAsync(WirePeer peer) =>
        peer.NegotiateAsync(WirePeer.AllProtocolFeatures | Gate);

    private protected override VhostUserBackendOptions Configure(VhostUserBackendOptions options) =>
        options with { AdditionalProtocolFeatures = ProtocolFeatures.CrossEndian | ProtocolFeatures.XenMmap };

    [Theory]
    [InlineData(0, 1)]
    [InlineData(0, 2)]
    [InlineData(0, uint.MaxValue)]
    [InlineData(3, 0)]
    [InlineData(uint.MaxValue, 0)]
    public Task What_is_not_little_endian_or_no_ring_is_refused(uint index, uint num) =>
        ExpectRefusedAsync(State(index, num));

    [Fact]
    public async Task Little_endian_ring_runs_and_does_not_change_while_it_does()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        RawRing ring = new(Rig, Rig.Memory(), 0);
        await RawRing.AddMemoryAsync(peer, ring.Memory);
        await peer.DoBytesAsync(Request, GoodPayload);
        await ring.StartAsync(peer);
        await peer.RefusedAsync(Request, GoodPayload);
        await ring.RoundTripAsync();
    }

    [Fact]
    public async Task It_is_offered_when_asked_for_and_xen_is_not()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        ulong offered = await peer.AskValueAsync(FrontendRequest.GetProtocolFeatures);
        Assert.NotEqual(0UL, offered & (ulong)ProtocolFeatures.CrossEndian);
        Assert.Equal(0UL, offered & (ulong)ProtocolFeatures.XenMmap);
    }

    private static byte[] State(uint index, uint num) => WirePeer.Bytes(new VringStatePayload(index, num));
}
