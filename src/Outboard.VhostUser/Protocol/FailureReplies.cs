// What a request with a reply of its own is answered when it fails. Only some replies have room for that:
//
//   GET_CONFIG, POSTCOPY_ADVISE, GET_SHARED_OBJECT           an empty payload, no descriptor
//   all behind LIFE_CYCLE                                    likewise
//   GET_INFLIGHT_FD                                          mmap size 0, no descriptor
//   CREATE_CRYPTO_SESSION                                    session -1
//   IOTLB_MSG, POSTCOPY_LISTEN, POSTCOPY_END, CHECK_DEVICE_STATE   a number that is not 0
//   SET_DEVICE_STATE_FD                                      1, with the bit for "no descriptor" (8)
//
// Everything else closes the connection: each value of GET_FEATURES, GET_VRING_BASE and so on would be taken for an
// answer, and a front-end that reads no status out of the reply to SET_LOG_BASE would go on without a log.
using System.Buffers.Binary;

namespace Outboard.VhostUser.Protocol;

/// <summary>Replies that tell a failure.</summary>
public static class FailureReplies
{
    private const ulong Failed = 1;
    private const ulong FailedWithoutDescriptor = Failed | (1UL << 8);

    /// <summary>The payload of the reply, which has no descriptor; null when no reply can tell a failure.</summary>
    public static byte[]? Of(FrontendRequest request) => request switch
    {
        FrontendRequest.GetConfig or FrontendRequest.PostcopyAdvise or FrontendRequest.GetSharedObject
            or FrontendRequest.GetIdentity or FrontendRequest.GetQueueLimit or FrontendRequest.GetIovaRange
            or FrontendRequest.GetQueueState or FrontendRequest.ReadConfig => [],
        FrontendRequest.GetInflightFd => new byte[InflightPayload.Bytes],
        FrontendRequest.CreateCryptoSession => NoCryptoSession(),
        FrontendRequest.IotlbMsg or FrontendRequest.PostcopyListen or FrontendRequest.PostcopyEnd
            or FrontendRequest.CheckDeviceState => Number(Failed),
        FrontendRequest.SetDeviceStateFd => Number(FailedWithoutDescriptor),
        _ => null,
    };

    private static byte[] NoCryptoSession()
    {
        byte[] payload = new byte[CryptoSessionPayload.Bytes];
        BinaryPrimitives.WriteInt64LittleEndian(payload.AsSpan(CryptoSessionPayload.SessionOffset), -1);
        return payload;
    }

    private static byte[] Number(ulong value)
    {
        byte[] payload = new byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(payload, value);
        return payload;
    }
}
