// SET_CONFIG: writable fields only, unless a migration restores the space.
using System.Buffers.Binary;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetConfigTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetConfig;

    protected override ProtocolFeatures Gate => ProtocolFeatures.Config;

    protected override byte[] GoodPayload => Write(8, [1]);

    protected override bool IsSizeAllowed(int bytes) => bytes == 13;

    [Theory]
    [InlineData(0)]
    [InlineData(2)]
    [InlineData(uint.MaxValue)]
    public Task Size_field_that_does_not_fit_the_payload_is_refused(uint size)
    {
        byte[] payload = Write(8, [1]);
        BinaryPrimitives.WriteUInt32LittleEndian(payload.AsSpan(4), size);
        return ExpectRefusedAsync(payload);
    }

    [Theory]
    [InlineData(2)]
    [InlineData(uint.MaxValue)]
    public Task Unknown_flags_are_refused(uint flags) => ExpectRefusedAsync(Write(8, [1], flags));

    [Theory]
    [InlineData(0, 8)]
    [InlineData(7, 1)]
    [InlineData(9, 7)]
    public async Task Fields_that_are_not_writable_are_refused(uint offset, int size)
    {
        byte[] before = Space();
        await ExpectRefusedAsync(Write(offset, [.. Enumerable.Repeat((byte)0x55, size)]));
        Assert.Equal(before, Space());
        Assert.Equal(0, Rig.Device.ConfigWrites);
    }

    [Theory]
    [InlineData(8, 9)]
    [InlineData(16, 1)]
    [InlineData(uint.MaxValue, 1)]
    [InlineData(0, 4000)]
    public async Task Range_beyond_the_end_is_refused(uint offset, int size)
    {
        byte[] before = Space();
        await ExpectRefusedAsync(Write(offset, [.. Enumerable.Repeat((byte)0x55, size)]));
        await ExpectRefusedAsync(Write(offset, [.. Enumerable.Repeat((byte)0x55, size)], flags: 1));
        Assert.Equal(before, Space());
    }

    [Fact]
    public async Task Writable_field_is_written_and_the_device_told()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoBytesAsync(Request, Write(8, [7]));
        Assert.Equal(7UL, Rig.Device.Config.Get(FakeDevice.Mode));
        Assert.Equal(1, Rig.Device.ConfigWrites);
    }

    [Fact]
    public async Task Migration_writes_every_field()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        byte[] space = [.. Enumerable.Range(1, 16).Select(i => (byte)i)];
        await peer.DoBytesAsync(Request, Write(0, space, flags: 1));
        Assert.Equal(space, Space());
    }

    [Fact]
    public async Task Device_that_throws_ends_its_session_only()
    {
        ExpectsFailure = true;
        Rig.Device.ThrowsOnConfigWrite = true;
        using (WirePeer peer = await ConnectPreparedAsync())
        {
            await peer.SendAsync(Request, WirePeer.NeedReply, Write(8, [7]));
            await peer.ExpectClosedAsync();
        }

        Assert.NotEmpty(Rig.Log.Critical);
        await Rig.ExpectServesNextAsync();
    }

    private static byte[] Write(uint offset, byte[] bytes, uint flags = 0) =>
        [.. WirePeer.Bytes(new ConfigPayload(offset, (uint)bytes.Length, flags)), .. bytes];

    private byte[] Space()
    {
        byte[] space = new byte[FakeDevice.ConfigBytes];
        Rig.Device.Config.Read(0, space);
        return space;
    }
}
