// The network device, virtio-v1.3 "5.1 Network Device": identity, features, configuration, control queue. Packets are
// in NetReceiveQueue and NetSendQueue.
// Not here: filtering of received packets (all are delivered, whatever the receive mode), hash reports, RSS,
// notification coalescing.
using System.Buffers.Binary;
using Outboard.Devices.Net.Backends;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Net;

/// <summary>A virtio network device on a <see cref="NetBackend"/>.</summary>
public sealed partial class NetDevice : VirtioDevice
{
    /// <summary>
    /// Most packets between two publications: a driver whose ring is small and whose packets come straight back would
    /// otherwise run out of buffers before it sees the first one returned.
    /// </summary>
    internal const int BurstPackets = 32;

    /// <summary>Size of the control queue: commands are rare, and answered one by one.</summary>
    private const int ControlQueueSize = 64;

    /// <summary>Smallest MTU: what IPv4 asks of every link.</summary>
    private const int LeastMtu = 68;

    private const ulong ControlFeatures = NetFeatures.ControlQueue | NetFeatures.ControlReceiveMode
        | NetFeatures.ControlMacAddress | NetFeatures.GuestAnnounce;

    private readonly NetDeviceOptions _options;
    private readonly NetCounters[] _counters;
    private readonly Lock _link = new();

    /// <summary>Makes a device on a back-end, which stays the caller's to dispose.</summary>
    /// <exception cref="ArgumentException">An option is out of range, or does not suit the back-end.</exception>
    public NetDevice(NetBackend backend, NetDeviceOptions? options = null)
        : this(backend, options ?? new NetDeviceOptions(), 0)
    {
    }

    private NetDevice(NetBackend backend, NetDeviceOptions options, int _)
        : base(VirtioDeviceId.Network, QueueSizes(options), new ConfigSpace(NetConfig.Bytes, NetConfig.Mac))
    {
        ArgumentNullException.ThrowIfNull(backend);
        if (options.PairCount > backend.PairCount)
        {
            throw new ArgumentException(
                $"{options.PairCount} pairs of queues: {backend.Description} has {backend.PairCount}");
        }

        if (options.Mtu != 0 && options.Mtu is < LeastMtu or > ushort.MaxValue)
        {
            throw new ArgumentException($"MTU {options.Mtu}: it must be from {LeastMtu} to {ushort.MaxValue}");
        }

        Backend = backend;
        _options = options;
        _counters = [.. Enumerable.Range(0, 2 * options.PairCount).Select(_ => new NetCounters())];
        Describe();
    }

    /// <inheritdoc/>
    public override ulong DeviceFeatures =>
        NetFeatures.MergeableBuffers | NetFeatures.Status
        | (Backend.Features & NetOffload.All)
        | (_options.Mac is null ? 0 : NetFeatures.Mac)
        | (_options.Mtu == 0 ? 0 : NetFeatures.Mtu)
        | (_options.PairCount > 1 ? NetFeatures.MultiQueue : 0)
        | (_options.HasControlQueue ? ControlFeatures : 0);

    /// <summary>What the queues have done: index 2N received for pair N, 2N + 1 sent.</summary>
    public IReadOnlyList<NetCounters> Counters => _counters;

    /// <summary>Pairs that the driver said it uses, with a control queue; all of them without.</summary>
    public int ActivePairs { get; private set; } = 1;

    internal NetBackend Backend { get; }

    /// <summary>
    /// Bytes of the header before each packet: virtio-v1.3 "5.1.6.1 Legacy Interface: Device Operation".
    /// </summary>
    internal int HeaderBytes =>
        (NegotiatedFeatures & (VirtioFeatures.Version1 | NetFeatures.MergeableBuffers)) != 0
            ? NetHeader.Bytes
            : NetHeader.LegacyBytes;

    private int ControlQueue => 2 * _options.PairCount;

    /// <summary>
    /// Tells the driver whether the network is there. From any thread. A back-end that comes and goes tells by itself.
    /// </summary>
    public void SetLink(bool up)
    {
        if (Config.Set(NetConfig.Status, up ? NetConfig.LinkUp : 0))
        {
            NotifyConfigChanged();
        }
    }

    /// <summary>Asks the driver to announce itself to the network, as after a migration. From any thread.</summary>
    /// <returns>False when the driver cannot.</returns>
    public bool RequestAnnounce()
    {
        if ((NegotiatedFeatures & NetFeatures.GuestAnnounce) == 0)
        {
            return false;
        }

        if (Config.Set(NetConfig.Status, Config.Get(NetConfig.Status) | NetConfig.Announce))
        {
            NotifyConfigChanged();
        }

        return true;
    }

    /// <inheritdoc/>
    public override void Reset()
    {
        base.Reset();
        ActivePairs = 1;
        Config.Set(NetConfig.Mtu, (ulong)_options.Mtu);
        Config.Set(NetConfig.Status, Config.Get(NetConfig.Status) & ~NetConfig.Announce);
        SetMac();
        Backend.AcceptFeatures(0);
    }

    /// <inheritdoc/>
    protected override QueueHandler CreateHandler(QueueContext context)
    {
        int index = context.Queue.Index;
        return index == ControlQueue ? base.CreateHandler(context)
            : index % 2 == 0 ? new NetReceiveQueue(this, index / 2, _counters[index], context)
            : new NetSendQueue(this, index / 2, _counters[index], context);
    }

    /// <inheritdoc/>
    protected override void OnFeaturesAccepted(ulong features) => Backend.AcceptFeatures(features & NetOffload.All);

    /// <summary>A command of the control queue; packets have queues of their own.</summary>
    protected override uint HandleRequest(int queue, scoped in DescriptorChain chain)
    {
        if (chain.Writable.Length == 0)
        {
            return 0;
        }

        byte answer = chain.TryTakeHeader(out NetControlHeader command) && TryCarryOut(command, in chain)
            ? NetControlHeader.Ok
            : NetControlHeader.Error;
        return (uint)chain.Writable.CopyFrom(0, [answer]);
    }

    private static int[] QueueSizes(NetDeviceOptions options)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(options.PairCount);
        return
        [
            .. Enumerable.Repeat(options.QueueSize, 2 * options.PairCount),
            .. options.HasControlQueue ? (int[])[ControlQueueSize] : [],
        ];
    }

    private bool TryCarryOut(NetControlHeader command, scoped in DescriptorChain chain)
    {
        Span<byte> data = stackalloc byte[8];
        int length = chain.Readable.CopyTo(0, data);
        switch (command.Class, command.Command)
        {
            case (NetControlClass.ReceiveMode, <= 5):
                // More than asked for is delivered anyway.
                return length >= 1;
            case (NetControlClass.Mac, 0):
                return true;
            case (NetControlClass.Mac, 1) when length >= 6:
                Config.SetBytes(NetConfig.Mac, data[..6]);
                return true;
            case (NetControlClass.Announce, 0):
                Config.Set(NetConfig.Status, Config.Get(NetConfig.Status) & ~NetConfig.Announce);
                return true;
            case (NetControlClass.MultiQueue, 0) when length >= 2:
                return TrySetActivePairs(BinaryPrimitives.ReadUInt16LittleEndian(data));
            default:
                return false;
        }
    }

    private bool TrySetActivePairs(int pairs)
    {
        if (pairs < 1 || pairs > _options.PairCount)
        {
            return false;
        }

        ActivePairs = pairs;
        for (int pair = 0; pair < _options.PairCount; pair++)
        {
            Backend.SetActive(pair, pair < pairs);
        }

        return true;
    }

    private void Describe()
    {
        SetMac();
        Config.Set(NetConfig.Status, Backend.IsConnected ? NetConfig.LinkUp : 0);
        Backend.ConnectionChanged += FollowConnection;
        FollowConnection();
        Config.Set(NetConfig.MaxQueuePairs, (ulong)_options.PairCount);
        Config.Set(NetConfig.Mtu, (ulong)_options.Mtu);
    }

    /// <summary>Called on any thread, also twice at once: whoever is last has seen the last state.</summary>
    private void FollowConnection()
    {
        lock (_link)
        {
            SetLink(Backend.IsConnected);
        }
    }

    private void SetMac() => Config.SetBytes(NetConfig.Mac, _options.Mac?.GetAddressBytes() ?? []);
}
