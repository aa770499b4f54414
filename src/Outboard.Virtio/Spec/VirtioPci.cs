// The PCI transport: ids, capabilities and the common configuration, virtio-v1.3 "4.1 Virtio Over PCI Bus".
namespace Outboard.Virtio.Spec;

/// <summary>Numbers of virtio over PCI.</summary>
public static class VirtioPci
{
    /// <summary>Vendor id of all virtio devices.</summary>
    public const ushort VendorId = 0x1af4;

    /// <summary>Device id, to which the device type is added.</summary>
    public const ushort FirstDeviceId = 0x1040;

    /// <summary>VIRTIO_MSI_NO_VECTOR.</summary>
    public const ushort NoVector = 0xffff;

    /// <summary>Capability type VIRTIO_PCI_CAP_COMMON_CFG.</summary>
    public const byte CommonConfig = 1;

    /// <summary>Capability type VIRTIO_PCI_CAP_NOTIFY_CFG.</summary>
    public const byte NotifyConfig = 2;

    /// <summary>Capability type VIRTIO_PCI_CAP_ISR_CFG.</summary>
    public const byte IsrConfig = 3;

    /// <summary>Capability type VIRTIO_PCI_CAP_DEVICE_CFG.</summary>
    public const byte DeviceConfig = 4;

    /// <summary>Capability type VIRTIO_PCI_CAP_PCI_CFG.</summary>
    public const byte PciConfig = 5;

    /// <summary>Capability type of auxiliary doorbells, in the drafts of virtio-vhost-user only.</summary>
    public const byte DoorbellConfig = 6;

    /// <summary>Capability type of the vectors of auxiliary notifications, in those drafts only.</summary>
    public const byte NotificationConfig = 7;

    /// <summary>Capability type VIRTIO_PCI_CAP_SHARED_MEMORY_CFG.</summary>
    public const byte SharedMemoryConfig = 8;

    /// <summary>ISR: a queue has used buffers.</summary>
    public const byte IsrQueue = 1;

    /// <summary>ISR: the configuration changed.</summary>
    public const byte IsrConfigChange = 2;

    /// <summary>ISR: an auxiliary notification, in the drafts of virtio-vhost-user only.</summary>
    public const byte IsrAuxiliary = 4;
}

/// <summary>Offsets in the common configuration, with sizes in bytes.</summary>
public static class VirtioPciRegister
{
    /// <summary>device_feature_select, 4.</summary>
    public const int DeviceFeatureSelect = 0;

    /// <summary>device_feature, 4, read-only.</summary>
    public const int DeviceFeature = 4;

    /// <summary>driver_feature_select, 4.</summary>
    public const int DriverFeatureSelect = 8;

    /// <summary>driver_feature, 4.</summary>
    public const int DriverFeature = 12;

    /// <summary>config_msix_vector, 2.</summary>
    public const int ConfigVector = 16;

    /// <summary>num_queues, 2, read-only.</summary>
    public const int QueueCount = 18;

    /// <summary>device_status, 1.</summary>
    public const int DeviceStatus = 20;

    /// <summary>config_generation, 1, read-only.</summary>
    public const int ConfigGeneration = 21;

    /// <summary>queue_select, 2.</summary>
    public const int QueueSelect = 22;

    /// <summary>queue_size, 2.</summary>
    public const int QueueSize = 24;

    /// <summary>queue_msix_vector, 2.</summary>
    public const int QueueVector = 26;

    /// <summary>queue_enable, 2.</summary>
    public const int QueueEnable = 28;

    /// <summary>queue_notify_off, 2, read-only.</summary>
    public const int QueueNotifyOffset = 30;

    /// <summary>queue_desc, 8.</summary>
    public const int QueueDescriptors = 32;

    /// <summary>queue_driver, 8.</summary>
    public const int QueueDriver = 40;

    /// <summary>queue_device, 8.</summary>
    public const int QueueDevice = 48;

    /// <summary>queue_notif_config_data, 2, read-only.</summary>
    public const int QueueNotifyData = 56;

    /// <summary>queue_reset, 2.</summary>
    public const int QueueReset = 58;

    /// <summary>Bytes, the two fields of the administration queue included.</summary>
    public const int Bytes = 64;
}
