// A tap interface as the other side: the host's network stack. Checksums and segmentation are left to it, as far as its
// kernel goes; one queue of the tap for each pair, in use only while the pair is.
using Outboard.Linux;
using Outboard.Linux.Tap;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Net.Backends;

/// <summary>A tap interface.</summary>
public sealed class TapBackend : NetBackend
{
    private readonly TapDevice _tap;
    private readonly DescriptorReceiver[] _receivers;
    private readonly DescriptorSender[] _senders;

    private TapBackend(TapDevice tap)
    {
        _tap = tap;
        Mtu = tap.Mtu;
        Features = FeaturesOf(tap.SupportedOffloads);
        _receivers = [.. tap.Queues.Select(queue => new DescriptorReceiver(queue, NetHeader.Bytes))];
        _senders =
        [
            .. tap.Queues.Select(queue => new DescriptorSender(queue.Descriptor, queue.TryWrite, hasHeader: true)),
        ];
        for (int pair = 1; pair < PairCount; pair++)
        {
            tap.SetAttached(pair, false);
        }
    }

    /// <inheritdoc/>
    public override string Description => $"tap {_tap.Name}, {PairCount} queue(s)";

    /// <inheritdoc/>
    public override int PairCount => _tap.Queues.Count;

    /// <inheritdoc/>
    public override int Mtu { get; }

    /// <inheritdoc/>
    public override ulong Features { get; }

    /// <summary>Opens a tap, see <see cref="TapDevice.Open"/>.</summary>
    /// <param name="name">The interface's name.</param>
    /// <param name="pairs">Pairs of queues.</param>
    /// <param name="mtu">The interface's MTU to set; 0 leaves it.</param>
    /// <exception cref="LinuxException">It cannot be opened; the message says what to do.</exception>
    public static TapBackend Open(string name, int pairs = 1, int mtu = 0)
    {
        TapDevice tap = TapDevice.Open(name, pairs);
        try
        {
            if (mtu != 0 && tap.Mtu != mtu)
            {
                tap.Mtu = mtu;
            }

            return new TapBackend(tap);
        }
        catch
        {
            tap.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override PacketReceiver Receiver(int pair) => _receivers[pair];

    /// <inheritdoc/>
    public override PacketSender Sender(int pair) => _senders[pair];

    /// <inheritdoc/>
    public override void AcceptFeatures(ulong features)
    {
        TapOffloads wanted = OffloadsOf(features) & _tap.SupportedOffloads;
        _ = _tap.TrySetOffloads((wanted & TapOffloads.Checksum) != 0 ? wanted : TapOffloads.None);
    }

    /// <inheritdoc/>
    public override void SetActive(int pair, bool active)
    {
        // The first queue stays: without any the interface would lose its carrier at every reboot of the guest.
        if (pair > 0)
        {
            _tap.SetAttached(pair, active);
        }
    }

    /// <inheritdoc/>
    public override void Dispose()
    {
        Array.ForEach(_receivers, receiver => receiver.Dispose());
        Array.ForEach(_senders, sender => sender.Dispose());
        _tap.Dispose();
    }

    /// <summary>What the kernel segments on the way in, it also segments on the way out.</summary>
    private static ulong FeaturesOf(TapOffloads offloads)
    {
        ulong features = 0;
        Add(TapOffloads.Checksum, NetFeatures.Checksum | NetFeatures.GuestChecksum);
        Add(TapOffloads.Tso4, NetFeatures.HostTso4 | NetFeatures.GuestTso4);
        Add(TapOffloads.Tso6, NetFeatures.HostTso6 | NetFeatures.GuestTso6);
        Add(TapOffloads.Ecn, NetFeatures.HostEcn | NetFeatures.GuestEcn);
        Add(TapOffloads.Ufo, NetFeatures.HostUfo | NetFeatures.GuestUfo);
        Add(TapOffloads.Uso4 | TapOffloads.Uso6, NetFeatures.HostUso | NetFeatures.GuestUso4 | NetFeatures.GuestUso6);
        return features;

        void Add(TapOffloads needed, ulong given) => features |= (offloads & needed) == needed ? given : 0;
    }

    private static TapOffloads OffloadsOf(ulong features)
    {
        TapOffloads offloads = TapOffloads.None;
        Add(NetFeatures.GuestChecksum, TapOffloads.Checksum);
        Add(NetFeatures.GuestTso4, TapOffloads.Tso4);
        Add(NetFeatures.GuestTso6, TapOffloads.Tso6);
        Add(NetFeatures.GuestEcn, TapOffloads.Ecn);
        Add(NetFeatures.GuestUfo, TapOffloads.Ufo);
        Add(NetFeatures.GuestUso4 | NetFeatures.GuestUso6, TapOffloads.Uso4 | TapOffloads.Uso6);
        return offloads;

        void Add(ulong needed, TapOffloads given) => offloads |= (features & needed) == needed ? given : 0;
    }
}
