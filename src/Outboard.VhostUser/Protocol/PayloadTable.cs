// What is in each request and in its reply, field by field: the layouts of vhost-user "Message Specification" as data,
// for tools that show messages. One row for each request; a request without a row has bytes and nothing else.
// Not here: anything that acts on a message. Sessions read the structures of Payloads.cs.
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Protocol;

/// <summary>The fields of one request.</summary>
/// <param name="Name">Its name, as in <see cref="RequestTable"/>.</param>
/// <param name="Request">The fields of the request.</param>
/// <param name="Reply">The fields of its reply; without a row of its own, a u64 that tells whether it was done.</param>
public sealed record PayloadRow(string Name, FieldLayout Request, FieldLayout Reply);

/// <summary>The fields of all requests.</summary>
public static class PayloadTable
{
    private static readonly (string Word, BitNames Names)[] s_words =
    [
        ("virtio", FeatureNames.All),
        ("protocol", (value, _) => NamesOf((ProtocolFeatures)value)),
        ("status", (value, _) => NamesOf((VirtioStatus)value)),
    ];

    private static readonly FieldLayout s_none = FieldLayout.Empty;
    private static readonly FieldLayout s_done = Of("status u64");
    private static readonly FieldLayout s_number = Of("value u64");
    private static readonly FieldLayout s_virtio = Of("features virtio");
    private static readonly FieldLayout s_protocol = Of("features protocol");
    private static readonly FieldLayout s_size = Of("index u32, num u32");
    private static readonly FieldLayout s_base = Of("index u32, base x32");
    private static readonly FieldLayout s_enable = Of("index u32, enable u32");
    private static readonly FieldLayout s_notifier = Of("index b8, no_fd b1, - b55");
    private static readonly FieldLayout s_region =
        Of("guest_address x64, size x64, user_address x64, mmap_offset x64");

    private static readonly FieldLayout s_slot =
        Of("- u64, guest_address x64, size x64, user_address x64, mmap_offset x64");

    private static readonly FieldLayout s_table = Of("count u32, - u32").FollowedBy("regions", s_region);
    private static readonly FieldLayout s_config = Of("offset u32, size u32, flags x32, bytes bytes");
    private static readonly FieldLayout s_part = Of("offset u32, size u32, generation u32, bytes bytes");
    private static readonly FieldLayout s_inflight =
        Of("mmap_size x64, mmap_offset x64, num_queues u16, queue_size u16, - u32");

    private static readonly FieldLayout s_iotlb = Of("iova x64, size x64, user_address x64, perm u8, type u8, - bytes6");
    private static readonly FieldLayout s_log = Of("size x64, offset x64");
    private static readonly FieldLayout s_object = Of("uuid uuid");
    private static readonly FieldLayout s_mapping =
        Of("shmid u8, - bytes7, fd_offset x64, shm_offset x64, len x64, flags x64");

    private static readonly FieldLayout s_crypto = Of("op_code u64, - bytes1056, session_id i64");

    private static readonly Dictionary<string, PayloadRow> s_rows = new PayloadRow[]
    {
        new("GET_FEATURES", s_none, s_virtio),
        new("SET_FEATURES", s_virtio, s_done),
        new("SET_OWNER", s_none, s_done),
        new("RESET_OWNER", s_none, s_done),
        new("SET_MEM_TABLE", s_table, s_done),
        new("SET_LOG_BASE", s_log, s_number),
        new("SET_LOG_FD", s_none, s_done),
        new("SET_VRING_NUM", s_size, s_done),
        new("SET_VRING_ADDR", Of("index u32, flags x32, descriptor x64, used x64, available x64, log x64"), s_done),
        new("SET_VRING_BASE", s_base, s_done),
        new("GET_VRING_BASE", s_size, s_base),
        new("SET_VRING_KICK", s_notifier, s_done),
        new("SET_VRING_CALL", s_notifier, s_done),
        new("SET_VRING_ERR", s_notifier, s_done),
        new("GET_PROTOCOL_FEATURES", s_none, s_protocol),
        new("SET_PROTOCOL_FEATURES", s_protocol, s_done),
        new("GET_QUEUE_NUM", s_none, s_number),
        new("SET_VRING_ENABLE", s_enable, s_done),
        new("SEND_RARP", Of("mac mac, - u16"), s_done),
        new("NET_SET_MTU", Of("mtu u64"), s_done),
        new("SET_BACKEND_REQ_FD", s_none, s_done),
        new("IOTLB_MSG", s_iotlb, s_done),
        new("SET_VRING_ENDIAN", Of("index u32, big_endian u32"), s_done),
        new("GET_CONFIG", s_config, s_config),
        new("SET_CONFIG", s_config, s_done),
        new("CREATE_CRYPTO_SESSION", s_crypto, s_crypto),
        new("CLOSE_CRYPTO_SESSION", Of("session_id u64"), s_done),
        new("POSTCOPY_ADVISE", s_none, s_none),
        new("POSTCOPY_LISTEN", s_none, s_done),
        new("POSTCOPY_END", s_none, s_done),
        new("GET_INFLIGHT_FD", s_inflight, s_inflight),
        new("SET_INFLIGHT_FD", s_inflight, s_done),
        new("GPU_SET_SOCKET", s_none, s_done),
        new("RESET_DEVICE", s_none, s_done),
        new("VRING_KICK", s_size, s_done),
        new("GET_MAX_MEM_SLOTS", s_none, s_number),
        new("ADD_MEM_REG", s_slot, s_done),
        new("REM_MEM_REG", s_slot, s_done),
        new("SET_STATUS", Of("status status"), s_done),
        new("GET_STATUS", s_none, Of("status status")),
        new("GET_SHARED_OBJECT", s_object, s_object),
        new("SET_DEVICE_STATE_FD", Of("direction u32, phase u32"), Of("error u8, no_fd b1, - b55")),
        new("CHECK_DEVICE_STATE", s_none, s_done),
        new("GET_SHMEM_CONFIG", s_none, Of("count u32, - u32").FollowedBy("regions", Of("size x64"))),
        new("GET_VRING_BASE_SKIP_DRAIN", s_size, s_base),
        new("GET_IDENTITY", s_none, Of("device_id u32, vendor_id u32, queues u32, config_size u32, epoch x64")),
        new("GET_QUEUE_LIMIT", s_size, s_size),
        new("GET_IOVA_RANGE", s_none, Of("first x64, last x64")),
        new("SUSPEND", s_none, s_done),
        new("RESUME", s_none, s_done),
        new("GET_QUEUE_STATE", s_size, Of("index u32, flags x32, base x32, size u32")),
        new("READ_CONFIG", s_part, s_part),
        new("WRITE_CONFIG", s_part, s_done),
        new("BACKEND_IOTLB_MSG", s_iotlb, s_done),
        new("BACKEND_CONFIG_CHANGE_MSG", s_none, s_done),
        new("BACKEND_VRING_HOST_NOTIFIER_MSG", Of("index b8, no_fd b1, - b55, size x64, offset x64"), s_done),
        new("BACKEND_VRING_CALL", s_size, s_done),
        new("BACKEND_VRING_ERR", s_size, s_done),
        new("BACKEND_SHARED_OBJECT_ADD", s_object, s_done),
        new("BACKEND_SHARED_OBJECT_REMOVE", s_object, s_done),
        new("BACKEND_SHARED_OBJECT_LOOKUP", s_object, s_done),
        new("BACKEND_SHMEM_MAP", s_mapping, s_done),
        new("BACKEND_SHMEM_UNMAP", s_mapping, s_done),
    }.ToDictionary(row => row.Name);

    /// <summary>All rows.</summary>
    public static IEnumerable<PayloadRow> Rows => s_rows.Values;

    /// <summary>The row of a request; null without one.</summary>
    /// <param name="name">Its name, as in <see cref="RequestTable"/>.</param>
    public static PayloadRow? Find(string name) => s_rows.GetValueOrDefault(name);

    /// <summary>Names of protocol features; a bit without a name is called by its number.</summary>
    public static IEnumerable<string> NamesOf(ProtocolFeatures features)
    {
        for (int bit = 0; bit < 64; bit++)
        {
            ulong one = 1UL << bit;
            if (((ulong)features & one) != 0)
            {
                yield return s_protocolNames.GetValueOrDefault((ProtocolFeatures)one, $"{bit}");
            }
        }
    }

    private static readonly Dictionary<ProtocolFeatures, string> s_protocolNames = new()
    {
        [ProtocolFeatures.MultiQueue] = "MQ",
        [ProtocolFeatures.LogShmFd] = "LOG_SHMFD",
        [ProtocolFeatures.Rarp] = "RARP",
        [ProtocolFeatures.ReplyAck] = "REPLY_ACK",
        [ProtocolFeatures.NetMtu] = "MTU",
        [ProtocolFeatures.BackendReq] = "BACKEND_REQ",
        [ProtocolFeatures.CrossEndian] = "CROSS_ENDIAN",
        [ProtocolFeatures.CryptoSession] = "CRYPTO_SESSION",
        [ProtocolFeatures.PageFault] = "PAGEFAULT",
        [ProtocolFeatures.Config] = "CONFIG",
        [ProtocolFeatures.BackendSendFd] = "BACKEND_SEND_FD",
        [ProtocolFeatures.HostNotifier] = "HOST_NOTIFIER",
        [ProtocolFeatures.InflightShmFd] = "INFLIGHT_SHMFD",
        [ProtocolFeatures.ResetDevice] = "RESET_DEVICE",
        [ProtocolFeatures.InbandNotifications] = "INBAND_NOTIFICATIONS",
        [ProtocolFeatures.ConfigureMemSlots] = "CONFIGURE_MEM_SLOTS",
        [ProtocolFeatures.Status] = "STATUS",
        [ProtocolFeatures.XenMmap] = "XEN_MMAP",
        [ProtocolFeatures.SharedObject] = "SHARED_OBJECT",
        [ProtocolFeatures.DeviceState] = "DEVICE_STATE",
        [ProtocolFeatures.GetVringBaseInflight] = "GET_VRING_BASE_INFLIGHT",
        [ProtocolFeatures.GpaAddresses] = "GPA_ADDRESSES",
        [ProtocolFeatures.Shmem] = "SHMEM",
        [ProtocolFeatures.GetVringBaseSkipDrain] = "GET_VRING_BASE_SKIP_DRAIN",
        [ProtocolFeatures.LifeCycle] = "LIFE_CYCLE",
    };

    private static IEnumerable<string> NamesOf(VirtioStatus status) => status == VirtioStatus.None ? []
        : $"{status}".Split(", ").Select(name => string.Concat(
            name.Select((c, i) => i > 0 && char.IsUpper(c) ? $"_{c}" : $"{char.ToUpperInvariant(c)}")));

    private static FieldLayout Of(string text) => FieldLayout.Parse(text, s_words);
}
