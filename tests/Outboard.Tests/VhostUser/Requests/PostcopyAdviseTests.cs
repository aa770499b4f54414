// POSTCOPY_ADVISE: answered by an empty payload, with the descriptor of a userfaultfd where the machine permits one.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class PostcopyAdviseTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.PostcopyAdvise;

    protected override ProtocolFeatures Gate => ProtocolFeatures.PageFault;

    protected override bool HasOwnReply => true;

    protected override int ReplyDescriptors => IsPermitted ? 1 : 0;

    protected override byte[] GoodPayload => [];

    private static bool IsPermitted
    {
        get
        {
            try
            {
                UserFaults.Open().Dispose();
                return true;
            }
            catch (LinuxException)
            {
                return false;
            }
        }
    }

    [Fact]
    public async Task Later_one_replaces_the_earlier_one_until_the_post_copy_begins()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await PostcopyRig.AdviseAsync(peer);
        await PostcopyRig.AdviseAsync(peer);
        Assert.Equal(0UL, await peer.AskValueAsync(FrontendRequest.PostcopyListen));
        await peer.SendAsync(Request, WirePeer.NoReply, []);
        Assert.Empty((await peer.ReplyWithAsync(Request, 0)).Payload);
        Assert.Equal(0UL, await peer.AskValueAsync(FrontendRequest.PostcopyEnd));
    }
}
