// CREATE_CRYPTO_SESSION: the device makes a session; -1 tells that it did not.
using System.Buffers.Binary;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class CreateCryptoSessionTests : TalentedRequestTest
{
    private static readonly CryptoSessionParameters s_cipher = new(0x02)
    {
        Symmetric = new SymmetricSession(3, 0, 0, 0, 1, 1, 0, 0, new byte[] { 1, 2, 3, 4 }, Array.Empty<byte>()),
    };

    protected override FrontendRequest Request => FrontendRequest.CreateCryptoSession;

    protected override ProtocolFeatures Gate => ProtocolFeatures.CryptoSession;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => CryptoSessionPayload.Write(s_cipher);

    [Fact]
    public async Task Device_hears_every_field_of_a_symmetric_session()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        SymmetricSession wanted = new(1, 2, 3, 4, 5, 6, 7, 8, Bytes(64), Bytes(512));
        byte[] payload = CryptoSessionPayload.Write(new CryptoSessionParameters(0x02) { Symmetric = wanted });
        Assert.Equal(1L, await CreateAsync(peer, payload));
        SymmetricSession heard = Device.Created.Single().Symmetric!;
        Assert.Equal(wanted with { CipherKey = default, HashKey = default }, heard with { CipherKey = default,
            HashKey = default });
        Assert.Equal(Bytes(64), heard.CipherKey.ToArray());
        Assert.Equal(Bytes(512), heard.HashKey.ToArray());
    }

    [Fact]
    public async Task Fields_stand_where_front_ends_put_them()
    {
        byte[] payload = new byte[1072];
        BinaryPrimitives.WriteUInt64LittleEndian(payload, 0x02);
        foreach ((int offset, uint value) in ((int, uint)[])[(8, 3), (12, 16), (16, 7), (20, 20), (24, 32), (28, 9)])
        {
            BinaryPrimitives.WriteUInt32LittleEndian(payload.AsSpan(offset), value);
        }

        (payload[32], payload[33], payload[34], payload[35]) = (2, 1, 3, 4);
        payload[56] = 0xC1;
        payload[120] = 0xA1;
        using WirePeer peer = await ConnectPreparedAsync();
        await CreateAsync(peer, payload);
        SymmetricSession heard = Device.Created.Single().Symmetric!;
        Assert.Equal((3U, 7U, 20U, 9U), (heard.Cipher, heard.Hash, heard.HashResultBytes, heard.AdditionalDataBytes));
        Assert.Equal((2, 1, 3, 4), (heard.OperationType, heard.Direction, heard.HashMode, heard.ChainOrder));
        Assert.Equal((16, 0xC1), (heard.CipherKey.Length, heard.CipherKey.Span[0]));
        Assert.Equal((32, 0xA1), (heard.HashKey.Length, heard.HashKey.Span[0]));
    }

    [Fact]
    public async Task Device_hears_every_field_of_an_asymmetric_session()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        AsymmetricSession wanted = new(1, 2, 3, 4, Bytes(1024));
        byte[] payload = CryptoSessionPayload.Write(new CryptoSessionParameters(0x404) { Asymmetric = wanted });
        Assert.Equal(1L, await CreateAsync(peer, payload));
        AsymmetricSession heard = Device.Created.Single().Asymmetric!;
        Assert.Equal(wanted with { Key = default }, heard with { Key = default });
        Assert.Equal(Bytes(1024), heard.Key.ToArray());
    }

    [Fact]
    public async Task Reply_has_the_number_and_no_key()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        byte[] expected = new byte[1072];
        expected[0] = 2;
        expected[1064] = 1;
        Assert.Equal(expected, await peer.AskAsync(Request, GoodPayload, WirePeer.NoReply));
    }

    [Fact]
    public async Task Device_without_room_is_told_by_minus_one()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        for (long i = 1; i <= (long)TalentedDevice.MostSessions; i++)
        {
            Assert.Equal(i, await CreateAsync(peer, GoodPayload));
        }

        Assert.Equal(-1L, await CreateAsync(peer, GoodPayload));
        await peer.ExpectServedAsync();
    }

    [Theory]
    [InlineData(12, 65U)]
    [InlineData(12, uint.MaxValue)]
    [InlineData(24, 513U)]
    [InlineData(24, 0x80000000U)]
    public async Task Key_longer_than_its_place_is_no_session(int offset, uint length)
    {
        using WirePeer peer = await ConnectPreparedAsync();
        byte[] payload = GoodPayload;
        BinaryPrimitives.WriteUInt32LittleEndian(payload.AsSpan(offset), length);
        Assert.Equal(-1L, await CreateAsync(peer, payload));
        Assert.Empty(Device.Created);
    }

    [Fact]
    public async Task Asymmetric_key_longer_than_its_place_is_no_session()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        byte[] payload = new byte[1072];
        BinaryPrimitives.WriteUInt64LittleEndian(payload, 0x404);
        BinaryPrimitives.WriteUInt32LittleEndian(payload.AsSpan(16), 1025);
        Assert.Equal(-1L, await CreateAsync(peer, payload));
    }

    private static byte[] Bytes(int count) => [.. Enumerable.Range(1, count).Select(i => (byte)i)];

    private async Task<long> CreateAsync(WirePeer peer, byte[] payload)
    {
        byte[] reply = await peer.AskAsync(Request, payload);
        Assert.Equal(1072, reply.Length);
        return BinaryPrimitives.ReadInt64LittleEndian(reply.AsSpan(1064));
    }
}
