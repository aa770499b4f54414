// The payload of CREATE_CRYPTO_SESSION, which the specification names and does not lay out; this is what the programs
// that use it have agreed on. 1072 bytes:
//
//   0 op_code u64; then either of
//     symmetric:   8 cipher u32, 12 cipher key bytes u32, 16 hash u32, 20 hash result bytes u32, 24 hash key bytes u32,
//                  28 additional data bytes u32, 32 op type u8, 33 direction u8, 34 hash mode u8, 35 chain order u8,
//                  36 padding, 40 and 48 addresses of the sender's (meaningless), 56 cipher key 64, 120 hash key 512
//     asymmetric:  8 algorithm u32, 12 key type u32, 16 key bytes u32, 20 padding, 24 address of the sender's,
//                  32 rsa padding u32, 36 rsa hash u32, 40 key 1024
//   1064 session i64, in the reply: at least 0, or -1
using System.Buffers.Binary;
using Outboard.Virtio;

namespace Outboard.VhostUser.Protocol;

/// <summary>The layout of a crypto session's payload.</summary>
public static class CryptoSessionPayload
{
    /// <summary>Bytes.</summary>
    public const int Bytes = 1072;

    /// <summary>Offset of the session's number.</summary>
    public const int SessionOffset = 1064;

    private const int CipherKeyOffset = 56;
    private const int CipherKeyBytes = 64;
    private const int HashKeyOffset = 120;
    private const int HashKeyBytes = 512;
    private const int AsymmetricKeyOffset = 40;
    private const int AsymmetricKeyBytes = 1024;

    /// <summary>Operations from this one on are of asymmetric keys (VIRTIO_CRYPTO_AKCIPHER_CREATE_SESSION).</summary>
    private const uint FirstAsymmetric = 0x404;

    /// <summary>Reads what a session is to be.</summary>
    /// <exception cref="ProtocolException">A key is longer than its place.</exception>
    public static CryptoSessionParameters Read(ReadOnlySpan<byte> payload)
    {
        ulong operation = BinaryPrimitives.ReadUInt64LittleEndian(payload);
        if (operation >= FirstAsymmetric)
        {
            return new CryptoSessionParameters(operation)
            {
                Asymmetric = new AsymmetricSession(
                    Word(payload, 8), Word(payload, 12), Word(payload, 32), Word(payload, 36),
                    Key(payload, AsymmetricKeyOffset, AsymmetricKeyBytes, Word(payload, 16))),
            };
        }

        return new CryptoSessionParameters(operation)
        {
            Symmetric = new SymmetricSession(
                Word(payload, 8), Word(payload, 16), Word(payload, 20), Word(payload, 28), payload[32], payload[33],
                payload[34], payload[35],
                Key(payload, CipherKeyOffset, CipherKeyBytes, Word(payload, 12)),
                Key(payload, HashKeyOffset, HashKeyBytes, Word(payload, 24))),
        };
    }

    /// <summary>Writes a payload, for the front-end.</summary>
    public static byte[] Write(CryptoSessionParameters parameters)
    {
        ArgumentNullException.ThrowIfNull(parameters);
        byte[] payload = new byte[Bytes];
        BinaryPrimitives.WriteUInt64LittleEndian(payload, parameters.Operation);
        if (parameters.Asymmetric is { } asymmetric)
        {
            Words(payload, 8, asymmetric.Algorithm, asymmetric.KeyType, (uint)asymmetric.Key.Length);
            Words(payload, 32, asymmetric.Padding, asymmetric.Hash);
            asymmetric.Key.Span.CopyTo(payload.AsSpan(AsymmetricKeyOffset, AsymmetricKeyBytes));
        }
        else if (parameters.Symmetric is { } symmetric)
        {
            Words(
                payload, 8, symmetric.Cipher, (uint)symmetric.CipherKey.Length, symmetric.Hash,
                symmetric.HashResultBytes, (uint)symmetric.HashKey.Length, symmetric.AdditionalDataBytes);
            payload[32] = symmetric.OperationType;
            payload[33] = symmetric.Direction;
            payload[34] = symmetric.HashMode;
            payload[35] = symmetric.ChainOrder;
            symmetric.CipherKey.Span.CopyTo(payload.AsSpan(CipherKeyOffset, CipherKeyBytes));
            symmetric.HashKey.Span.CopyTo(payload.AsSpan(HashKeyOffset, HashKeyBytes));
        }

        return payload;
    }

    private static uint Word(ReadOnlySpan<byte> payload, int offset) =>
        BinaryPrimitives.ReadUInt32LittleEndian(payload[offset..]);

    private static void Words(Span<byte> payload, int offset, params ReadOnlySpan<uint> words)
    {
        for (int i = 0; i < words.Length; i++)
        {
            BinaryPrimitives.WriteUInt32LittleEndian(payload[(offset + (i * sizeof(uint)))..], words[i]);
        }
    }

    private static byte[] Key(ReadOnlySpan<byte> payload, int offset, int place, uint length) => length <= (uint)place
        ? payload.Slice(offset, (int)length).ToArray()
        : throw new ProtocolException(
            "CREATE_CRYPTO_SESSION", "key", $"{length} bytes, and its place has {place}");
}
