// Crypto sessions that a front-end makes in the driver's name: the control queue of such a device is served by the
// front-end, which tells the device what sessions there are. Numbers mean what they mean in virtio-v1.3
// "5.9 Crypto Device". No transport has a name here.
namespace Outboard.Virtio;

/// <summary>What a session is to be: one of the two kinds is there.</summary>
/// <param name="Operation">The control operation, for example VIRTIO_CRYPTO_CIPHER_CREATE_SESSION (0x02).</param>
public sealed record CryptoSessionParameters(ulong Operation)
{
    /// <summary>A session of a cipher, a hash, or both in a chain.</summary>
    public SymmetricSession? Symmetric { get; init; }

    /// <summary>A session of a key pair's half.</summary>
    public AsymmetricSession? Asymmetric { get; init; }
}

/// <summary>A session of a cipher, a hash, or both in a chain.</summary>
/// <param name="Cipher">VIRTIO_CRYPTO_CIPHER_*.</param>
/// <param name="Hash">VIRTIO_CRYPTO_HASH_* or VIRTIO_CRYPTO_MAC_*.</param>
/// <param name="HashResultBytes">Bytes of the digest.</param>
/// <param name="AdditionalDataBytes">Bytes of additional authenticated data.</param>
/// <param name="OperationType">VIRTIO_CRYPTO_SYM_OP_*: cipher, or algorithm chaining.</param>
/// <param name="Direction">VIRTIO_CRYPTO_OP_ENCRYPT (1) or _DECRYPT (2).</param>
/// <param name="HashMode">VIRTIO_CRYPTO_SYM_HASH_MODE_*.</param>
/// <param name="ChainOrder">VIRTIO_CRYPTO_SYM_ALG_CHAIN_ORDER_*.</param>
/// <param name="CipherKey">The cipher's key.</param>
/// <param name="HashKey">The hash's key.</param>
public sealed record SymmetricSession(
    uint Cipher,
    uint Hash,
    uint HashResultBytes,
    uint AdditionalDataBytes,
    byte OperationType,
    byte Direction,
    byte HashMode,
    byte ChainOrder,
    ReadOnlyMemory<byte> CipherKey,
    ReadOnlyMemory<byte> HashKey);

/// <summary>A session of a key pair's half.</summary>
/// <param name="Algorithm">VIRTIO_CRYPTO_AKCIPHER_*.</param>
/// <param name="KeyType">VIRTIO_CRYPTO_AKCIPHER_KEY_TYPE_*.</param>
/// <param name="Padding">For RSA: VIRTIO_CRYPTO_RSA_*_PADDING.</param>
/// <param name="Hash">For RSA: VIRTIO_CRYPTO_RSA_*.</param>
/// <param name="Key">The key.</param>
public sealed record AsymmetricSession(
    uint Algorithm, uint KeyType, uint Padding, uint Hash, ReadOnlyMemory<byte> Key);

/// <summary>A device with crypto sessions. Called on the transport's control loop.</summary>
public interface ICryptoSessions
{
    /// <summary>Makes a session.</summary>
    /// <returns>Its number, or null when the device has no such algorithm or no room.</returns>
    ulong? CreateSession(CryptoSessionParameters parameters);

    /// <summary>Ends a session.</summary>
    /// <returns>False when there is none of that number.</returns>
    bool CloseSession(ulong session);
}
