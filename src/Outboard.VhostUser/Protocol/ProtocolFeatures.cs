// Protocol feature bits, vhost-user "Protocol features".
namespace Outboard.VhostUser.Protocol;

/// <summary>Protocol features.</summary>
[Flags]
public enum ProtocolFeatures : ulong
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>VHOST_USER_PROTOCOL_F_MQ.</summary>
    MultiQueue = 1UL << 0,

    /// <summary>VHOST_USER_PROTOCOL_F_LOG_SHMFD.</summary>
    LogShmFd = 1UL << 1,

    /// <summary>VHOST_USER_PROTOCOL_F_RARP.</summary>
    Rarp = 1UL << 2,

    /// <summary>VHOST_USER_PROTOCOL_F_REPLY_ACK.</summary>
    ReplyAck = 1UL << 3,

    /// <summary>VHOST_USER_PROTOCOL_F_MTU.</summary>
    NetMtu = 1UL << 4,

    /// <summary>VHOST_USER_PROTOCOL_F_BACKEND_REQ.</summary>
    BackendReq = 1UL << 5,

    /// <summary>VHOST_USER_PROTOCOL_F_CROSS_ENDIAN.</summary>
    CrossEndian = 1UL << 6,

    /// <summary>VHOST_USER_PROTOCOL_F_CRYPTO_SESSION.</summary>
    CryptoSession = 1UL << 7,

    /// <summary>VHOST_USER_PROTOCOL_F_PAGEFAULT.</summary>
    PageFault = 1UL << 8,

    /// <summary>VHOST_USER_PROTOCOL_F_CONFIG.</summary>
    Config = 1UL << 9,

    /// <summary>VHOST_USER_PROTOCOL_F_BACKEND_SEND_FD.</summary>
    BackendSendFd = 1UL << 10,

    /// <summary>VHOST_USER_PROTOCOL_F_HOST_NOTIFIER.</summary>
    HostNotifier = 1UL << 11,

    /// <summary>VHOST_USER_PROTOCOL_F_INFLIGHT_SHMFD.</summary>
    InflightShmFd = 1UL << 12,

    /// <summary>VHOST_USER_PROTOCOL_F_RESET_DEVICE.</summary>
    ResetDevice = 1UL << 13,

    /// <summary>VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS.</summary>
    InbandNotifications = 1UL << 14,

    /// <summary>VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS.</summary>
    ConfigureMemSlots = 1UL << 15,

    /// <summary>VHOST_USER_PROTOCOL_F_STATUS.</summary>
    Status = 1UL << 16,

    /// <summary>VHOST_USER_PROTOCOL_F_XEN_MMAP.</summary>
    XenMmap = 1UL << 17,

    /// <summary>VHOST_USER_PROTOCOL_F_SHARED_OBJECT.</summary>
    SharedObject = 1UL << 18,

    /// <summary>VHOST_USER_PROTOCOL_F_DEVICE_STATE.</summary>
    DeviceState = 1UL << 19,

    /// <summary>VHOST_USER_PROTOCOL_F_GET_VRING_BASE_INFLIGHT.</summary>
    GetVringBaseInflight = 1UL << 20,

    /// <summary>VHOST_USER_PROTOCOL_F_GPA_ADDRESSES.</summary>
    GpaAddresses = 1UL << 21,

    /// <summary>VHOST_USER_PROTOCOL_F_SHMEM.</summary>
    Shmem = 1UL << 22,

    /// <summary>VHOST_USER_PROTOCOL_F_GET_VRING_BASE_SKIP_DRAIN.</summary>
    GetVringBaseSkipDrain = 1UL << 23,

    /// <summary>OUTBOARD_PROTOCOL_F_LIFE_CYCLE, private to this library: offered and accepted on request.</summary>
    LifeCycle = 1UL << 62,
}
