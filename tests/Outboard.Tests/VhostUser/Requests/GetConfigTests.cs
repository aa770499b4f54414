// GET_CONFIG: any range; zeros beyond the end; an empty payload is the error.
using System.Buffers.Binary;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GetConfigTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.GetConfig;

    protected override ProtocolFeatures Gate => ProtocolFeatures.Config;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => Ask(0, 57);

    protected override bool IsSizeAllowed(int bytes) => bytes >= 12;

    [Theory]
    [InlineData(0)]
    [InlineData(15)]
    [InlineData(17)]
    [InlineData(256)]
    [InlineData(uint.MaxValue)]
    public async Task Size_field_that_does_not_fit_the_payload_is_answered_by_an_empty_payload(uint size)
    {
        using WirePeer peer = await ConnectPreparedAsync();
        byte[] payload = Ask(0, 16);
        BinaryPrimitives.WriteUInt32LittleEndian(payload.AsSpan(4), size);
        Assert.Empty(await peer.AskAsync(Request, payload, WirePeer.NoReply));
        await peer.ExpectServedAsync();
    }

    [Theory]
    [InlineData(0, 16)]
    [InlineData(0, 0)]
    [InlineData(0, 8)]
    [InlineData(4, 8)]
    [InlineData(0, 57)]
    [InlineData(15, 2)]
    [InlineData(16, 4)]
    [InlineData(1000, 256)]
    [InlineData(uint.MaxValue, 8)]
    [InlineData(0x80000000, 8)]
    [InlineData(0, 4084)]
    public async Task Any_range_is_answered_with_its_own_size(uint offset, int size)
    {
        Rig.Device.Config.Set(FakeDevice.Capacity, 0x8877665544332211);
        byte[] space = new byte[8192];
        Rig.Device.Config.Read(0, space);
        using WirePeer peer = await ConnectPreparedAsync();
        byte[] expected = Ask(offset, size);
        if (offset < space.Length - size)
        {
            space.AsSpan((int)offset, size).CopyTo(expected.AsSpan(12));
        }

        Assert.Equal(expected, await peer.AskAsync(Request, Ask(offset, size), WirePeer.NoReply));
        Assert.Equal(expected, await peer.AskAsync(Request, Ask(offset, size), WirePeer.NeedReply));
    }

    [Fact]
    public async Task What_the_request_carries_is_not_echoed()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        byte[] payload = Ask(0, 64);
        payload.AsSpan(12).Fill(0xAA);
        Assert.Equal(Ask(0, 64), await peer.AskAsync(Request, payload, WirePeer.NoReply));
    }

    [Fact]
    public async Task Largest_payload_is_accepted_and_one_byte_more_closes()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        Assert.Equal(4096, (await peer.AskAsync(Request, Ask(0, 4084), WirePeer.NoReply)).Length);
        await peer.SendAsync(Request, WirePeer.NeedReply, Ask(0, 4085));
        await peer.ExpectClosedAsync();
        await Rig.ExpectServesNextAsync();
    }

    private static byte[] Ask(uint offset, int size) =>
        [.. WirePeer.Bytes(new ConfigPayload(offset, (uint)size, 0)), .. new byte[size]];
}
