// Requests that a front-end sends, vhost-user "Front-end message types". 45 is newer than QEMU 11.1.
namespace Outboard.VhostUser.Protocol;

/// <summary>A request from the front-end to the back-end.</summary>
public enum FrontendRequest : uint
{
    /// <summary>VHOST_USER_GET_FEATURES.</summary>
    GetFeatures = 1,

    /// <summary>VHOST_USER_SET_FEATURES.</summary>
    SetFeatures = 2,

    /// <summary>VHOST_USER_SET_OWNER.</summary>
    SetOwner = 3,

    /// <summary>VHOST_USER_RESET_OWNER.</summary>
    ResetOwner = 4,

    /// <summary>VHOST_USER_SET_MEM_TABLE.</summary>
    SetMemTable = 5,

    /// <summary>VHOST_USER_SET_LOG_BASE.</summary>
    SetLogBase = 6,

    /// <summary>VHOST_USER_SET_LOG_FD.</summary>
    SetLogFd = 7,

    /// <summary>VHOST_USER_SET_VRING_NUM.</summary>
    SetVringNum = 8,

    /// <summary>VHOST_USER_SET_VRING_ADDR.</summary>
    SetVringAddr = 9,

    /// <summary>VHOST_USER_SET_VRING_BASE.</summary>
    SetVringBase = 10,

    /// <summary>VHOST_USER_GET_VRING_BASE.</summary>
    GetVringBase = 11,

    /// <summary>VHOST_USER_SET_VRING_KICK.</summary>
    SetVringKick = 12,

    /// <summary>VHOST_USER_SET_VRING_CALL.</summary>
    SetVringCall = 13,

    /// <summary>VHOST_USER_SET_VRING_ERR.</summary>
    SetVringErr = 14,

    /// <summary>VHOST_USER_GET_PROTOCOL_FEATURES.</summary>
    GetProtocolFeatures = 15,

    /// <summary>VHOST_USER_SET_PROTOCOL_FEATURES.</summary>
    SetProtocolFeatures = 16,

    /// <summary>VHOST_USER_GET_QUEUE_NUM.</summary>
    GetQueueNum = 17,

    /// <summary>VHOST_USER_SET_VRING_ENABLE.</summary>
    SetVringEnable = 18,

    /// <summary>VHOST_USER_SEND_RARP.</summary>
    SendRarp = 19,

    /// <summary>VHOST_USER_NET_SET_MTU.</summary>
    NetSetMtu = 20,

    /// <summary>VHOST_USER_SET_BACKEND_REQ_FD (once SET_SLAVE_REQ_FD).</summary>
    SetBackendReqFd = 21,

    /// <summary>VHOST_USER_IOTLB_MSG.</summary>
    IotlbMsg = 22,

    /// <summary>VHOST_USER_SET_VRING_ENDIAN.</summary>
    SetVringEndian = 23,

    /// <summary>VHOST_USER_GET_CONFIG.</summary>
    GetConfig = 24,

    /// <summary>VHOST_USER_SET_CONFIG.</summary>
    SetConfig = 25,

    /// <summary>VHOST_USER_CREATE_CRYPTO_SESSION.</summary>
    CreateCryptoSession = 26,

    /// <summary>VHOST_USER_CLOSE_CRYPTO_SESSION.</summary>
    CloseCryptoSession = 27,

    /// <summary>VHOST_USER_POSTCOPY_ADVISE.</summary>
    PostcopyAdvise = 28,

    /// <summary>VHOST_USER_POSTCOPY_LISTEN.</summary>
    PostcopyListen = 29,

    /// <summary>VHOST_USER_POSTCOPY_END.</summary>
    PostcopyEnd = 30,

    /// <summary>VHOST_USER_GET_INFLIGHT_FD.</summary>
    GetInflightFd = 31,

    /// <summary>VHOST_USER_SET_INFLIGHT_FD.</summary>
    SetInflightFd = 32,

    /// <summary>VHOST_USER_GPU_SET_SOCKET.</summary>
    GpuSetSocket = 33,

    /// <summary>VHOST_USER_RESET_DEVICE.</summary>
    ResetDevice = 34,

    /// <summary>VHOST_USER_VRING_KICK.</summary>
    VringKick = 35,

    /// <summary>VHOST_USER_GET_MAX_MEM_SLOTS.</summary>
    GetMaxMemSlots = 36,

    /// <summary>VHOST_USER_ADD_MEM_REG.</summary>
    AddMemReg = 37,

    /// <summary>VHOST_USER_REM_MEM_REG.</summary>
    RemMemReg = 38,

    /// <summary>VHOST_USER_SET_STATUS.</summary>
    SetStatus = 39,

    /// <summary>VHOST_USER_GET_STATUS.</summary>
    GetStatus = 40,

    /// <summary>VHOST_USER_GET_SHARED_OBJECT.</summary>
    GetSharedObject = 41,

    /// <summary>VHOST_USER_SET_DEVICE_STATE_FD.</summary>
    SetDeviceStateFd = 42,

    /// <summary>VHOST_USER_CHECK_DEVICE_STATE.</summary>
    CheckDeviceState = 43,

    /// <summary>VHOST_USER_GET_SHMEM_CONFIG.</summary>
    GetShmemConfig = 44,

    /// <summary>VHOST_USER_GET_VRING_BASE_SKIP_DRAIN.</summary>
    GetVringBaseSkipDrain = 45,

    /// <summary>Private, behind LIFE_CYCLE: what the device is.</summary>
    GetIdentity = 0x1000,

    /// <summary>Private, behind LIFE_CYCLE: the largest size of a queue.</summary>
    GetQueueLimit = 0x1001,

    /// <summary>Private, behind LIFE_CYCLE: which bus addresses are possible.</summary>
    GetIovaRange = 0x1002,

    /// <summary>Private, behind LIFE_CYCLE: nothing is in flight, written or told until RESUME.</summary>
    Suspend = 0x1003,

    /// <summary>Private, behind LIFE_CYCLE: goes on after SUSPEND.</summary>
    Resume = 0x1004,

    /// <summary>Private, behind LIFE_CYCLE: where a queue stands, also while it runs.</summary>
    GetQueueState = 0x1005,

    /// <summary>Private, behind LIFE_CYCLE: reads the configuration space with its generation.</summary>
    ReadConfig = 0x1006,

    /// <summary>Private, behind LIFE_CYCLE: writes the configuration space as a driver does.</summary>
    WriteConfig = 0x1007,
}
