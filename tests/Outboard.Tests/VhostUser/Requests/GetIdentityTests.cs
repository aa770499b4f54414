// GET_IDENTITY: what the device is.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GetIdentityTests : LifeCycleTest
{
    protected override FrontendRequest Request => FrontendRequest.GetIdentity;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task Tells_type_queues_and_size_of_the_space_and_the_same_epoch_each_time()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        byte[] first = await peer.AskAsync(Request, [], WirePeer.NoReply);
        IdentityPayload identity = System.Runtime.InteropServices.MemoryMarshal.Read<IdentityPayload>(first);
        Assert.Equal((uint)VirtioDeviceId.Entropy, identity.DeviceId);
        Assert.Equal((3u, (uint)FakeDevice.ConfigBytes), (identity.QueueCount, identity.ConfigBytes));
        Assert.NotEqual(0UL, identity.Epoch);
        Assert.Equal(first, await peer.AskAsync(Request, [], WirePeer.NoReply));
    }
}
