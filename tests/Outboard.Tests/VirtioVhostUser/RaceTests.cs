// The races between a driver and a front-end that come and go, each in a fixed order of steps. The numbers are those of
// VirtioVhostUserDevice.
using Outboard.Linux.Events;
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Device;
using Outboard.VirtioVhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

public class RaceTests : DeviceTest
{
    private static readonly byte[] s_none = [];

    [Fact]
    public async Task R1_a_driver_that_has_not_seen_the_end_cannot_arm()
    {
        using WirePeer peer = await ConnectAsync();
        peer.Dispose();
        await Eventually.TrueAsync(() => Rig.Device.Config.Get(VirtioVhostUserSpec.Status) == 0, "the end");
        await Rig.Access.HasChangedAsync(default);

        await Driver.WriteStatusAsync(Up);
        Assert.Equal(0UL, Rig.Device.Config.Get(VirtioVhostUserSpec.Status));
        Assert.True(await Rig.Access.HasChangedAsync(default), "the interrupt is raised again");

        Assert.Equal(0U, await Driver.StatusAsync());
        await Driver.WriteStatusAsync(Up);
        Assert.Equal(Up, await Driver.StatusAsync());
    }

    [Fact]
    public async Task R1_a_read_while_the_driver_is_up_does_not_count()
    {
        using WirePeer peer = await ConnectAsync();
        Assert.Equal(Connected, await Driver.StatusAsync());
        peer.Dispose();
        await Eventually.TrueAsync(() => Rig.Device.Config.Get(VirtioVhostUserSpec.Status) == 0, "the end");
        await Driver.WriteStatusAsync(Connected);
        Assert.Equal(0UL, Rig.Device.Config.Get(VirtioVhostUserSpec.Status));
    }

    [Fact]
    public async Task R2_a_stale_reply_does_not_reach_the_next_front_end()
    {
        Driver.Post();
        using WirePeer first = await ConnectAsync();
        await first.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, s_none);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
        first.Dispose();
        await Driver.ExpectStatusAsync(0);

        // Too late, and taken; too late, and there when the driver arms.
        Driver.Reply(FrontendRequest.GetFeatures, 0xBAD1UL);
        await Driver.StatusAsync();
        DriverFrame stale = new((uint)FrontendRequest.GetFeatures, MessageFlags.Reply, WirePeer.Bytes(0xBAD2UL));
        Driver.SendBytes(stale.Encode(), waits: false);
        await Driver.WriteStatusAsync(Up);

        using WirePeer second = await Rig.ConnectAsync();
        await Driver.ExpectStatusAsync(Connected);
        await second.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, s_none);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
        await Eventually.TrueAsync(Driver.HasSent, "the stale reply is taken");
        Driver.Reply(FrontendRequest.GetFeatures, 0x600DUL);
        Assert.Equal(WirePeer.Bytes(0x600DUL), await second.ReplyAsync(FrontendRequest.GetFeatures));
        Assert.Equal(0, NeedsResets);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task R3_and_R5_a_message_without_a_buffer_is_dropped_with_its_session(bool driverEnds)
    {
        using WirePeer first = await ConnectAsync();
        await first.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, s_none);
        await Eventually.TrueAsync(() => !Rig.Device.Mailbox.IsEmpty, "a message waits");
        if (driverEnds)
        {
            await Driver.WriteStatusAsync(0);
            await first.ExpectClosedAsync();
        }
        else
        {
            first.Dispose();
        }

        await Driver.ExpectStatusAsync(0);
        Driver.Post();
        using WirePeer second = await ConnectAsync();
        await second.SendAsync(FrontendRequest.GetQueueNum, WirePeer.NoReply, s_none);
        await second.ExpectClosedAsync();
        Assert.Null(Driver.TryReceive());
    }

    [Fact]
    public async Task R4_messages_may_come_before_the_driver_looks()
    {
        Driver.Post();
        await Driver.ArmAsync();
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, s_none);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
        Assert.Equal(Connected, await Driver.StatusAsync());
    }

    [Fact]
    public async Task R6_a_kick_waits_for_the_message_that_tells_of_it()
    {
        using WirePeer peer = await ConnectAsync();
        using EventFd kick = new();
        kick.Signal();
        await peer.SendAsync(
            FrontendRequest.SetVringKick, WirePeer.NoReply, RawRing.NotifierPayload(2, true), kick.Descriptor);
        await Eventually.TrueAsync(() => !Rig.Device.Mailbox.IsEmpty, "the message waits");
        Assert.Equal(0UL, Driver.KickOf(2).Wait(20));

        Driver.Post();
        await Driver.ReceiveAsync(FrontendRequest.SetVringKick);
        Assert.NotEqual(0UL, Driver.KickOf(2).Wait(5000));
        kick.Signal();
        Assert.NotEqual(0UL, Driver.KickOf(2).Wait(5000));
        Assert.Equal(0UL, Driver.KickOf(1).Take());
    }

    [Fact]
    public async Task R7_a_doorbell_of_another_session_is_dead()
    {
        Driver.Post();
        using WirePeer first = await ConnectAsync();
        using EventFd call = new();
        await SetCallAsync(first, call);
        Rig.Access.Ring(VirtioVhostUserSpec.CallOf(1));
        Assert.NotEqual(0UL, call.Wait(5000));
        first.Dispose();
        await Driver.ExpectStatusAsync(0);
        using WirePeer second = await ConnectAsync();
        Rig.Access.Ring(VirtioVhostUserSpec.CallOf(1));
        using EventFd next = new();
        await SetCallAsync(second, next);
        Rig.Access.Ring(VirtioVhostUserSpec.CallOf(1));
        Assert.NotEqual(0UL, next.Wait(5000));
        Assert.Equal(0UL, call.Take());
    }

    [Fact]
    public async Task R8_memory_stays_until_the_driver_arms_again()
    {
        using DriverMemory memory = new(1 << 16);
        memory.Allocate(64).Span.Fill(0x5A);
        using Outboard.Memory.SharedMemory window = Rig.Access.OpenWindow(VirtioVhostUserSpec.MemoryWindow)!;
        using Outboard.Linux.Memory.MemoryMapping view = window.Map(0, 64);
        using WirePeer first = await NegotiateAsync();
        DriverFrame told = await PassAsync(
            first, FrontendRequest.AddMemReg, WirePeer.Bytes(RawRing.Describe(memory)), memory.File.Descriptor);
        Assert.Equal(WirePeer.Bytes(RawRing.Describe(memory)), told.Payload.ToArray());
        Assert.Equal(0x5A, view.Segment.Span[63]);

        first.Dispose();
        await Driver.ExpectStatusAsync(0);
        Assert.Equal(0x5A, view.Segment.Span[63]);
        using WirePeer second = await ConnectAsync();
        Assert.Equal(0, view.Segment.Span[63]);
        Assert.Equal(0, Rig.Device.Windows.Count);
    }

    [Fact]
    public async Task R9_a_reset_drops_everything_at_any_point()
    {
        using DriverMemory memory = new(1 << 16);
        memory.Allocate(64).Span.Fill(0x5A);
        using WirePeer first = await NegotiateAsync();
        await first.SendAsync(
            FrontendRequest.AddMemReg, WirePeer.NeedReply, WirePeer.Bytes(RawRing.Describe(memory)),
            memory.File.Descriptor);
        await Rig.ResetDriverAsync();
        await first.ExpectClosedAsync();
        Assert.Equal(0U, await Driver.StatusAsync());
        using Outboard.Memory.SharedMemory window = Rig.Access.OpenWindow(VirtioVhostUserSpec.MemoryWindow)!;
        using (Outboard.Linux.Memory.MemoryMapping view = window.Map(0, 64))
        {
            // What was being mapped during the reset goes as soon as it is there.
            await Eventually.TrueAsync(() => view.Segment.Span[63] == 0, "the memory is gone");
        }

        using WirePeer second = await ConnectAsync();
        Assert.Equal(0, Rig.Device.Windows.Count);
    }

    /// <summary>A session that was ended is still busy with a table: its first region is being mapped, the second would
    /// be mapped when the driver has armed for the next session, and nobody would ever take it away.</summary>
    [Fact]
    public async Task R9_what_an_ended_session_was_about_to_lay_out_does_not_reach_the_next()
    {
        using DriverMemory one = new(1 << 16);
        using DriverMemory other = new(1 << 16, 0x2_0000_0000);
        using WirePeer first = await NegotiateAsync();
        SlowRegions slow = SlowDown(mappings: 1);
        await first.SendAsync(
            FrontendRequest.SetMemTable, WirePeer.NeedReply, RawRing.Table(one, other),
            one.File.Descriptor, other.File.Descriptor);
        await slow.BegunAsync();
        await Driver.WriteStatusAsync(0);
        await Driver.ArmAsync();
        slow.GoOn();

        using WirePeer second = await Rig.ConnectAsync();
        await Driver.ExpectStatusAsync(Connected);
        Assert.Equal(0, Rig.Device.Windows.Count);
    }

    [Fact]
    public async Task R10_every_change_is_counted()
    {
        uint before = Rig.Device.Config.Generation;
        using WirePeer peer = await ConnectAsync();
        uint connected = Rig.Device.Config.Generation;
        Assert.True(connected > before);
        peer.Dispose();
        await Driver.ExpectStatusAsync(0);
        Assert.True(Rig.Device.Config.Generation > connected);
    }

    [Fact]
    public async Task R11_the_next_front_end_waits_unread()
    {
        Driver.Post();
        using WirePeer first = await ConnectAsync();
        using WirePeer second = await Rig.ConnectAsync();
        await second.SendAsync(FrontendRequest.GetProtocolFeatures, WirePeer.NoReply, s_none);
        await first.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, s_none);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
        first.Dispose();
        await Driver.ExpectStatusAsync(0);
        Assert.Null(Driver.TryReceive());
        await Driver.ArmAsync();
        await Driver.ReceiveAsync(FrontendRequest.GetProtocolFeatures);
    }

    [Fact]
    public async Task A_front_end_that_leaves_before_the_driver_is_there_does_no_harm()
    {
        using WirePeer early = await Rig.ConnectAsync();
        await early.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, s_none);
        early.Dispose();
        Driver.Post();
        await Driver.ArmAsync();
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.SendAsync(FrontendRequest.GetProtocolFeatures, WirePeer.NoReply, s_none);

        // Whether the early one counts as gone or as a session of its own, the next one gets its turn.
        List<uint> came = [];
        await Eventually.TrueAsync(
            () =>
            {
                if (Driver.StatusAsync().Result == 0)
                {
                    Driver.WriteStatusAsync(Up).Wait();
                }

                if (Driver.TryReceive() is { } frame)
                {
                    came.Add(frame.Request);
                }

                return came.Contains((uint)FrontendRequest.GetProtocolFeatures);
            },
            "the next one's message");
    }

    private async Task SetCallAsync(WirePeer peer, EventFd call)
    {
        await peer.SendAsync(
            FrontendRequest.SetVringCall, WirePeer.NoReply, RawRing.NotifierPayload(1, true), call.Descriptor);
        await Driver.ReceiveAsync(FrontendRequest.SetVringCall);
    }
}
