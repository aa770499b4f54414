// Constants and layouts of the console device, virtio-v1.3 "5.3 Console Device". All fields little-endian.
//   configuration   0 cols u16 | 2 rows u16 | 4 max_nr_ports u32 | 8 emerg_wr u32
//   control message 0 id u32 (a port) | 4 event u16 | 6 value u16; a port's name follows VIRTIO_CONSOLE_PORT_NAME
//   queues          0, 1 receive and transmit of port 0 | 2, 3 control, to the driver and to the device
//                   4 + 2n, 5 + 2n those of port n + 1
namespace Outboard.Virtio.Spec;

/// <summary>Feature bits of the console device.</summary>
public static class ConsoleFeatures
{
    /// <summary>VIRTIO_CONSOLE_F_SIZE: columns and rows are in the configuration space.</summary>
    public const ulong Size = 1UL << 0;

    /// <summary>VIRTIO_CONSOLE_F_MULTIPORT: several ports, and control queues.</summary>
    public const ulong Multiport = 1UL << 1;

    /// <summary>VIRTIO_CONSOLE_F_EMERG_WRITE: a driver writes single characters to the configuration space.</summary>
    public const ulong EmergencyWrite = 1UL << 2;
}

/// <summary>Fields of the configuration space.</summary>
public static class ConsoleConfig
{
    /// <summary>Bytes.</summary>
    public const int Bytes = 12;

    /// <summary>cols.</summary>
    public static ConfigField Columns { get; } = new(0, 2);

    /// <summary>rows.</summary>
    public static ConfigField Rows { get; } = new(2, 2);

    /// <summary>max_nr_ports.</summary>
    public static ConfigField PortCount { get; } = new(4, 4);

    /// <summary>emerg_wr.</summary>
    public static ConfigField EmergencyWrite { get; } = new(8, 4, IsWritable: true);
}

/// <summary>Events of control messages.</summary>
public enum ConsoleEvent : ushort
{
    /// <summary>VIRTIO_CONSOLE_DEVICE_READY, of the driver.</summary>
    DeviceReady = 0,

    /// <summary>VIRTIO_CONSOLE_DEVICE_ADD: there is a port.</summary>
    PortAdd = 1,

    /// <summary>VIRTIO_CONSOLE_DEVICE_REMOVE.</summary>
    PortRemove = 2,

    /// <summary>VIRTIO_CONSOLE_PORT_READY, of the driver.</summary>
    PortReady = 3,

    /// <summary>VIRTIO_CONSOLE_CONSOLE_PORT: the port is a console.</summary>
    ConsolePort = 4,

    /// <summary>VIRTIO_CONSOLE_RESIZE.</summary>
    Resize = 5,

    /// <summary>VIRTIO_CONSOLE_PORT_OPEN: the other side uses the port, or does not any more.</summary>
    PortOpen = 6,

    /// <summary>VIRTIO_CONSOLE_PORT_NAME.</summary>
    PortName = 7,
}

/// <summary>Queues and messages.</summary>
public static class ConsoleSpec
{
    /// <summary>Bytes of a control message, without a name.</summary>
    public const int MessageBytes = 8;

    /// <summary>The control queue to the driver.</summary>
    public const int ControlToDriver = 2;

    /// <summary>The control queue to the device.</summary>
    public const int ControlToDevice = 3;

    /// <summary>A port's receive queue, by which the driver gets input; the transmit queue is the next one.</summary>
    public static int ReceiveQueue(int port) => port == 0 ? 0 : 2 + (2 * port);

    /// <summary>Queues of a device.</summary>
    public static int QueueCount(int ports, bool isMultiport) => isMultiport ? 2 + (2 * ports) : 2;
}
