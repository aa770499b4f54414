// RESUME: goes on after SUSPEND.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class ResumeTests : LifeCycleTest
{
    protected override FrontendRequest Request => FrontendRequest.Resume;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task Without_a_suspension_it_is_refused()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoBytesAsync(Request, []);
        await peer.RefusedAsync(Request, []);
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task A_change_of_the_space_is_told_afterwards()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        (Outboard.Linux.FileDescriptor passed, WirePeer asking) = Rig.SocketPair();
        await peer.DoBytesAsync(FrontendRequest.SetBackendReqFd, [], passed);
        Rig.Device.ChangeCapacity(5);
        await peer.DoBytesAsync(Request, []);
        Assert.Equal((uint)BackendRequest.ConfigChangeMsg, (await asking.ReceiveAsync()).Request);
        Assert.NotEqual(VirtioStatus.None, (VirtioStatus)await peer.AskValueAsync(FrontendRequest.GetStatus));
    }

    private protected override async Task PrepareAsync(WirePeer peer)
    {
        await base.PrepareAsync(peer);
        await peer.DoBytesAsync(FrontendRequest.Suspend, []);
    }
}
