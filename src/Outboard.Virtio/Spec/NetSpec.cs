// Constants and layouts of the network device, virtio-v1.3 "5.1 Network Device". All fields little-endian.
using System.Runtime.InteropServices;

namespace Outboard.Virtio.Spec;

/// <summary>Feature bits of the network device, virtio-v1.3 "5.1.3 Feature bits".</summary>
public static class NetFeatures
{
    /// <summary>VIRTIO_NET_F_CSUM: the device completes checksums of packets sent.</summary>
    public const ulong Checksum = 1UL << 0;

    /// <summary>VIRTIO_NET_F_GUEST_CSUM: the driver takes packets with partial checksums.</summary>
    public const ulong GuestChecksum = 1UL << 1;

    /// <summary>VIRTIO_NET_F_CTRL_GUEST_OFFLOADS.</summary>
    public const ulong ControlGuestOffloads = 1UL << 2;

    /// <summary>VIRTIO_NET_F_MTU.</summary>
    public const ulong Mtu = 1UL << 3;

    /// <summary>VIRTIO_NET_F_MAC.</summary>
    public const ulong Mac = 1UL << 5;

    /// <summary>VIRTIO_NET_F_GUEST_TSO4.</summary>
    public const ulong GuestTso4 = 1UL << 7;

    /// <summary>VIRTIO_NET_F_GUEST_TSO6.</summary>
    public const ulong GuestTso6 = 1UL << 8;

    /// <summary>VIRTIO_NET_F_GUEST_ECN.</summary>
    public const ulong GuestEcn = 1UL << 9;

    /// <summary>VIRTIO_NET_F_GUEST_UFO.</summary>
    public const ulong GuestUfo = 1UL << 10;

    /// <summary>VIRTIO_NET_F_HOST_TSO4.</summary>
    public const ulong HostTso4 = 1UL << 11;

    /// <summary>VIRTIO_NET_F_HOST_TSO6.</summary>
    public const ulong HostTso6 = 1UL << 12;

    /// <summary>VIRTIO_NET_F_HOST_ECN.</summary>
    public const ulong HostEcn = 1UL << 13;

    /// <summary>VIRTIO_NET_F_HOST_UFO.</summary>
    public const ulong HostUfo = 1UL << 14;

    /// <summary>VIRTIO_NET_F_MRG_RXBUF: a received packet may fill several buffers.</summary>
    public const ulong MergeableBuffers = 1UL << 15;

    /// <summary>VIRTIO_NET_F_STATUS.</summary>
    public const ulong Status = 1UL << 16;

    /// <summary>VIRTIO_NET_F_CTRL_VQ.</summary>
    public const ulong ControlQueue = 1UL << 17;

    /// <summary>VIRTIO_NET_F_CTRL_RX.</summary>
    public const ulong ControlReceiveMode = 1UL << 18;

    /// <summary>VIRTIO_NET_F_GUEST_ANNOUNCE.</summary>
    public const ulong GuestAnnounce = 1UL << 21;

    /// <summary>VIRTIO_NET_F_MQ.</summary>
    public const ulong MultiQueue = 1UL << 22;

    /// <summary>VIRTIO_NET_F_CTRL_MAC_ADDR.</summary>
    public const ulong ControlMacAddress = 1UL << 23;

    /// <summary>VIRTIO_NET_F_GUEST_USO4.</summary>
    public const ulong GuestUso4 = 1UL << 54;

    /// <summary>VIRTIO_NET_F_GUEST_USO6.</summary>
    public const ulong GuestUso6 = 1UL << 55;

    /// <summary>VIRTIO_NET_F_HOST_USO.</summary>
    public const ulong HostUso = 1UL << 56;
}

/// <summary>Flags of a packet's header.</summary>
[Flags]
public enum NetHeaderFlags : byte
{
    /// <summary>None.</summary>
    None = 0,

    /// <summary>VIRTIO_NET_HDR_F_NEEDS_CSUM: the checksum is partial.</summary>
    NeedsChecksum = 1,

    /// <summary>VIRTIO_NET_HDR_F_DATA_VALID: the checksum was checked.</summary>
    DataValid = 2,
}

/// <summary>How a packet is to be cut into segments, or was joined from them.</summary>
public enum NetSegmentation : byte
{
    /// <summary>VIRTIO_NET_HDR_GSO_NONE.</summary>
    None = 0,

    /// <summary>VIRTIO_NET_HDR_GSO_TCPV4.</summary>
    TcpV4 = 1,

    /// <summary>VIRTIO_NET_HDR_GSO_UDP: IP fragmentation.</summary>
    Udp = 3,

    /// <summary>VIRTIO_NET_HDR_GSO_TCPV6.</summary>
    TcpV6 = 4,

    /// <summary>VIRTIO_NET_HDR_GSO_UDP_L4: datagrams of the segment's size.</summary>
    UdpL4 = 5,

    /// <summary>VIRTIO_NET_HDR_GSO_ECN, beside the others: the TCP packet has ECN set.</summary>
    Ecn = 0x80,
}

/// <summary>
/// What precedes every packet, virtio-v1.3 "5.1.6 Device Operation": 0 flags (u8), 1 gso_type (u8), 2 hdr_len (u16),
/// 4 gso_size (u16), 6 csum_start (u16), 8 csum_offset (u16), 10 num_buffers (u16); 12 bytes. Without VERSION_1 and
/// MRG_RXBUF num_buffers is missing.
/// </summary>
[StructLayout(LayoutKind.Sequential, Pack = 2)]
public struct NetHeader
{
    /// <summary>Bytes of the header.</summary>
    public const int Bytes = 12;

    /// <summary>Bytes of the header of a legacy driver without mergeable buffers.</summary>
    public const int LegacyBytes = 10;

    /// <summary>flags.</summary>
    public NetHeaderFlags Flags;

    /// <summary>gso_type.</summary>
    public NetSegmentation Segmentation;

    /// <summary>hdr_len: a hint.</summary>
    public ushort HeaderLength;

    /// <summary>gso_size: payload of each segment.</summary>
    public ushort SegmentSize;

    /// <summary>csum_start: where checksumming begins.</summary>
    public ushort ChecksumStart;

    /// <summary>csum_offset: where the checksum goes, from <see cref="ChecksumStart"/>.</summary>
    public ushort ChecksumOffset;

    /// <summary>num_buffers: buffers that a received packet fills; 0 on the way out.</summary>
    public ushort BufferCount;
}

/// <summary>The configuration space, virtio-v1.3 "5.1.4 Device configuration layout".</summary>
public static class NetConfig
{
    /// <summary>Bytes of the space, up to supported_tunnel_types.</summary>
    public const int Bytes = 28;

    /// <summary>VIRTIO_NET_S_LINK_UP.</summary>
    public const ulong LinkUp = 1;

    /// <summary>VIRTIO_NET_S_ANNOUNCE: the driver is to announce itself to the network.</summary>
    public const ulong Announce = 2;

    /// <summary>mac.</summary>
    public static readonly ConfigField Mac = new(0, 6, IsWritable: true);

    /// <summary>status.</summary>
    public static readonly ConfigField Status = new(6, 2);

    /// <summary>max_virtqueue_pairs.</summary>
    public static readonly ConfigField MaxQueuePairs = new(8, 2);

    /// <summary>mtu.</summary>
    public static readonly ConfigField Mtu = new(10, 2);
}

/// <summary>Classes of the control queue's commands, virtio-v1.3 "5.1.6.5 Control Virtqueue".</summary>
public enum NetControlClass : byte
{
    /// <summary>VIRTIO_NET_CTRL_RX: what is received; commands 0 to 5 turn a mode on or off.</summary>
    ReceiveMode = 0,

    /// <summary>VIRTIO_NET_CTRL_MAC: 0 sets the filter's tables, 1 the address.</summary>
    Mac = 1,

    /// <summary>VIRTIO_NET_CTRL_ANNOUNCE: 0 acknowledges.</summary>
    Announce = 3,

    /// <summary>VIRTIO_NET_CTRL_MQ: 0 sets the number of pairs in use.</summary>
    MultiQueue = 4,

    /// <summary>VIRTIO_NET_CTRL_GUEST_OFFLOADS: 0 sets them.</summary>
    GuestOffloads = 5,
}

/// <summary>What precedes a command's data: 0 class (u8), 1 command (u8); the answer is one byte.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct NetControlHeader
{
    /// <summary>VIRTIO_NET_OK.</summary>
    public const byte Ok = 0;

    /// <summary>VIRTIO_NET_ERR.</summary>
    public const byte Error = 1;

    /// <summary>class.</summary>
    public NetControlClass Class;

    /// <summary>command.</summary>
    public byte Command;
}
