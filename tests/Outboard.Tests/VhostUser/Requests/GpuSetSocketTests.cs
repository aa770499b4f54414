// GPU_SET_SOCKET: a display for a device that draws; refused by all others.
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GpuSetSocketTests : TalentedRequestTest
{
    protected override FrontendRequest Request => FrontendRequest.GpuSetSocket;

    protected override byte[] GoodPayload => [];

    protected override int MaxDescriptors => 1;

    private protected override FileDescriptor[] GoodDescriptors() => [Rig.SocketPair().Passed];

    [Fact]
    public Task Missing_descriptor_is_refused() => ExpectRefusedAsync([]);

    [Fact]
    public Task Memory_is_no_display() => ExpectRefusedAsync([], Rig.MemoryFile());

    [Fact]
    public async Task Device_draws_and_asks_on_the_connection()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        (FileDescriptor passed, WirePeer display) = Rig.SocketPair();
        await peer.DoBytesAsync(Request, [], passed);
        byte[] picture = new byte[20 + (640 * 480 * 4)];
        Task sending = Device.Display!.SendAsync(new DisplayMessage(8, false, picture)).AsTask();
        WireMessage update = await display.ReceiveAsync();
        await sending;
        Assert.Equal((8U, 0U, picture.Length), (update.Request, update.Flags, update.Payload.Length));

        await Device.Display.SendAsync(new DisplayMessage(1, false, Array.Empty<byte>()));
        Assert.Equal(1U, (await display.ReceiveAsync()).Request);
        await display.SendAsync(WirePeer.Frame(1, 4, WirePeer.Bytes(3UL)));
        using DisplayMessage reply = (await Device.Display.ReceiveAsync())!;
        Assert.True(reply.IsReply);
        Assert.Equal(WirePeer.Bytes(3UL), reply.Payload.ToArray());
        display.Shutdown();
        Assert.Null(await Device.Display.ReceiveAsync());
        await Device.Display.DisposeAsync();
    }

    [Fact]
    public async Task Later_display_replaces_the_earlier_one()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        (FileDescriptor first, WirePeer keptFirst) = Rig.SocketPair();
        (FileDescriptor second, WirePeer keptSecond) = Rig.SocketPair();
        await peer.DoBytesAsync(Request, [], first);
        first.Dispose();
        await peer.DoBytesAsync(Request, [], second);
        second.Dispose();
        await keptFirst.ExpectClosedAsync();
        await Device.Display!.SendAsync(new DisplayMessage(7, false, new byte[12]));
        Assert.Equal(7U, (await keptSecond.ReceiveAsync()).Request);
        await Device.Display.DisposeAsync();
    }

    [Fact]
    public async Task Payload_that_nobody_could_show_ends_the_connection()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        (FileDescriptor passed, WirePeer display) = Rig.SocketPair();
        await peer.DoBytesAsync(Request, [], passed);
        await display.SendAsync(WirePeer.Frame(3, 4, [], size: uint.MaxValue));
        await Assert.ThrowsAsync<IOException>(async () => await Device.Display!.ReceiveAsync());
        await Device.Display!.DisposeAsync();
    }

    [Fact]
    public async Task Device_that_draws_nothing_refuses()
    {
        await using BackendRig plain = new();
        using WirePeer peer = await plain.ConnectAsync();
        await peer.NegotiateAsync();
        await peer.RefusedAsync(Request, [], plain.SocketPair().Passed);
        await peer.ExpectServedAsync();
    }

    public override async ValueTask DisposeAsync()
    {
        if (Device.Display is { } display)
        {
            await display.DisposeAsync();
        }

        await base.DisposeAsync();
    }
}
