// POSTCOPY_LISTEN: after ADVISE, once, and before any memory; a number tells whether it is in force.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class PostcopyListenTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.PostcopyListen;

    protected override ProtocolFeatures Gate => ProtocolFeatures.PageFault;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task Before_advise_it_is_an_error()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        Assert.NotEqual(0UL, await peer.AskValueAsync(Request));
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task A_second_time_it_is_an_error()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await PostcopyRig.AdviseAsync(peer);
        Assert.Equal(0UL, await peer.AskValueAsync(Request));
        Assert.NotEqual(0UL, await peer.AskValueAsync(Request));
    }

    [Fact]
    public async Task With_memory_mapped_it_is_an_error()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await PostcopyRig.AdviseAsync(peer);
        await RawRing.AddMemoryAsync(peer, Rig.Memory());
        Assert.NotEqual(0UL, await peer.AskValueAsync(Request));
        await peer.ExpectServedAsync();
    }
}
