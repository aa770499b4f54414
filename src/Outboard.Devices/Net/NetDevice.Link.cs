// What the front-end tells of the network: the guest's MTU, and that the guest has arrived here. The announcement is a
// reverse-ARP request from the guest's address to all, as hypervisors send it; it goes out of the first pair's send
// queue, on that queue's thread, as soon as it runs.
using System.Buffers.Binary;
using Outboard.Virtio;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Net;

public sealed partial class NetDevice : INetworkLink
{
    private byte[]? _announcement;
    private Action? _wakeSender;

    /// <summary>Whether an announcement waits to be sent.</summary>
    internal bool HasAnnouncement => Volatile.Read(ref _announcement) is not null;

    /// <inheritdoc/>
    public bool TryAnnounce(ReadOnlySpan<byte> address)
    {
        if (address.Length != RarpFrame.AddressBytes || (address[0] & 1) != 0 || !address.ContainsAnyExcept((byte)0))
        {
            return false;
        }

        Volatile.Write(ref _announcement, RarpFrame.Make(address));
        Volatile.Read(ref _wakeSender)?.Invoke();
        return true;
    }

    /// <inheritdoc/>
    public bool TrySetMtu(int mtu)
    {
        if (mtu is < LeastMtu or > ushort.MaxValue || (Backend.Mtu != 0 && mtu > Backend.Mtu))
        {
            return false;
        }

        Config.Set(NetConfig.Mtu, (ulong)mtu);
        return true;
    }

    /// <summary>The first send queue runs; null when it stops. On its thread.</summary>
    internal void SetSender(Action? wake) => Volatile.Write(ref _wakeSender, wake);

    /// <summary>Takes what is to be announced. On the first send queue's thread.</summary>
    internal byte[]? TakeAnnouncement() => Interlocked.Exchange(ref _announcement, null);

    /// <summary>There was no room for it; a newer one goes first.</summary>
    internal void PutBackAnnouncement(byte[] frame) => Interlocked.CompareExchange(ref _announcement, frame, null);
}

/// <summary>
/// A reverse-ARP request, RFC 903: 0 to all (6 bytes), 6 from (6), 12 type 0x8035; 14 hardware 1, 16 protocol 0x0800,
/// 18 lengths 6 and 4, 20 operation 3, 22 sender (6 + 4), 32 target (6 + 4); zeroes up to 60, Ethernet's least.
/// </summary>
internal static class RarpFrame
{
    internal const int AddressBytes = 6;
    internal const int Bytes = 60;

    internal static ReadOnlySpan<byte> AddressOf(byte[] frame) => frame.AsSpan(22, AddressBytes);

    internal static byte[] Make(ReadOnlySpan<byte> address)
    {
        byte[] frame = new byte[Bytes];
        frame.AsSpan(0, AddressBytes).Fill(0xFF);
        address.CopyTo(frame.AsSpan(6));
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(12), 0x8035);
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(14), 1);
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(16), 0x0800);
        frame[18] = AddressBytes;
        frame[19] = 4;
        BinaryPrimitives.WriteUInt16BigEndian(frame.AsSpan(20), 3);
        address.CopyTo(frame.AsSpan(22));
        address.CopyTo(frame.AsSpan(32));
        return frame;
    }
}
