// Feature bits that belong to the ring or the transport, virtio-v1.3 "6 Reserved Feature Bits". Device bits (0 to 23
// and 50 to 127) stand with each device in this folder.
namespace Outboard.Virtio.Spec;

/// <summary>Feature bits that are never a device's business.</summary>
public static class VirtioFeatures
{
    /// <summary>VIRTIO_F_NOTIFY_ON_EMPTY (legacy).</summary>
    public const ulong NotifyOnEmpty = 1UL << 24;

    /// <summary>VHOST_F_LOG_ALL: the front-end wants writes logged (vhost-user only).</summary>
    public const ulong LogAll = 1UL << 26;

    /// <summary>VIRTIO_F_ANY_LAYOUT (legacy).</summary>
    public const ulong AnyLayout = 1UL << 27;

    /// <summary>VIRTIO_F_INDIRECT_DESC.</summary>
    public const ulong IndirectDescriptors = 1UL << 28;

    /// <summary>VIRTIO_F_EVENT_IDX.</summary>
    public const ulong EventIndex = 1UL << 29;

    /// <summary>VHOST_USER_F_PROTOCOL_FEATURES (vhost-user only).</summary>
    public const ulong ProtocolFeatures = 1UL << 30;

    /// <summary>VIRTIO_F_VERSION_1.</summary>
    public const ulong Version1 = 1UL << 32;

    /// <summary>VIRTIO_F_ACCESS_PLATFORM.</summary>
    public const ulong AccessPlatform = 1UL << 33;

    /// <summary>VIRTIO_F_RING_PACKED.</summary>
    public const ulong RingPacked = 1UL << 34;

    /// <summary>VIRTIO_F_IN_ORDER.</summary>
    public const ulong InOrder = 1UL << 35;

    /// <summary>VIRTIO_F_ORDER_PLATFORM.</summary>
    public const ulong OrderPlatform = 1UL << 36;

    /// <summary>VIRTIO_F_NOTIFICATION_DATA.</summary>
    public const ulong NotificationData = 1UL << 38;

    /// <summary>VIRTIO_F_RING_RESET.</summary>
    public const ulong RingReset = 1UL << 40;

    /// <summary>Bits 24 to 41: ring and transport. A device must not claim one of them.</summary>
    public const ulong Reserved = ((1UL << 42) - 1) & ~((1UL << 24) - 1);

    /// <summary>
    /// What this library's rings implement as well, and offer only on request: IN_ORDER. A device that completes
    /// requests in another order than they came pays for it: one slow request holds back all that came after it.
    /// </summary>
    public const ulong OfferedOnRequest = InOrder;

    /// <summary>What this library's rings implement and therefore offer for every device.</summary>
    public const ulong OfferedByRings = Version1 | IndirectDescriptors | EventIndex | RingPacked;
}

/// <summary>The device status field, virtio-v1.3 "2.1 Device Status Field".</summary>
[Flags]
public enum VirtioStatus : byte
{
    /// <summary>Reset.</summary>
    None = 0,

    /// <summary>ACKNOWLEDGE.</summary>
    Acknowledge = 1,

    /// <summary>DRIVER.</summary>
    Driver = 2,

    /// <summary>DRIVER_OK.</summary>
    DriverOk = 4,

    /// <summary>FEATURES_OK.</summary>
    FeaturesOk = 8,

    /// <summary>DEVICE_NEEDS_RESET.</summary>
    DeviceNeedsReset = 64,

    /// <summary>FAILED.</summary>
    Failed = 128,
}
