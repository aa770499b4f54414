// What may pass between a front-end and a driver: denied unless it is named here. Sizes, gates and descriptors come
// from the protocol's own table; this one adds what a driver without file descriptors can have, and how many
// descriptors each message must bring. Pinned to the requests that RequestTable knows.
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.Device;

/// <summary>What may pass.</summary>
public static class MessagePolicy
{
    /// <summary>
    /// Protocol features that a driver can have. Not among them: those by which a back-end makes descriptors
    /// (PAGEFAULT, BACKEND_SEND_FD, HOST_NOTIFIER, SHARED_OBJECT, SHMEM), DEVICE_STATE, whose stream is one, and
    /// XEN_MMAP, whose memory is none.
    /// </summary>
    public const ProtocolFeatures Passed =
        ProtocolFeatures.MultiQueue | ProtocolFeatures.LogShmFd | ProtocolFeatures.Rarp | ProtocolFeatures.ReplyAck
        | ProtocolFeatures.NetMtu | ProtocolFeatures.BackendReq | ProtocolFeatures.CrossEndian
        | ProtocolFeatures.CryptoSession | ProtocolFeatures.Config | ProtocolFeatures.InflightShmFd
        | ProtocolFeatures.ResetDevice | ProtocolFeatures.InbandNotifications | ProtocolFeatures.ConfigureMemSlots
        | ProtocolFeatures.Status | ProtocolFeatures.GetVringBaseInflight | ProtocolFeatures.GpaAddresses
        | ProtocolFeatures.GetVringBaseSkipDrain;

    private const ProtocolFeatures NeedRecord =
        ProtocolFeatures.InflightShmFd | ProtocolFeatures.GetVringBaseInflight | ProtocolFeatures.GetVringBaseSkipDrain;

    private static readonly HashSet<FrontendRequest> s_denied =
    [
        FrontendRequest.PostcopyAdvise, FrontendRequest.PostcopyListen, FrontendRequest.PostcopyEnd,
        FrontendRequest.GpuSetSocket, FrontendRequest.GetSharedObject, FrontendRequest.SetDeviceStateFd,
        FrontendRequest.CheckDeviceState, FrontendRequest.GetShmemConfig,
    ];

    private static readonly HashSet<BackendRequest> s_passedBack =
    [
        BackendRequest.IotlbMsg, BackendRequest.ConfigChangeMsg, BackendRequest.VringCall, BackendRequest.VringErr,
    ];

    /// <summary>Protocol features that pass for a driver with these private features.</summary>
    /// <param name="driverFeatures">The features.</param>
    /// <param name="hasLog">Whether the device has a window for the log.</param>
    public static ProtocolFeatures PassedFor(ulong driverFeatures, bool hasLog = true)
    {
        ProtocolFeatures passed = hasLog ? Passed : Passed & ~ProtocolFeatures.LogShmFd;
        if ((driverFeatures & VirtioVhostUserSpec.ExplicitOffsets) == 0)
        {
            // A region that is taken out of the middle would move all behind it.
            passed &= ~ProtocolFeatures.ConfigureMemSlots;
        }

        return (driverFeatures & VirtioVhostUserSpec.InflightRegion) == 0 ? passed & ~NeedRecord : passed;
    }

    /// <summary>Whether a front-end's request may pass at all.</summary>
    public static bool Passes(FrontendRequest request) =>
        RequestTable.Frontend((uint)request) is not null && !s_denied.Contains(request);

    /// <summary>Whether a back-end's request may pass at all: those without descriptors.</summary>
    public static bool Passes(BackendRequest request) => s_passedBack.Contains(request);

    /// <summary>Checks a front-end's message before anything is done with it.</summary>
    /// <param name="message">The message.</param>
    /// <param name="negotiated">Protocol features in force.</param>
    /// <param name="rings">Rings that there are.</param>
    /// <exception cref="ProtocolException">It may not pass.</exception>
    public static void Check(VhostUserMessage message, ProtocolFeatures negotiated, int rings)
    {
        ArgumentNullException.ThrowIfNull(message);
        FrontendRequest request = (FrontendRequest)message.Request;
        RequestRow? row = RequestTable.Frontend(message.Request);
        if (row is null || !Passes(request))
        {
            throw new ProtocolException(row?.Name ?? $"request {message.Request}", "request", "does not pass");
        }

        if ((message.Flags & MessageFlags.Reply) != 0)
        {
            throw new ProtocolException(row.Name, "flags", "a reply where a request is due") { IsFatal = true };
        }

        if (!row.Size.Allows((uint)message.Payload.Length)
            || message.Payload.Length > VirtioVhostUserSpec.MaxPayloadBytes)
        {
            throw new ProtocolException(row.Name, "size", $"{message.Payload.Length} bytes, the layout has {row.Size}");
        }

        if ((row.Gate & ~negotiated) != 0)
        {
            throw new ProtocolException(row.Name, "request", $"protocol feature {row.Gate} was not negotiated");
        }

        CheckRing(request, message, row.Name, rings);
        int due = DescriptorsDue(request, message);
        int most = request == FrontendRequest.RemMemReg ? 1 : due;
        if (message.Attachments.Count < due || message.Attachments.Count > most)
        {
            throw new ProtocolException(
                row.Name, "descriptors", $"{message.Attachments.Count} came where {due} are due");
        }
    }

    /// <summary>Descriptors that a request must bring.</summary>
    private static int DescriptorsDue(FrontendRequest request, VhostUserMessage message) => request switch
    {
        FrontendRequest.SetMemTable => TableEntries(message),
        FrontendRequest.AddMemReg or FrontendRequest.SetLogBase or FrontendRequest.SetLogFd
            or FrontendRequest.SetBackendReqFd or FrontendRequest.SetInflightFd => 1,
        FrontendRequest.SetVringKick or FrontendRequest.SetVringCall or FrontendRequest.SetVringErr =>
            message.Read<VringDescriptorPayload>().HasDescriptor ? 1 : 0,
        _ => 0,
    };

    private static int TableEntries(VhostUserMessage message)
    {
        uint count = message.Payload.Length >= MemoryTablePayload.Bytes ? message.Read<MemoryTablePayload>().Count : 0;
        return count is 0 or > MemoryTablePayload.MaxRegions
            || message.Payload.Length != MemoryTablePayload.Bytes + (count * MemoryRegionPayload.Bytes)
            ? throw new ProtocolException(
                "SET_MEM_TABLE", "count", $"{count} regions in {message.Payload.Length} bytes")
            : (int)count;
    }

    private static void CheckRing(FrontendRequest request, VhostUserMessage message, string name, int rings)
    {
        long index = request switch
        {
            FrontendRequest.SetVringKick or FrontendRequest.SetVringCall or FrontendRequest.SetVringErr =>
                message.Read<VringDescriptorPayload>().Index,
            FrontendRequest.SetVringNum or FrontendRequest.SetVringBase or FrontendRequest.GetVringBase
                or FrontendRequest.GetVringBaseSkipDrain or FrontendRequest.SetVringEnable
                or FrontendRequest.SetVringEndian or FrontendRequest.VringKick or FrontendRequest.SetVringAddr =>
                message.Read<uint>(),
            _ => 0,
        };
        if (index >= rings)
        {
            throw new ProtocolException(
                name, "index", $"{index}: the virtio-vhost-user device has {rings} rings: give it more");
        }
    }
}
