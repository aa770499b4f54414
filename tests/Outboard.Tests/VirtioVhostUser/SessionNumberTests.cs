// Sessions that are acknowledged by their numbers: nothing of one comes before.
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Protocol;
using Outboard.VirtioVhostUser.Device;
using Outboard.VirtioVhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

public sealed class SessionNumberTests : DeviceTest
{
    private protected override VirtioVhostUserOptions Options =>
        ApplianceRig.Options with { NumbersSessions = true };

    [Fact]
    public async Task Messages_wait_for_the_right_number()
    {
        Driver.Post();
        using WirePeer peer = await ConnectAsync();
        Assert.Equal(1U, await SessionAsync());
        await SendAsync(peer);
        foreach (uint wrong in new uint[] { 0, 2, uint.MaxValue })
        {
            await AcknowledgeAsync(wrong);
            Assert.Equal(1, Rig.Device.Mailbox.Count);
        }

        Assert.Null(Driver.TryReceive());
        await AcknowledgeAsync(1);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
        Driver.Reply(FrontendRequest.GetFeatures, 7UL);
        Assert.Equal(WirePeer.Bytes(7UL), await peer.ReplyAsync(FrontendRequest.GetFeatures));
    }

    [Fact]
    public async Task The_number_of_the_session_before_says_nothing()
    {
        Driver.Post();
        using WirePeer first = await ConnectAsync();
        await AcknowledgeAsync(1);
        first.Dispose();
        await Driver.ExpectStatusAsync(0);
        using WirePeer second = await ConnectAsync();
        Assert.Equal(2U, await SessionAsync());
        await SendAsync(second);
        await AcknowledgeAsync(1);
        Assert.Equal(1, Rig.Device.Mailbox.Count);
        await AcknowledgeAsync(2);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
    }

    [Fact]
    public async Task The_end_of_a_session_does_not_wait()
    {
        Driver.Post();
        using WirePeer peer = await ConnectAsync();
        await SendAsync(peer);
        peer.Dispose();
        await Eventually.TrueAsync(() => Driver.TryReceive() is null && Driver.Ends == 1, "the end");
    }

    [Fact]
    public async Task A_number_for_no_session_is_kept_and_means_nothing()
    {
        Driver.Post();
        await AcknowledgeAsync(1);
        using WirePeer peer = await ConnectAsync();
        await SendAsync(peer);
        Assert.Null(Driver.TryReceive());
        await AcknowledgeAsync(1);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
    }

    [Fact]
    public async Task A_transport_that_writes_all_of_the_space_writes_both_numbers()
    {
        Driver.Post();
        byte[] all = new byte[VirtioVhostUserSpec.NumberedConfigBytes];
        all[0] = (byte)Up;
        Assert.True(Rig.Device.WriteConfig(0, all));
        using WirePeer peer = await Rig.ConnectAsync();
        await Driver.ExpectStatusAsync(Connected);
        await SendAsync(peer);
        Rig.Device.ReadConfig(0, all);
        Assert.Equal(1, all[VirtioVhostUserSpec.Session.Offset]);
        all[VirtioVhostUserSpec.Acknowledged.Offset] = 1;
        Assert.True(Rig.Device.WriteConfig(0, all));
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
        Assert.Equal(Connected, await Driver.StatusAsync());
    }

    [Theory]
    [InlineData(4, 4)]
    [InlineData(24, 4)]
    [InlineData(0, 33)]
    [InlineData(28, 5)]
    [InlineData(32, 1)]
    public void Nothing_else_can_be_written(uint offset, int bytes)
    {
        Assert.False(Rig.Device.WriteConfig(offset, new byte[bytes]));
        Assert.Equal((ulong)Rig.Device.Rings, Rig.Device.Config.Get(VirtioVhostUserSpec.MaxVhostQueues));
    }

    private Task<uint> SessionAsync() => Rig.Access.ReadSessionAsync(TestContext.Current.CancellationToken);

    private Task AcknowledgeAsync(uint session) =>
        Rig.Access.AcknowledgeSessionAsync(session, TestContext.Current.CancellationToken);

    private async Task SendAsync(WirePeer peer)
    {
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        await Eventually.TrueAsync(() => Rig.Device.Mailbox.Count == 1, "the message waits");
    }
}

public sealed class NoSessionNumberTests : DeviceTest
{
    private protected override ulong DriverFeatures => ~VirtioVhostUserSpec.SessionNumbers;

    private protected override VirtioVhostUserOptions Options =>
        ApplianceRig.Options with { NumbersSessions = true };

    [Fact]
    public async Task A_driver_that_wants_no_numbers_gets_messages_at_once()
    {
        Driver.Post();
        using WirePeer peer = await ConnectAsync();
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
    }
}
