// POSTCOPY_END: closes what ADVISE opened; memory is shared as ever afterwards.
using Outboard.Linux.Memory;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class PostcopyEndTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.PostcopyEnd;

    protected override ProtocolFeatures Gate => ProtocolFeatures.PageFault;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task Without_a_post_copy_it_is_an_error()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        Assert.NotEqual(0UL, await peer.AskValueAsync(Request));
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task Memory_is_shared_as_ever_afterwards()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        using (UserFaults faults = await PostcopyRig.AdviseAsync(peer))
        {
            Assert.Equal(0UL, await peer.AskValueAsync(FrontendRequest.PostcopyListen));
            Assert.Equal(0UL, await peer.AskValueAsync(Request));
        }

        Assert.NotEqual(0UL, await peer.AskValueAsync(Request));
        DriverMemory memory = Rig.Memory();
        await RawRing.AddMemoryAsync(peer, memory);
        await RawRing.RemoveMemoryAsync(peer, memory);
    }
}
