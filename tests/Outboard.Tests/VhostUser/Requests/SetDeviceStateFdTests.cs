// SET_DEVICE_STATE_FD: a device's state by a pipe, beside the connection; mistakes are answered by a number.
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetDeviceStateFdTests : RequestTest
{
    private const ulong Begun = 0x100;
    private const ulong Refused = 0x101;
    private const int Limit = 1 << 20;

    protected override FrontendRequest Request => FrontendRequest.SetDeviceStateFd;

    protected override ProtocolFeatures Gate => ProtocolFeatures.DeviceState;

    protected override int MaxDescriptors => 1;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => Save;

    private static byte[] Save => WirePeer.Bytes(new DeviceStatePayload(0, 0));

    private static byte[] Load => WirePeer.Bytes(new DeviceStatePayload(1, 0));

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private protected override FileDescriptor[] GoodDescriptors() => [Pipe().Writing];

    [Theory]
    [InlineData(2, 0)]
    [InlineData(0, 1)]
    [InlineData(uint.MaxValue, uint.MaxValue)]
    public async Task Another_direction_or_phase_is_refused(uint direction, uint phase)
    {
        using WirePeer peer = await ConnectPreparedAsync();
        byte[] payload = WirePeer.Bytes(new DeviceStatePayload(direction, phase));
        Assert.Equal(WirePeer.Bytes(Refused), await peer.AskAsync(Request, payload, 1, Pipe().Writing));
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task What_is_no_stream_is_refused()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        Assert.Equal(WirePeer.Bytes(Refused), await peer.AskAsync(Request, Save));
        Assert.Equal(WirePeer.Bytes(Refused), await peer.AskAsync(Request, Save, 1, Rig.Event().Descriptor));
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task Running_ring_is_refused_and_goes_on()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        Assert.Equal(WirePeer.Bytes(Refused), await peer.AskAsync(Request, Save, 1, Pipe().Writing));
        await ring.RoundTripAsync();
        await ring.StopAsync(peer);
        Assert.Equal(WirePeer.Bytes(Begun), await peer.AskAsync(Request, Save, 1, Pipe().Writing));
    }

    [Fact]
    public async Task State_moves_to_another_connection()
    {
        byte[] state = await SaveAsync([1, 2, 3]);
        Rig.Device.Luggage = [0, 0, 0];
        using WirePeer peer = await ConnectPreparedAsync();
        Assert.Equal(0UL, await LoadAsync(peer, state));
        Assert.Equal([1, 2, 3], Rig.Device.Luggage);
    }

    [Fact]
    public async Task Saving_into_a_full_pipe_keeps_nobody_from_being_answered()
    {
        Rig.Device.Luggage = new byte[500_000];
        using WirePeer peer = await ConnectPreparedAsync();
        (FileDescriptor reading, FileDescriptor writing) = Pipe();
        Assert.Equal(WirePeer.Bytes(Begun), await peer.AskAsync(Request, Save, 1, writing));
        writing.Dispose();
        for (int i = 0; i < 10; i++)
        {
            await peer.ExpectServedAsync();
        }

        using ByteStream stream = new(reading.Duplicate());
        byte[] state = await stream.ReadToEndAsync(Limit, Token);
        Assert.Equal(0UL, await peer.AskValueAsync(FrontendRequest.CheckDeviceState));
        Assert.Equal(0UL, await LoadAsync(peer, state));
    }

    [Fact]
    public async Task Front_end_that_leaves_in_the_middle_leaves_nothing_behind()
    {
        Rig.Device.Luggage = new byte[500_000];
        using (WirePeer peer = await ConnectPreparedAsync())
        {
            await peer.AskAsync(Request, Save, 1, Pipe().Writing);
            await peer.AskAsync(Request, Load, 1, Pipe().Reading);
        }

        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task Failed_save_leaves_a_device_that_goes_on()
    {
        Rig.Device.Luggage = new byte[500_000];
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
        uint index = await ring.StopAsync(peer);
        (FileDescriptor reading, FileDescriptor writing) = Pipe();
        Assert.Equal(WirePeer.Bytes(Begun), await peer.AskAsync(Request, Save, 1, writing));
        reading.Dispose();
        Assert.NotEqual(0UL, await peer.AskValueAsync(FrontendRequest.CheckDeviceState));
        await ring.StartAsync(peer, index);
        await ring.RoundTripAsync();
    }

    [Fact]
    public async Task State_that_is_cut_altered_or_endless_is_refused_and_changes_nothing()
    {
        byte[] state = await SaveAsync([1, 2, 3]);
        Rig.Device.Luggage = [9, 9, 9];
        using WirePeer peer = await ConnectPreparedAsync();
        byte[] altered = [.. state];
        altered[^40] ^= 1;
        foreach (byte[] stream in (byte[][])[[], state[..^1], [.. state, 0], altered, new byte[Limit + 1]])
        {
            Assert.NotEqual(0UL, await LoadAsync(peer, stream));
            Assert.Equal([9, 9, 9], Rig.Device.Luggage);
        }

        Assert.Equal(0UL, await LoadAsync(peer, state));
    }

    private (FileDescriptor Reading, FileDescriptor Writing) Pipe()
    {
        (FileDescriptor reading, FileDescriptor writing) = ByteStream.CreatePipe();
        return (Rig.Own(reading), Rig.Own(writing));
    }

    private async Task<byte[]> SaveAsync(byte[] luggage)
    {
        Rig.Device.Luggage = luggage;
        using WirePeer peer = await ConnectPreparedAsync();
        (FileDescriptor reading, FileDescriptor writing) = Pipe();
        Assert.Equal(WirePeer.Bytes(Begun), await peer.AskAsync(Request, Save, 1, writing));
        writing.Dispose();
        using ByteStream stream = new(reading.Duplicate());
        byte[] state = await stream.ReadToEndAsync(Limit, Token);
        Assert.Equal(0UL, await peer.AskValueAsync(FrontendRequest.CheckDeviceState));
        return state;
    }

    private async Task<ulong> LoadAsync(WirePeer peer, byte[] state)
    {
        (FileDescriptor reading, FileDescriptor writing) = Pipe();
        Assert.Equal(WirePeer.Bytes(Begun), await peer.AskAsync(Request, Load, 1, reading));
        reading.Dispose();
        using (ByteStream stream = new(writing))
        {
            try
            {
                await stream.WriteAsync(state, Token);
            }
            catch (LinuxException)
            {
                // The back-end has read enough.
            }
        }

        return await peer.AskValueAsync(FrontendRequest.CheckDeviceState);
    }
}
