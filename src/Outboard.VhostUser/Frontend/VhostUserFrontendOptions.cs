// How a front-end talks to a back-end.
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Frontend;

/// <summary>How a front-end talks to a back-end.</summary>
public sealed record VhostUserFrontendOptions
{
    /// <summary>Longest wait for a reply; a back-end that takes longer counts as gone.</summary>
    public TimeSpan ReplyTimeout { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>Protocol features to accept, of those offered.</summary>
    public ProtocolFeatures ProtocolFeatures { get; init; } =
        ProtocolFeatures.MultiQueue | ProtocolFeatures.ReplyAck | ProtocolFeatures.BackendReq | ProtocolFeatures.Config
        | ProtocolFeatures.ResetDevice | ProtocolFeatures.ConfigureMemSlots | ProtocolFeatures.Status
        | ProtocolFeatures.InflightShmFd | ProtocolFeatures.GetVringBaseInflight
        | ProtocolFeatures.GetVringBaseSkipDrain | ProtocolFeatures.LogShmFd | ProtocolFeatures.Rarp
        | ProtocolFeatures.NetMtu | ProtocolFeatures.DeviceState | ProtocolFeatures.CryptoSession
        | ProtocolFeatures.SharedObject | ProtocolFeatures.PageFault | ProtocolFeatures.GpaAddresses
        | ProtocolFeatures.BackendSendFd | ProtocolFeatures.HostNotifier | ProtocolFeatures.Shmem;

    /// <summary>
    /// Objects that the devices of a machine share: the same table for all of them. Null gives this one its own.
    /// </summary>
    public SharedObjectTable? SharedObjects { get; init; }

    /// <summary>
    /// Whether a plain GET_VRING_BASE may leave requests in flight: a back-end that has GET_VRING_BASE_INFLIGHT, but
    /// not the message that asks for it, then does so at every stop.
    /// </summary>
    public bool AcceptsSuspendedStops { get; init; }

    /// <summary>Virtio features to accept, of those offered; packed rings only when they are asked for.</summary>
    public ulong Features { get; init; } =
        ~VirtioFeatures.Reserved | VirtioFeatures.Version1 | VirtioFeatures.IndirectDescriptors
        | VirtioFeatures.EventIndex;

    /// <summary>Whether rings are packed, when the back-end has them.</summary>
    public bool UsePacked { get; init; }

    /// <summary>Whether chains are returned in order (IN_ORDER), when the back-end has that.</summary>
    public bool UseInOrder { get; init; }

    /// <summary>Whether chains use indirect tables, when the back-end has them.</summary>
    public bool UseIndirect { get; init; }

    /// <summary>The IOMMU behind which the device is put, when the back-end can be behind one.</summary>
    public FrontendIommu? Iommu { get; init; }
}
