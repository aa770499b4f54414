// What a driver is shown of somebody else's back-end: type, features, queues and configuration space. A front-end knows
// more of a device than the protocol tells: how many queues a type has, which of them are the front-end's own affair,
// and what stands in a configuration space that the back-end leaves to it.
using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend;

/// <summary>What a driver is shown.</summary>
internal sealed class RemoteDeviceShape
{
    private const int MacBytes = 6;
    private const int TagBytes = 36;
    private const int TagConfigBytes = 40;
    private const int NetQueues = 2;
    private const int BlockQueuesOffset = 34;
    private const ulong BlockMultiQueue = 1UL << 12;
    private const int ScsiFixedQueues = 2;

    /// <summary>Most queues: one page of doorbells.</summary>
    private const int MaxQueues = 1024;

    /// <summary>Features of the ring that a back-end serves itself; no other reserved one is its own.</summary>
    private const ulong RingFeatures =
        VirtioFeatures.IndirectDescriptors | VirtioFeatures.EventIndex | VirtioFeatures.Version1
        | VirtioFeatures.RingPacked | VirtioFeatures.InOrder;

    private const ulong NetMac = 1UL << 5;

    /// <summary>
    /// What needs a control queue, which back-ends leave to the front-end, and this one does not have: CTRL_VQ,
    /// CTRL_RX, CTRL_VLAN, GUEST_ANNOUNCE, MQ, CTRL_MAC_ADDR, CTRL_GUEST_OFFLOADS, both NOTF_COAL, HASH_REPORT, RSS.
    /// </summary>
    private const ulong NetControlFeatures =
        1UL << 17 | 1UL << 18 | 1UL << 19 | 1UL << 21 | 1UL << 22 | 1UL << 23 | 1UL << 2
        | 1UL << 52 | 1UL << 53 | 1UL << 57 | 1UL << 60;

    /// <summary>What only means something with a configuration space: MTU, STATUS, SPEED_DUPLEX.</summary>
    private const ulong NetConfigFeatures = 1UL << 3 | 1UL << 16 | 1UL << 63;

    private readonly byte[] _mac;
    private readonly byte[] _tag;
    private readonly int? _queueCount;

    private RemoteDeviceShape(VirtioDeviceId id, ulong offered, bool hasConfig, RemoteDeviceOptions options)
    {
        Id = id;
        _queueCount = options.QueueCount;
        _mac = options.Mac is { } mac ? [.. mac] : RandomMac();
        _tag = Encoding.UTF8.GetBytes(options.Tag ?? string.Empty);
        HasConfig = hasConfig;
        Features = offered & (~VirtioFeatures.Reserved | RingFeatures) & ~options.WithheldFeatures;
        if (id == VirtioDeviceId.Network)
        {
            Features &= ~(NetControlFeatures | (hasConfig ? 0 : NetConfigFeatures));
            Features |= NetMac;
        }
    }

    internal VirtioDeviceId Id { get; }

    /// <summary>What a driver may accept of the back-end's features, and MAC.</summary>
    internal ulong Features { get; }

    /// <summary>Whether the back-end has the configuration space.</summary>
    internal bool HasConfig { get; }

    /// <summary>Queues that a driver sees.</summary>
    internal int QueueCount { get; private set; }

    /// <summary>The configuration space at the beginning.</summary>
    internal byte[] Config { get; private set; } = [];

    /// <summary>Asks a back-end, after negotiation.</summary>
    /// <exception cref="IOException">It is no device that can be shown.</exception>
    internal static async Task<RemoteDeviceShape> AskAsync(
        VhostUserFrontend frontend, RemoteDeviceOptions options, CancellationToken cancellation)
    {
        ulong offered = frontend.OfferedFeatures;
        if ((offered & VirtioFeatures.Version1) == 0)
        {
            throw new IOException($"the back-end offers 0x{offered:x}: without VERSION_1 it cannot be a PCI device");
        }

        VirtioDeviceId id = options.Type ?? FeatureNames.Guess(offered)
            ?? throw new IOException(
                $"the features 0x{offered:x} do not tell the type of the device: it has to be given");
        byte[]? config = await ReadConfigAsync(frontend, id, cancellation).ConfigureAwait(false);
        RemoteDeviceShape shape = new(id, offered, config is not null, options);
        shape.QueueCount = shape.CountQueues(config ?? [], frontend.QueueCount);
        shape.Config = shape.Complete(config ?? []);
        return shape;
    }

    /// <summary>Reads the configuration space as a driver is shown it.</summary>
    /// <exception cref="ProtocolException">The back-end refuses.</exception>
    internal async Task<byte[]> ReadConfigAsync(VhostUserFrontend frontend, CancellationToken cancellation) =>
        HasConfig ? Complete(await ReadConfigAsync(frontend, Id, cancellation).ConfigureAwait(false) ?? []) : Config;

    private static async Task<byte[]?> ReadConfigAsync(
        VhostUserFrontend frontend, VirtioDeviceId id, CancellationToken cancellation)
    {
        HashSet<string> offered = [.. FeatureNames.Device(frontend.OfferedFeatures, id)];
        int size = DeviceConfigLayouts.Of(id)?.SizeWith(offered) ?? 0;
        if (size == 0 || !frontend.Has(ProtocolFeatures.Config))
        {
            return null;
        }

        try
        {
            return await frontend.GetConfigAsync(0, size, cancellation).ConfigureAwait(false);
        }
        catch (ProtocolException error) when (!error.IsFatal && id == VirtioDeviceId.Network)
        {
            // Network back-ends have the request for other purposes.
            return null;
        }
    }

    private static byte[] RandomMac()
    {
        byte[] mac = RandomNumberGenerator.GetBytes(MacBytes);
        mac[0] = (byte)((mac[0] & 0xfc) | 2);
        return mac;
    }

    /// <summary>What a driver is shown of the space that the back-end gave.</summary>
    private byte[] Complete(byte[] config)
    {
        switch (Id)
        {
            case VirtioDeviceId.Network:
                byte[] net = config.Length >= MacBytes ? config : new byte[MacBytes];
                if (!HasConfig || net.AsSpan(0, MacBytes).IndexOfAnyExcept((byte)0) < 0)
                {
                    _mac.CopyTo(net, 0);
                }

                return net;
            case VirtioDeviceId.FileSystem:
                byte[] fs = config.Length >= TagConfigBytes ? config : new byte[TagConfigBytes];
                if (_tag.Length > 0)
                {
                    fs.AsSpan(0, TagBytes).Clear();
                    _tag.AsSpan(0, Math.Min(_tag.Length, TagBytes)).CopyTo(fs);
                }

                BinaryPrimitives.WriteUInt32LittleEndian(fs.AsSpan(TagBytes), (uint)Math.Max(1, QueueCount - 1));
                return fs;
            case VirtioDeviceId.Block when config.Length >= BlockQueuesOffset + sizeof(ushort):
                BinaryPrimitives.WriteUInt16LittleEndian(config.AsSpan(BlockQueuesOffset), (ushort)QueueCount);
                return config;
            default:
                return config;
        }
    }

    private int CountQueues(byte[] config, int offered)
    {
        int told = Id switch
        {
            VirtioDeviceId.Network => NetQueues,
            VirtioDeviceId.Block => (Features & BlockMultiQueue) != 0 && config.Length >= BlockQueuesOffset + 2
                ? BinaryPrimitives.ReadUInt16LittleEndian(config.AsSpan(BlockQueuesOffset))
                : 1,
            VirtioDeviceId.FileSystem => 1 + (config.Length >= TagConfigBytes
                ? (int)Math.Min(BinaryPrimitives.ReadUInt32LittleEndian(config.AsSpan(TagBytes)), MaxQueues)
                : 1),
            VirtioDeviceId.Scsi => ScsiFixedQueues + (config.Length >= sizeof(uint)
                ? (int)Math.Min(BinaryPrimitives.ReadUInt32LittleEndian(config), MaxQueues)
                : 1),
            VirtioDeviceId.Socket => 3,
            VirtioDeviceId.Console or VirtioDeviceId.Input or VirtioDeviceId.Gpu or VirtioDeviceId.Gpio => 2,
            VirtioDeviceId.Sound => 4,
            VirtioDeviceId.Entropy or VirtioDeviceId.I2cAdapter => 1,
            _ => Math.Max(offered, 1),
        };
        int wanted = _queueCount ?? told;

        // The event queue of a socket device is nobody's but the driver's.
        int most = offered > 0 && Id != VirtioDeviceId.Socket ? Math.Min(offered, MaxQueues) : MaxQueues;
        return Math.Clamp(wanted, 1, most);
    }
}
