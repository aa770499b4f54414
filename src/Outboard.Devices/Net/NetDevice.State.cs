// What a network device carries over to another host: what the driver told it by the control queue, and what it still
// has to tell. A driver that can announce itself is asked to, since it has moved.
using Outboard.Virtio.Spec;
using Outboard.Virtio.State;

namespace Outboard.Devices.Net;

public sealed partial class NetDevice
{
    private const string MacRecord = "mac ";
    private const string MtuRecord = "mtu ";
    private const string PairsRecord = "pair";
    private const string StatusRecord = "stat";
    private const string AnnouncementRecord = "rarp";

    /// <inheritdoc/>
    protected override void OnSave(DeviceStateWriter writer)
    {
        Span<byte> mac = stackalloc byte[RarpFrame.AddressBytes];
        Config.Read((uint)NetConfig.Mac.Offset, mac);
        writer.Write(MacRecord, mac);
        writer.Write(MtuRecord, Config.Get(NetConfig.Mtu));
        writer.Write(PairsRecord, (ulong)ActivePairs);
        writer.Write(StatusRecord, Config.Get(NetConfig.Status));
        if (Volatile.Read(ref _announcement) is { } frame)
        {
            writer.Write(AnnouncementRecord, RarpFrame.AddressOf(frame), isIgnorable: true);
        }
    }

    /// <inheritdoc/>
    protected override Action OnLoad(DeviceStateReader reader)
    {
        if (!reader.TryRead(MacRecord, RarpFrame.AddressBytes, out ReadOnlyMemory<byte> mac))
        {
            throw new DeviceStateException($"record '{MacRecord}' is missing");
        }

        ulong mtu = reader.ReadNumber(MtuRecord, largest: ushort.MaxValue);
        ulong pairs = reader.ReadNumber(PairsRecord, largest: (ulong)_options.PairCount);
        ulong status = reader.ReadNumber(StatusRecord, largest: NetConfig.LinkUp | NetConfig.Announce);
        if (pairs == 0 || (mtu != 0 && Backend.Mtu != 0 && mtu > (ulong)Backend.Mtu))
        {
            throw new DeviceStateException($"{pairs} pairs, MTU {mtu}: {Backend.Description} does not carry that");
        }

        reader.TryRead(AnnouncementRecord, RarpFrame.AddressBytes, out ReadOnlyMemory<byte> announced);
        return () =>
        {
            Config.SetBytes(NetConfig.Mac, mac.Span);
            Config.Set(NetConfig.Mtu, mtu);
            TrySetActivePairs((int)pairs);

            // Whether the link is up here is this host's to say.
            Config.Set(
                NetConfig.Status, (Config.Get(NetConfig.Status) & ~NetConfig.Announce) | (status & NetConfig.Announce));
            if (!announced.IsEmpty)
            {
                TryAnnounce(announced.Span);
            }
        };
    }
}
