// The protocol as a table: one row for each request of either direction. Policy (size, descriptors, feature gates) is
// checked from here before a request is carried out; the tracer, the coverage page and the tests read the same rows.
namespace Outboard.VhostUser.Protocol;

/// <summary>How a request is answered.</summary>
public enum ReplyKind
{
    /// <summary>Only when NEED_REPLY was set and REPLY_ACK negotiated: u64, 0 for success.</summary>
    Acknowledge,

    /// <summary>Always, by a u64.</summary>
    Value,

    /// <summary>Always, by a vring state.</summary>
    VringState,

    /// <summary>Always, by a payload of the request's own layout.</summary>
    SameLayout,

    /// <summary>Always, by an empty payload with a descriptor (or without, for failure).</summary>
    Descriptor,

    /// <summary>Always, by the shared memory configuration.</summary>
    ShmemConfig,

    /// <summary>Always, by a payload of a layout that no request has.</summary>
    OwnLayout,
}

/// <summary>Allowed payload sizes: <c>Fixed + Element * k</c> for k from Min to Max.</summary>
public readonly record struct PayloadSize(int Fixed, int Element = 0, int Min = 0, int Max = 0)
{
    /// <summary>Whether a payload may have this size.</summary>
    public bool Allows(uint sizeBytes)
    {
        if (Element == 0)
        {
            return sizeBytes == Fixed;
        }

        long rest = sizeBytes - (long)Fixed;
        return rest >= 0 && rest % Element == 0 && rest / Element >= Min && rest / Element <= Max;
    }

    /// <inheritdoc/>
    public override string ToString() => Element == 0 ? $"{Fixed}" : $"{Fixed} + {Element} * ({Min}..{Max})";
}

/// <summary>One request.</summary>
/// <param name="Id">Its number.</param>
/// <param name="Name">Its name as the specification spells it.</param>
/// <param name="Size">Allowed payload sizes.</param>
/// <param name="MaxDescriptors">Most descriptors that may come with it.</param>
/// <param name="Reply">How it is answered.</param>
/// <param name="Gate">Protocol features that must be negotiated.</param>
public sealed record RequestRow(
    uint Id, string Name, PayloadSize Size, int MaxDescriptors, ReplyKind Reply, ProtocolFeatures Gate)
{
    /// <summary>Whether the request has a reply of its own, whatever NEED_REPLY says.</summary>
    public bool HasOwnReply => Reply != ReplyKind.Acknowledge;
}

/// <summary>All requests.</summary>
public static class RequestTable
{
    private static readonly PayloadSize s_none = new(0);
    private static readonly PayloadSize s_u64 = new(8);
    private static readonly PayloadSize s_vring = new(8);
    private static readonly PayloadSize s_config = new(ConfigPayload.Bytes, 1, 0, MessageHeader.MaxPayloadBytes - ConfigPayload.Bytes);

    private static readonly RequestRow?[] s_frontend = Index(
    [
        Row(FrontendRequest.GetFeatures, "GET_FEATURES", s_none, 0, ReplyKind.Value),
        Row(FrontendRequest.SetFeatures, "SET_FEATURES", s_u64, 0),
        Row(FrontendRequest.SetOwner, "SET_OWNER", s_none, 0),
        Row(FrontendRequest.ResetOwner, "RESET_OWNER", s_none, 0),
        Row(FrontendRequest.SetMemTable, "SET_MEM_TABLE", new(MemoryTablePayload.Bytes, MemoryRegionPayload.Bytes, 0, 8), 8),
        Row(FrontendRequest.SetLogBase, "SET_LOG_BASE", new(16), 1, ReplyKind.Value, ProtocolFeatures.LogShmFd),
        Row(FrontendRequest.SetLogFd, "SET_LOG_FD", s_none, 1),
        Row(FrontendRequest.SetVringNum, "SET_VRING_NUM", s_vring, 0),
        Row(FrontendRequest.SetVringAddr, "SET_VRING_ADDR", new(40), 0),
        Row(FrontendRequest.SetVringBase, "SET_VRING_BASE", s_vring, 0),
        Row(FrontendRequest.GetVringBase, "GET_VRING_BASE", s_vring, 0, ReplyKind.VringState),
        Row(FrontendRequest.SetVringKick, "SET_VRING_KICK", s_u64, 1),
        Row(FrontendRequest.SetVringCall, "SET_VRING_CALL", s_u64, 1),
        Row(FrontendRequest.SetVringErr, "SET_VRING_ERR", s_u64, 1),
        Row(FrontendRequest.GetProtocolFeatures, "GET_PROTOCOL_FEATURES", s_none, 0, ReplyKind.Value),
        Row(FrontendRequest.SetProtocolFeatures, "SET_PROTOCOL_FEATURES", s_u64, 0),
        Row(FrontendRequest.GetQueueNum, "GET_QUEUE_NUM", s_none, 0, ReplyKind.Value, ProtocolFeatures.MultiQueue),
        Row(FrontendRequest.SetVringEnable, "SET_VRING_ENABLE", s_vring, 0),
        Row(FrontendRequest.SendRarp, "SEND_RARP", s_u64, 0, gate: ProtocolFeatures.Rarp),
        Row(FrontendRequest.NetSetMtu, "NET_SET_MTU", s_u64, 0, gate: ProtocolFeatures.NetMtu),
        Row(FrontendRequest.SetBackendReqFd, "SET_BACKEND_REQ_FD", s_none, 1, gate: ProtocolFeatures.BackendReq),
        Row(FrontendRequest.IotlbMsg, "IOTLB_MSG", new(IotlbPayload.Bytes), 0, ReplyKind.Value),
        Row(FrontendRequest.SetVringEndian, "SET_VRING_ENDIAN", s_vring, 0, gate: ProtocolFeatures.CrossEndian),
        Row(FrontendRequest.GetConfig, "GET_CONFIG", s_config, 0, ReplyKind.SameLayout, ProtocolFeatures.Config),
        Row(FrontendRequest.SetConfig, "SET_CONFIG", s_config, 0, gate: ProtocolFeatures.Config),
        Row(FrontendRequest.CreateCryptoSession, "CREATE_CRYPTO_SESSION", new(1072), 0, ReplyKind.SameLayout, ProtocolFeatures.CryptoSession),
        Row(FrontendRequest.CloseCryptoSession, "CLOSE_CRYPTO_SESSION", s_u64, 0, gate: ProtocolFeatures.CryptoSession),
        Row(FrontendRequest.PostcopyAdvise, "POSTCOPY_ADVISE", s_none, 0, ReplyKind.Descriptor, ProtocolFeatures.PageFault),
        Row(FrontendRequest.PostcopyListen, "POSTCOPY_LISTEN", s_none, 0, ReplyKind.Value, ProtocolFeatures.PageFault),
        Row(FrontendRequest.PostcopyEnd, "POSTCOPY_END", s_none, 0, ReplyKind.Value, ProtocolFeatures.PageFault),
        Row(FrontendRequest.GetInflightFd, "GET_INFLIGHT_FD", new(InflightPayload.Bytes), 0, ReplyKind.SameLayout, ProtocolFeatures.InflightShmFd),
        Row(FrontendRequest.SetInflightFd, "SET_INFLIGHT_FD", new(InflightPayload.Bytes), 1, gate: ProtocolFeatures.InflightShmFd),
        Row(FrontendRequest.GpuSetSocket, "GPU_SET_SOCKET", s_none, 1),
        Row(FrontendRequest.ResetDevice, "RESET_DEVICE", s_none, 0, gate: ProtocolFeatures.ResetDevice),
        Row(FrontendRequest.VringKick, "VRING_KICK", s_vring, 0, gate: ProtocolFeatures.InbandNotifications),
        Row(FrontendRequest.GetMaxMemSlots, "GET_MAX_MEM_SLOTS", s_none, 0, ReplyKind.Value, ProtocolFeatures.ConfigureMemSlots),
        Row(FrontendRequest.AddMemReg, "ADD_MEM_REG", new(8, MemoryRegionPayload.Bytes, 0, 1), 1, gate: ProtocolFeatures.ConfigureMemSlots),
        Row(FrontendRequest.RemMemReg, "REM_MEM_REG", new(40), 1, gate: ProtocolFeatures.ConfigureMemSlots),
        Row(FrontendRequest.SetStatus, "SET_STATUS", s_u64, 0, gate: ProtocolFeatures.Status),
        Row(FrontendRequest.GetStatus, "GET_STATUS", s_none, 0, ReplyKind.Value, ProtocolFeatures.Status),
        Row(FrontendRequest.GetSharedObject, "GET_SHARED_OBJECT", new(0, 16, 0, 1), 0, ReplyKind.Descriptor, ProtocolFeatures.SharedObject),
        Row(FrontendRequest.SetDeviceStateFd, "SET_DEVICE_STATE_FD", new(8), 1, ReplyKind.Value, ProtocolFeatures.DeviceState),
        Row(FrontendRequest.CheckDeviceState, "CHECK_DEVICE_STATE", s_none, 0, ReplyKind.Value, ProtocolFeatures.DeviceState),
        Row(FrontendRequest.GetShmemConfig, "GET_SHMEM_CONFIG", s_none, 0, ReplyKind.ShmemConfig, ProtocolFeatures.Shmem),
        Row(FrontendRequest.GetVringBaseSkipDrain, "GET_VRING_BASE_SKIP_DRAIN", s_vring, 0, ReplyKind.VringState, ProtocolFeatures.GetVringBaseSkipDrain),
        Row(FrontendRequest.GetIdentity, "GET_IDENTITY", s_none, 0, ReplyKind.OwnLayout, ProtocolFeatures.LifeCycle),
        Row(FrontendRequest.GetQueueLimit, "GET_QUEUE_LIMIT", s_vring, 0, ReplyKind.VringState, ProtocolFeatures.LifeCycle),
        Row(FrontendRequest.GetIovaRange, "GET_IOVA_RANGE", s_none, 0, ReplyKind.OwnLayout, ProtocolFeatures.LifeCycle),
        Row(FrontendRequest.Suspend, "SUSPEND", s_none, 0, gate: ProtocolFeatures.LifeCycle),
        Row(FrontendRequest.Resume, "RESUME", s_none, 0, gate: ProtocolFeatures.LifeCycle),
        Row(FrontendRequest.GetQueueState, "GET_QUEUE_STATE", s_vring, 0, ReplyKind.OwnLayout, ProtocolFeatures.LifeCycle),
        Row(FrontendRequest.ReadConfig, "READ_CONFIG", s_config, 0, ReplyKind.SameLayout, ProtocolFeatures.LifeCycle),
        Row(FrontendRequest.WriteConfig, "WRITE_CONFIG", s_config, 0, gate: ProtocolFeatures.LifeCycle),
    ]);

    private static readonly RequestRow?[] s_backend = Index(
    [
        Row(BackendRequest.IotlbMsg, "BACKEND_IOTLB_MSG", new(IotlbPayload.Bytes), 0, gate: ProtocolFeatures.BackendReq),
        Row(BackendRequest.ConfigChangeMsg, "BACKEND_CONFIG_CHANGE_MSG", s_none, 0, gate: ProtocolFeatures.Config),
        Row(BackendRequest.VringHostNotifierMsg, "BACKEND_VRING_HOST_NOTIFIER_MSG", new(VringAreaPayload.Bytes), 1, gate: ProtocolFeatures.HostNotifier),
        Row(BackendRequest.VringCall, "BACKEND_VRING_CALL", s_vring, 0, gate: ProtocolFeatures.InbandNotifications),
        Row(BackendRequest.VringErr, "BACKEND_VRING_ERR", s_vring, 0, gate: ProtocolFeatures.InbandNotifications),
        Row(BackendRequest.SharedObjectAdd, "BACKEND_SHARED_OBJECT_ADD", new(16), 0, gate: ProtocolFeatures.SharedObject),
        Row(BackendRequest.SharedObjectRemove, "BACKEND_SHARED_OBJECT_REMOVE", new(16), 0, gate: ProtocolFeatures.SharedObject),
        Row(BackendRequest.SharedObjectLookup, "BACKEND_SHARED_OBJECT_LOOKUP", new(16), 0, ReplyKind.Value, ProtocolFeatures.SharedObject),
        Row(BackendRequest.ShmemMap, "BACKEND_SHMEM_MAP", new(ShmemMapPayload.Bytes), 1, gate: ProtocolFeatures.Shmem | ProtocolFeatures.BackendSendFd),
        Row(BackendRequest.ShmemUnmap, "BACKEND_SHMEM_UNMAP", new(ShmemMapPayload.Bytes), 0, gate: ProtocolFeatures.Shmem),
    ]);

    /// <summary>All requests of front-ends, by number.</summary>
    public static IEnumerable<RequestRow> FrontendRows => s_frontend.OfType<RequestRow>();

    /// <summary>All requests of back-ends, by number.</summary>
    public static IEnumerable<RequestRow> BackendRows => s_backend.OfType<RequestRow>();

    /// <summary>The row of a front-end's request; null when the number is unknown.</summary>
    public static RequestRow? Frontend(uint id) => id < s_frontend.Length ? s_frontend[id] : null;

    /// <summary>The row of a front-end's request.</summary>
    public static RequestRow Frontend(FrontendRequest request) => s_frontend[(uint)request]!;

    /// <summary>The row of a back-end's request; null when the number is unknown.</summary>
    public static RequestRow? Backend(uint id) => id < s_backend.Length ? s_backend[id] : null;

    private static RequestRow Row(
        FrontendRequest request, string name, PayloadSize size, int descriptors, ReplyKind reply = ReplyKind.Acknowledge,
        ProtocolFeatures gate = ProtocolFeatures.None) =>
        new((uint)request, name, size, descriptors, reply, gate);

    private static RequestRow Row(
        BackendRequest request, string name, PayloadSize size, int descriptors, ReplyKind reply = ReplyKind.Acknowledge,
        ProtocolFeatures gate = ProtocolFeatures.None) =>
        new((uint)request, name, size, descriptors, reply, gate);

    private static RequestRow?[] Index(RequestRow[] rows)
    {
        RequestRow?[] index = new RequestRow?[rows.Max(row => row.Id) + 1];
        foreach (RequestRow row in rows)
        {
            index[row.Id] = row;
        }

        return index;
    }
}
