// WRITE_CONFIG: writes the configuration space as a driver does.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class WriteConfigTests : LifeCycleTest
{
    protected override FrontendRequest Request => FrontendRequest.WriteConfig;

    protected override byte[] GoodPayload => [.. WirePeer.Bytes(new ConfigPartPayload(8, 1, 0)), 7];

    [Fact]
    public async Task Writes_what_a_driver_may_write()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoBytesAsync(Request, GoodPayload);
        Assert.Equal(7u, Rig.Device.Config.Get(FakeDevice.Mode));
        Assert.Equal(1, Rig.Device.ConfigWrites);
        Assert.NotEqual(VirtioStatus.None, (VirtioStatus)await peer.AskValueAsync(FrontendRequest.GetStatus));
    }

    [Theory]
    [InlineData(0u, 1u)]
    [InlineData(16u, 1u)]
    [InlineData(uint.MaxValue, 1u)]
    [InlineData(8u, 2u)]
    public Task What_may_not_be_written_is_refused(uint offset, uint size) =>
        ExpectRefusedAsync([.. WirePeer.Bytes(new ConfigPartPayload(offset, size, 0)), 1]);
}
