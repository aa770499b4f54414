// GET_MAX_MEM_SLOTS: as many as KVM gives a guest.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GetMaxMemSlotsTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.GetMaxMemSlots;

    protected override ProtocolFeatures Gate => ProtocolFeatures.ConfigureMemSlots;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task Tells_the_same_number_with_memory_and_without()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        Assert.Equal(509UL, await peer.AskValueAsync(Request));
        await RawRing.AddMemoryAsync(peer, Rig.Memory());
        Assert.Equal(509UL, await peer.AskValueAsync(Request));
    }
}
