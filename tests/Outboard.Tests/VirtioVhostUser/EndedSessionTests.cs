// What a session or a driver that is gone had begun: none of it reaches the next one. And the driver's side of it.
using Outboard.Linux;
using Outboard.Linux.Sockets;
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Device;
using Outboard.VirtioVhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

public class EndedSessionTests : DeviceTest
{
    private readonly ManualClock _clock = new();

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private protected override VirtioVhostUserOptions Options =>
        ApplianceRig.Options with { MemoryGrace = TimeSpan.FromHours(1), Clock = _clock };

    /// <summary>The driver arms, is reset, and arms again while memory of the session before is taken away: the next
    /// front-end's memory must not come before that is done.</summary>
    [Fact]
    public async Task A_session_waits_for_what_the_last_arming_began()
    {
        using DriverMemory memory = new(1 << 16);
        Driver.Post();
        using WirePeer first = await ConnectAsync();
        await ShareAsync(first, memory);
        first.Dispose();
        await Driver.ExpectStatusAsync(0);
        SlowRegions slow = SlowDown(unmappings: 2);
        using WirePeer second = await Rig.ConnectAsync();
        await Driver.ArmAsync();
        await slow.BegunAsync();
        await Rig.ResetDriverAsync();
        await Driver.ArmAsync();
        slow.GoOn();

        // What was mapped at the reset is unmapped once more.
        await slow.BegunAsync();
        for (int look = 0; look < 50; look++)
        {
            Assert.Equal(Up, await Driver.StatusAsync());
            await Task.Delay(1, Token);
        }

        slow.GoOn();
        await Driver.ExpectStatusAsync(Connected);
    }

    /// <summary>The device passes a request on, which takes its time; behind it is a reply that nobody waits for.
    /// </summary>
    [Fact]
    public async Task A_message_of_an_ended_session_does_not_break_the_device()
    {
        using WirePeer first = await NegotiateAsync();
        (UnixSocket own, UnixSocket passed) = UnixSocket.CreatePair();
        using (own)
        using (passed)
        using (FileDescriptor descriptor = passed.DuplicateDescriptor())
        {
            Task filling = passed.SendAsync(new byte[16 << 20], default, Token).AsTask();
            Assert.False(filling.IsCompleted);
            await first.SendAsync(FrontendRequest.SetBackendReqFd, WirePeer.NoReply, [], descriptor);
            await Driver.ReceiveAsync(FrontendRequest.SetBackendReqFd);
            Driver.Send(new DriverFrame((uint)BackendRequest.ConfigChangeMsg, default, default));
            Driver.Reply(FrontendRequest.GetFeatures, 0UL);
            await Rig.ResetDriverAsync();
            await first.ExpectClosedAsync();
            await Assert.ThrowsAnyAsync<IOException>(() => filling);
        }

        using WirePeer second = await ConnectAsync();
        Assert.Equal(0, NeedsResets);
    }

    [Fact]
    public async Task A_cut_of_a_queue_that_has_stopped_is_done()
    {
        TransmitQueue queue = Rig.Device.Transmit!;
        await Rig.ResetDriverAsync();
        await queue.CutAsync().WaitAsync(Eventually.Limit, Token);
    }

    [Fact]
    public async Task The_grace_of_a_session_does_not_end_that_of_the_next()
    {
        using DriverMemory memory = new(1 << 16);
        Driver.Post();
        for (int session = 0; session < 2; session++)
        {
            using WirePeer peer = await ConnectAsync();
            await ShareAsync(peer, memory);
            peer.Dispose();
            await Eventually.TrueAsync(() => _clock.Count > session, "the end");
        }

        _clock.Fire(0);
        for (int look = 0; look < 20; look++)
        {
            Assert.Equal(1, Rig.Device.Windows.Count);
            await Task.Delay(1, Token);
        }

        _clock.Fire(1);
        await Eventually.TrueAsync(() => Rig.Device.Windows.Count == 0, "the grace is over");
    }

    /// <summary>A machine may not bear that memory goes with a reset, so a driver can have it go before.</summary>
    [Fact]
    public async Task A_driver_that_is_not_ready_any_more_sees_the_memory_go()
    {
        bool tells = (Rig.Access.Features & VirtioVhostUserSpec.WindowStatus) != 0;
        using DriverMemory memory = new(1 << 16);
        Driver.Post();
        using WirePeer peer = await ConnectAsync();
        Assert.False(await Driver.SeesMemoryAsync());
        await ShareAsync(peer, memory);
        Assert.Equal(tells, await Driver.SeesMemoryAsync());
        SlowRegions slow = SlowDown(unmappings: 1);
        await Driver.WriteStatusAsync(0);
        await slow.BegunAsync();
        Assert.Equal(tells, await Driver.SeesMemoryAsync());
        slow.GoOn();
        await Eventually.TrueAsync(() => Rig.Device.Windows.Count == 0, "the memory goes");
        Assert.False(await Driver.SeesMemoryAsync());
    }

    /// <summary>As a killed driver leaves it: what was mapped when the device stopped may still be.</summary>
    [Fact]
    public async Task What_a_reset_may_have_left_is_told_and_goes_likewise()
    {
        bool tells = (Rig.Access.Features & VirtioVhostUserSpec.WindowStatus) != 0;
        using DriverMemory memory = new(1 << 16);
        Driver.Post();
        using WirePeer peer = await ConnectAsync();
        await ShareAsync(peer, memory);
        SlowRegions slow = SlowDown(unmappings: 1);
        await Rig.ResetDriverAsync();
        Assert.Equal(tells, await Driver.SeesMemoryAsync());
        await Driver.WriteStatusAsync(0);
        await slow.BegunAsync();
        Assert.Equal(tells, await Driver.SeesMemoryAsync());
        slow.GoOn();
        await Eventually.TrueAsync(() => Rig.Device.Windows.AreEmpty, "the memory goes");
        Assert.False(await Driver.SeesMemoryAsync());
    }

    /// <summary>The driver asks for the status, a front-end comes, and its message overtakes the answer.</summary>
    [Fact]
    public async Task A_status_of_before_does_not_end_a_session()
    {
        SlowAccess access = new(Rig.Access);
        using VirtioVhostUserSource source = new(access, Rig.Log);
        Task<VhostUserChannel> next = source.NextAsync(Eventually.Limit, Token);
        await access.Asked.WaitAsync(Eventually.Limit, Token);
        int given = access.Given;
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        await Eventually.TrueAsync(() => access.Given > given, "the message is taken");
        access.GoOn();
        await using VhostUserChannel channel = await next;
        using VhostUserMessage? message = await channel.ReceiveAsync(Token);
        Assert.Equal((uint)FrontendRequest.GetFeatures, message?.Request);
        await channel.SendAsync(new VhostUserMessage(
            (uint)FrontendRequest.GetFeatures, MessageFlags.Reply, WirePeer.Bytes(7UL)), Token);
        Assert.Equal(WirePeer.Bytes(7UL), await peer.ReplyAsync(FrontendRequest.GetFeatures));
    }

    private async Task ShareAsync(WirePeer peer, DriverMemory memory)
    {
        await peer.SendAsync(
            FrontendRequest.SetMemTable, WirePeer.NoReply, RawRing.Table(memory), memory.File.Descriptor);
        await Driver.ReceiveAsync(FrontendRequest.SetMemTable);
    }
}
