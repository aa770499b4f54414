// CHECK_DEVICE_STATE: the end of a transfer, once.
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class CheckDeviceStateTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.CheckDeviceState;

    protected override ProtocolFeatures Gate => ProtocolFeatures.DeviceState;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => [];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Without_a_transfer_it_is_an_error()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        Assert.NotEqual(0UL, await peer.AskValueAsync(Request));
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task Ring_that_was_started_meanwhile_makes_a_load_fail()
    {
        byte[] state;
        await using (VhostUserFrontend frontend = await Rig.ConnectFrontendAsync())
        {
            state = await frontend.SaveDeviceStateAsync(Token);
        }

        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        (FileDescriptor reading, FileDescriptor writing) = ByteStream.CreatePipe();
        byte[] load = WirePeer.Bytes(new DeviceStatePayload(DeviceStatePayload.Load, 0));
        await peer.AskAsync(FrontendRequest.SetDeviceStateFd, load, 1, reading);
        reading.Dispose();
        await ring.StartAsync(peer);
        using (ByteStream stream = new(writing))
        {
            await stream.WriteAsync(state, Token);
        }

        Assert.NotEqual(0UL, await peer.AskValueAsync(Request));
        await ring.RoundTripAsync();
    }

    [Fact]
    public async Task Our_front_end_moves_a_state_and_names_what_failed()
    {
        Rig.Device.Luggage = [1, 2, 3];
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync();
        byte[] state = await frontend.SaveDeviceStateAsync(Token);
        Rig.Device.Luggage = [0, 0, 0];
        await frontend.LoadDeviceStateAsync(state, Token);
        Assert.Equal([1, 2, 3], Rig.Device.Luggage);
        ProtocolException error = await Assert.ThrowsAsync<ProtocolException>(
            () => frontend.LoadDeviceStateAsync(state.AsMemory(1), Token));
        Assert.Equal("CHECK_DEVICE_STATE", error.Request);
        await frontend.LoadDeviceStateAsync(state, Token);
    }
}
