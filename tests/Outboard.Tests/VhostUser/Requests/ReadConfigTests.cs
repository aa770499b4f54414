// READ_CONFIG: a part of the configuration space, with its generation.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class ReadConfigTests : LifeCycleTest
{
    protected override FrontendRequest Request => FrontendRequest.ReadConfig;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => [.. WirePeer.Bytes(new ConfigPartPayload(0, 4, 0)), 0, 0, 0, 0];

    [Fact]
    public async Task Gives_bytes_and_generation_of_one_moment()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        Rig.Device.ChangeCapacity(0x1122334455667788);
        uint generation = Rig.Device.Config.Generation;
        byte[] reply = await peer.AskAsync(
            Request, [.. WirePeer.Bytes(new ConfigPartPayload(6, 4, 0)), 9, 9, 9, 9], WirePeer.NoReply);
        Assert.Equal([.. WirePeer.Bytes(new ConfigPartPayload(6, 4, generation)), 0x22, 0x11, 0, 0], reply);
    }

    [Theory]
    [InlineData(0u, 3u)]
    [InlineData(0u, 5u)]
    [InlineData(13u, 4u)]
    [InlineData(uint.MaxValue, 4u)]
    [InlineData(17u, 4u)]
    public Task What_leaves_the_space_or_the_payload_is_refused(uint offset, uint size) =>
        ExpectRefusedAsync([.. WirePeer.Bytes(new ConfigPartPayload(offset, size, 0)), 0, 0, 0, 0]);
}
