// SET_VRING_ENABLE: on and off, for every queue, set up or not.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetVringEnableTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetVringEnable;

    protected override byte[] GoodPayload => State(0, 1);

    [Theory]
    [InlineData(2)]
    [InlineData(256)]
    [InlineData(uint.MaxValue)]
    public Task Neither_zero_nor_one_is_refused(uint num) => ExpectRefusedAsync(State(0, num));

    [Theory]
    [InlineData(3)]
    [InlineData(256)]
    [InlineData(uint.MaxValue)]
    public Task Index_out_of_range_is_refused(uint index) => ExpectRefusedAsync(State(index, 1));

    [Fact]
    public async Task Queues_that_were_never_set_up_are_enabled_and_disabled()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        for (uint index = 0; index < 3; index++)
        {
            await peer.DoBytesAsync(Request, State(index, 1));
            await peer.DoBytesAsync(Request, State(index, 1));
            await peer.DoBytesAsync(Request, State(index, 0));
            await peer.DoBytesAsync(Request, State(index, 0));
        }
    }

    [Fact]
    public async Task May_come_before_set_features()
    {
        // QEMU enables the rings of a network device right after its reset.
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.DoAsync(FrontendRequest.SetProtocolFeatures, (ulong)WirePeer.AllProtocolFeatures);
        await peer.DoBytesAsync(Request, State(0, 1));
    }

    private static byte[] State(uint index, uint num) => WirePeer.Bytes(new VringStatePayload(index, num));
}
