// A driver that breaks rules: the device needs a reset, the front-end is cut off, and after the reset all is well.
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Protocol;
using Outboard.VirtioVhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

public class HostileDriverTests : DeviceTest
{
    private static readonly byte[] s_none = [];

    [Theory]
    [InlineData(8U)]
    [InlineData(0x80000001U)]
    public async Task Unknown_bits_of_the_status(uint status)
    {
        using WirePeer peer = await ConnectAsync();
        await Driver.WriteStatusAsync(status);
        await ExpectBrokenAsync();
        await peer.ExpectClosedAsync();
        await ExpectWorksAfterResetAsync();
    }

    [Theory]
    [InlineData(1)]
    [InlineData(11)]
    public async Task A_message_without_a_header(int bytes)
    {
        using WirePeer peer = await ConnectAsync();
        Driver.SendBytes(new byte[bytes]);
        await ExpectBrokenAsync();
        await peer.ExpectClosedAsync();
        await ExpectWorksAfterResetAsync();
    }

    [Theory]
    [InlineData(5U, 8, 9U)]
    [InlineData(5U, 8, 7U)]
    [InlineData(5U, 0, uint.MaxValue)]
    [InlineData(6U, 0, 0U)]
    public async Task A_header_that_does_not_fit(uint flags, int bytes, uint size)
    {
        using WirePeer peer = await ConnectAsync();
        Driver.SendBytes(WirePeer.Frame(1, flags, new byte[bytes], size));
        await ExpectBrokenAsync();
        await peer.ExpectClosedAsync();
    }

    [Fact]
    public async Task A_message_that_is_too_long()
    {
        using WirePeer peer = await ConnectAsync();
        Driver.SendBytes(new byte[VirtioVhostUserSpec.MaxMessageBytes + 1]);
        await ExpectBrokenAsync();
    }

    [Fact]
    public async Task A_buffer_that_is_too_short()
    {
        RawDriver small = new(Rig.Access, bufferBytes: 19);
        small.Post(1);
        using WirePeer peer = await ConnectAsync();
        await peer.SendAsync(FrontendRequest.SetFeatures, WirePeer.NoReply, WirePeer.Bytes(1UL));
        await ExpectBrokenAsync();
        await peer.ExpectClosedAsync();
    }

    [Fact]
    public async Task A_reply_that_is_not_due()
    {
        using WirePeer peer = await ConnectAsync();
        Driver.Reply(FrontendRequest.GetFeatures, 1UL);
        await ExpectBrokenAsync();
        await peer.ExpectClosedAsync();
    }

    [Theory]
    [InlineData(FrontendRequest.GetQueueNum, 8)]
    [InlineData(FrontendRequest.GetFeatures, 0)]
    [InlineData(FrontendRequest.GetFeatures, 16)]
    public async Task A_reply_that_does_not_fit(FrontendRequest request, int bytes)
    {
        Driver.Post();
        using WirePeer peer = await ConnectAsync();
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, s_none);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
        Driver.Send(new DriverFrame((uint)request, MessageFlags.Reply, new byte[bytes]));
        await ExpectBrokenAsync();
        await peer.ExpectClosedAsync();
    }

    [Fact]
    public async Task Nothing_is_armed_while_a_reset_is_due()
    {
        await Driver.WriteStatusAsync(8);
        await ExpectBrokenAsync();
        await Driver.StatusAsync();
        await Driver.WriteStatusAsync(Up);
        Assert.Equal(0U, await Driver.StatusAsync());
        await ExpectWorksAfterResetAsync();
    }

    [Fact]
    public async Task Doorbells_out_of_turn_and_requests_of_its_own_are_nothing()
    {
        for (int i = 0; i <= VirtioVhostUserSpec.LogOf(Rig.Device.Rings); i++)
        {
            Rig.Access.Ring(i);
        }

        using WirePeer peer = await ConnectAsync();
        for (int i = 0; i <= VirtioVhostUserSpec.LogOf(Rig.Device.Rings); i++)
        {
            Rig.Access.Ring(i);
        }

        // Nobody has opened a channel for these; and this one never passes.
        Driver.Post();
        Driver.Send(new DriverFrame((uint)BackendRequest.ConfigChangeMsg, 0, s_none));
        Driver.Send(new DriverFrame((uint)BackendRequest.ShmemMap, MessageFlags.NeedReply, new byte[40]));
        DriverFrame? answer = null;
        await Eventually.TrueAsync(() => (answer = Driver.TryReceive()) is not null, "a refusal");
        Assert.True(answer!.Value.IsReply);
        Assert.NotEqual(WirePeer.Bytes(0UL), answer.Value.Payload.ToArray());
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, s_none);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
        Driver.Reply(FrontendRequest.GetFeatures, 7UL);
        Assert.Equal(WirePeer.Bytes(7UL), await peer.ReplyAsync(FrontendRequest.GetFeatures));
    }

    [Fact]
    public async Task Configuration_that_may_not_be_written_stays()
    {
        Assert.False(Rig.Device.WriteConfig(4, new byte[4]));
        Assert.False(Rig.Device.WriteConfig(0, new byte[25]));
        Assert.False(Rig.Device.WriteConfig(uint.MaxValue, new byte[1]));
        byte[] all = new byte[VirtioVhostUserSpec.ConfigBytes];
        all[0] = 1;
        Assert.True(Rig.Device.WriteConfig(0, all));
        Assert.Equal(Up, await Driver.StatusAsync());
        Assert.Equal((ulong)Rig.Device.Rings, Rig.Device.Config.Get(VirtioVhostUserSpec.MaxVhostQueues));
    }

    private async Task ExpectWorksAfterResetAsync()
    {
        await Rig.ResetDriverAsync();
        Driver.Post();
        using WirePeer peer = await ConnectAsync();
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, s_none);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
    }
}
