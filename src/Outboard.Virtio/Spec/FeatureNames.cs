// Feature bits by their names, for people: virtio-v1.3 "6 Reserved Feature Bits" and each device's own section. Names
// stand without the prefixes VIRTIO_F_ and VIRTIO_NET_F_ and so on. A name behind "~" is a legacy device's, which no
// back-end of today offers: it is shown, but suggests nothing.
namespace Outboard.Virtio.Spec;

/// <summary>Names of feature bits.</summary>
public static class FeatureNames
{
    /// <summary>Bits from here to <see cref="LastReserved"/> are the ring's and the transport's.</summary>
    private const int FirstReserved = 24;

    private const int LastReserved = 49;
    private const int BitCount = 64;
    private const char Legacy = '~';

    private static readonly Dictionary<int, string> s_reserved = Parse(
        "24 NOTIFY_ON_EMPTY 26 LOG_ALL 27 ANY_LAYOUT 28 INDIRECT_DESC 29 EVENT_IDX 30 PROTOCOL_FEATURES 32 VERSION_1 "
        + "33 ACCESS_PLATFORM 34 RING_PACKED 35 IN_ORDER 36 ORDER_PLATFORM 37 SR_IOV 38 NOTIFICATION_DATA "
        + "39 NOTIF_CONFIG_DATA 40 RING_RESET 41 ADMIN_VQ");

    private static readonly Dictionary<VirtioDeviceId, Dictionary<int, string>> s_devices = new()
    {
        [VirtioDeviceId.Network] = Parse(
            "0 CSUM 1 GUEST_CSUM 2 CTRL_GUEST_OFFLOADS 3 MTU 5 MAC 6 ~GSO 7 GUEST_TSO4 8 GUEST_TSO6 9 GUEST_ECN "
            + "10 GUEST_UFO 11 HOST_TSO4 12 HOST_TSO6 13 HOST_ECN 14 HOST_UFO 15 MRG_RXBUF 16 STATUS 17 CTRL_VQ "
            + "18 CTRL_RX 19 CTRL_VLAN 20 CTRL_RX_EXTRA 21 GUEST_ANNOUNCE 22 MQ 23 CTRL_MAC_ADDR 50 DEVICE_STATS "
            + "51 HASH_TUNNEL 52 VQ_NOTF_COAL 53 NOTF_COAL 54 GUEST_USO4 55 GUEST_USO6 56 HOST_USO 57 HASH_REPORT "
            + "59 GUEST_HDRLEN 60 RSS 61 RSC_EXT 62 STANDBY 63 SPEED_DUPLEX"),
        [VirtioDeviceId.Block] = Parse(
            "0 ~BARRIER 1 SIZE_MAX 2 SEG_MAX 4 GEOMETRY 5 RO 6 BLK_SIZE 7 ~SCSI 9 FLUSH 10 TOPOLOGY 11 CONFIG_WCE 12 MQ "
            + "13 DISCARD 14 WRITE_ZEROES 15 LIFETIME 16 SECURE_ERASE 17 ZONED"),
        [VirtioDeviceId.Console] = Parse("0 SIZE 1 MULTIPORT 2 EMERG_WRITE"),
        [VirtioDeviceId.Entropy] = [],
        [VirtioDeviceId.Balloon] = Parse(
            "0 MUST_TELL_HOST 1 STATS_VQ 2 DEFLATE_ON_OOM 3 FREE_PAGE_HINT 4 PAGE_POISON 5 PAGE_REPORTING"),
        [VirtioDeviceId.Scsi] = Parse("0 INOUT 1 HOTPLUG 2 CHANGE 3 T10_PI"),
        [VirtioDeviceId.NineP] = Parse("0 MOUNT_TAG"),
        [VirtioDeviceId.Gpu] = Parse(
            "0 VIRGL 1 EDID 2 RESOURCE_UUID 3 RESOURCE_BLOB 4 CONTEXT_INIT 5 BLOB_ALIGNMENT"),
        [VirtioDeviceId.Clock] = Parse("0 ALARM"),
        [VirtioDeviceId.Input] = [],
        [VirtioDeviceId.Socket] = Parse("0 STREAM 1 SEQPACKET 2 NO_IMPLIED_STREAM"),
        [VirtioDeviceId.Crypto] = Parse(
            "0 REVISION_1 1 CIPHER_STATELESS_MODE 2 HASH_STATELESS_MODE 3 MAC_STATELESS_MODE 4 AEAD_STATELESS_MODE "
            + "5 AKCIPHER_STATELESS_MODE"),
        [VirtioDeviceId.Iommu] = Parse(
            "0 INPUT_RANGE 1 DOMAIN_RANGE 2 MAP_UNMAP 3 BYPASS 4 PROBE 5 MMIO 6 BYPASS_CONFIG"),
        [VirtioDeviceId.Memory] = Parse("0 ACPI_PXM 1 UNPLUGGED_INACCESSIBLE 2 PERSISTENT_SUSPEND"),
        [VirtioDeviceId.Sound] = Parse("0 CTLS"),
        [VirtioDeviceId.FileSystem] = Parse("0 NOTIFICATION"),
        [VirtioDeviceId.PersistentMemory] = Parse("0 SHMEM_REGION"),
        [VirtioDeviceId.Scmi] = Parse("0 P2A_CHANNELS 1 SHARED_MEMORY"),
        [VirtioDeviceId.I2cAdapter] = Parse("0 ZERO_LENGTH_REQUEST"),
        [VirtioDeviceId.Can] = Parse("0 CAN_CLASSIC 1 CAN_FD 2 RTR_FRAMES 3 LATE_TX_ACK"),
        [VirtioDeviceId.Gpio] = Parse("0 IRQ"),
        [VirtioDeviceId.Spi] = [],
    };

    /// <summary>The ring's and the transport's features; a bit without a name is called by its number.</summary>
    public static IEnumerable<string> Ring(ulong features) =>
        Bits(features).Where(IsReserved).Select(bit => s_reserved.GetValueOrDefault(bit, $"{bit}"));

    /// <summary>A device's own features; a bit without a name is called by its number.</summary>
    /// <param name="features">The features.</param>
    /// <param name="device">What device it is; null when that is unknown, and then no bit has a name.</param>
    public static IEnumerable<string> Device(ulong features, VirtioDeviceId? device)
    {
        Dictionary<int, string>? names = device is { } id ? s_devices.GetValueOrDefault(id) : null;
        return Bits(features).Where(bit => !IsReserved(bit))
            .Select(bit => names?.GetValueOrDefault(bit)?.TrimStart(Legacy) ?? $"{bit}");
    }

    /// <summary>All features by name, the device's first.</summary>
    public static IEnumerable<string> All(ulong features, VirtioDeviceId? device) =>
        Device(features, device).Concat(Ring(features));

    /// <summary>The only type of device that has a name for each of these device features.</summary>
    /// <returns>Null when there is none or more than one, as when no bit is set.</returns>
    public static VirtioDeviceId? Guess(ulong features)
    {
        int[] bits = [.. Bits(features).Where(bit => !IsReserved(bit))];
        VirtioDeviceId[] fitting =
            [.. s_devices.Where(names => bits.All(bit => Suggests(names.Value, bit))).Select(names => names.Key)];
        return bits.Length > 0 && fitting.Length == 1 ? fitting[0] : null;
    }

    private static bool Suggests(Dictionary<int, string> names, int bit) =>
        names.TryGetValue(bit, out string? name) && name[0] != Legacy;

    private static bool IsReserved(int bit) => bit is >= FirstReserved and <= LastReserved;

    private static IEnumerable<int> Bits(ulong features) =>
        Enumerable.Range(0, BitCount).Where(bit => (features >> bit & 1) != 0);

    private static Dictionary<int, string> Parse(string text)
    {
        string[] words = text.Split(' ');
        return Enumerable.Range(0, words.Length / 2).ToDictionary(
            i => int.Parse(words[2 * i], System.Globalization.CultureInfo.InvariantCulture), i => words[(2 * i) + 1]);
    }
}
