// What a device may leave to its back-end, and the check of a driver's header against what was negotiated.
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Net.Backends;

/// <summary>Offload features and the rules of a packet's header.</summary>
public static class NetOffload
{
    /// <summary>The features that are a back-end's to give.</summary>
    public const ulong All = Sending | Receiving;

    /// <summary>
    /// Longest packet: a segmented one of 64 KiB (the length field of IP) behind an Ethernet header with two VLAN tags.
    /// </summary>
    public const int MaxFrameBytes = 65535 + 14 + 8;

    /// <summary>Shortest packet: an Ethernet header.</summary>
    public const int MinFrameBytes = 14;

    private const ulong Sending = NetFeatures.Checksum | NetFeatures.HostTso4 | NetFeatures.HostTso6
        | NetFeatures.HostEcn | NetFeatures.HostUfo | NetFeatures.HostUso;

    private const ulong Receiving = NetFeatures.GuestChecksum | NetFeatures.GuestTso4 | NetFeatures.GuestTso6
        | NetFeatures.GuestEcn | NetFeatures.GuestUfo | NetFeatures.GuestUso4 | NetFeatures.GuestUso6;

    /// <summary>
    /// Checks a header that a driver wrote, virtio-v1.3 "5.1.6.2 Packet Transmission", and clears the rest.
    /// </summary>
    /// <returns>False when it asks for what was not negotiated, or points outside the packet.</returns>
    internal static bool IsSendable(ref NetHeader header, ulong features, int frameBytes)
    {
        header.Flags &= NetHeaderFlags.NeedsChecksum;
        header.BufferCount = 0;
        bool partial = header.Flags != 0;
        if (partial && ((features & NetFeatures.Checksum) == 0
            || header.ChecksumStart + header.ChecksumOffset + 2 > frameBytes))
        {
            return false;
        }

        ulong needed = (header.Segmentation & ~NetSegmentation.Ecn) switch
        {
            NetSegmentation.None => 0,
            NetSegmentation.TcpV4 => NetFeatures.HostTso4,
            NetSegmentation.TcpV6 => NetFeatures.HostTso6,
            NetSegmentation.Udp => NetFeatures.HostUfo,
            NetSegmentation.UdpL4 => NetFeatures.HostUso,
            _ => 1UL << 63,
        };
        needed |= (header.Segmentation & NetSegmentation.Ecn) != 0 ? NetFeatures.HostEcn : 0;
        return (needed & ~features) == 0 && (header.Segmentation == 0 || (partial && header.SegmentSize != 0));
    }

    /// <summary>Clears what the driver did not accept from a header that a back-end wrote.</summary>
    internal static void Restrict(ref NetHeader header, ulong features)
    {
        if ((features & NetFeatures.GuestChecksum) == 0)
        {
            header.Flags = 0;
        }
    }
}
