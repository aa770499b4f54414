// The end of a session as an empty buffer among the messages: where it comes, and where it must not.
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

public sealed class SessionEndTests : DeviceTest
{
    [Fact]
    public async Task An_end_comes_behind_the_messages_of_its_session()
    {
        using WirePeer peer = await ConnectAsync();
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        Driver.Post();
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
        Assert.Equal(0, Driver.Ends);
        peer.Dispose();
        await Eventually.TrueAsync(() => Driver.TryReceive() is null && Driver.Ends == 1, "the end");
        Assert.Equal(0U, await Driver.StatusAsync());
    }

    [Fact]
    public async Task A_driver_that_ends_a_session_is_not_told()
    {
        Driver.Post();
        using WirePeer first = await ConnectAsync();
        await Driver.WriteStatusAsync(0);
        await first.ExpectClosedAsync();
        await ExpectNextWithoutEndAsync();
    }

    [Fact]
    public async Task An_end_that_found_no_buffer_does_not_reach_the_next_session()
    {
        using WirePeer first = await ConnectAsync();
        first.Dispose();
        await Driver.ExpectStatusAsync(0);
        Assert.Equal(1, Rig.Device.Mailbox.Count);
        await Driver.ArmAsync();
        Assert.Equal(0, Rig.Device.Mailbox.Count);
        Driver.Post();
        using WirePeer second = await Rig.ConnectAsync();
        await second.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
        Assert.Equal(0, Driver.Ends);
    }

    [Fact]
    public async Task A_device_that_needs_a_reset_tells_no_end()
    {
        Driver.Post();
        using WirePeer peer = await ConnectAsync();
        await Driver.WriteStatusAsync(0x80);
        await ExpectBrokenAsync();
        await peer.ExpectClosedAsync();
        Assert.Null(Driver.TryReceive());
        Assert.Equal(0, Driver.Ends);
    }

    [Fact]
    public async Task Without_a_front_end_there_is_no_end()
    {
        Driver.Post();
        await Driver.ArmAsync();
        await Driver.WriteStatusAsync(0);
        await ExpectNextWithoutEndAsync();
    }

    /// <summary>A driver that hears of no interrupt for the configuration.</summary>
    [Fact]
    public async Task An_end_ends_the_channel_by_itself()
    {
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        using VirtioVhostUserSource source = new(new DeafAccess(Rig.Access));
        Task<VhostUserChannel> next = source.NextAsync(Eventually.Limit, cancellation);
        await Eventually.TrueAsync(
            () => Rig.Device.Config.Get(VirtioVhostUserSpec.Status) == Up, "the driver has armed");
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        await using VhostUserChannel channel = await next;
        using VhostUserMessage message = (await channel.ReceiveAsync(cancellation))!;
        Assert.Equal((uint)FrontendRequest.GetFeatures, message.Request);
        peer.Dispose();
        await channel.WaitForCloseAsync(cancellation).WaitAsync(Eventually.Limit, cancellation);
        Assert.Null(await channel.ReceiveAsync(cancellation));
    }

    private async Task ExpectNextWithoutEndAsync()
    {
        using WirePeer next = await ConnectAsync();
        await next.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
        Assert.Equal(0, Driver.Ends);
    }

    private sealed class DeafAccess(DriverAccess access) : DriverAccess
    {
        public override string Description => access.Description;

        public override ulong Features => access.Features;

        public override int Rings => access.Rings;

        public override DriverQueueLink Receive => access.Receive;

        public override DriverQueueLink Transmit => access.Transmit;

        public override IReadOnlyList<EventFd> Interrupts => access.Interrupts;

        public override EventFd? KickOf(int ring) => access.KickOf(ring);

        public override void Ring(int notification) => access.Ring(notification);

        public override SharedMemory? OpenWindow(byte region) => access.OpenWindow(region);

        public override Task<bool> HasChangedAsync(CancellationToken cancellation) => Task.FromResult(false);

        public override Task<uint> ReadStatusAsync(CancellationToken cancellation) =>
            access.ReadStatusAsync(cancellation);

        public override Task WriteStatusAsync(uint status, CancellationToken cancellation) =>
            access.WriteStatusAsync(status, cancellation);

        public override ValueTask DisposeAsync() => ValueTask.CompletedTask;
    }
}

public sealed class NoSessionEndTests : DeviceTest
{
    private protected override ulong DriverFeatures => ~VirtioVhostUserSpec.SessionEndBuffers;

    [Fact]
    public async Task A_driver_that_does_not_want_ends_gets_none()
    {
        Driver.Post();
        using WirePeer first = await ConnectAsync();
        first.Dispose();
        await Driver.ExpectStatusAsync(0);
        Assert.Equal(0, Rig.Device.Mailbox.Count);
        Assert.False(Driver.TryCollectAny());
    }
}
