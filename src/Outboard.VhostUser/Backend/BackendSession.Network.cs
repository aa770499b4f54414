// What concerns devices in a network only. Without such a device the protocol features are not offered, and so the
// requests are refused.
using System.Buffers.Binary;
using Outboard.Virtio;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

internal sealed partial class BackendSession
{
    private const int MacBytes = 6;
    private const ProtocolFeatures NetworkFeatures = ProtocolFeatures.Rarp | ProtocolFeatures.NetMtu;

    /// <summary>The guest has arrived: the device announces its address, the u64's first six bytes.</summary>
    private Reply SendRarp(VhostUserMessage message)
    {
        ReadOnlySpan<byte> address = message.Payload.Span[..MacBytes];
        if (message.Payload.Span[MacBytes..].ContainsAnyExcept((byte)0) || !Link("SEND_RARP").TryAnnounce(address))
        {
            ulong value = BinaryPrimitives.ReadUInt64BigEndian(message.Payload.Span);
            throw new ProtocolException("SEND_RARP", "address", $"0x{value:x16} is no address of a guest");
        }

        return Reply.Done;
    }

    private Reply NetSetMtu(VhostUserMessage message)
    {
        ulong mtu = message.Read<ulong>();
        return mtu <= int.MaxValue && Link("NET_SET_MTU").TrySetMtu((int)mtu)
            ? Reply.Done
            : throw new ProtocolException("NET_SET_MTU", "mtu", $"{mtu}: the network does not carry such packets");
    }

    private INetworkLink Link(string request) => _device as INetworkLink
        ?? throw new ProtocolException(request, "request", "the device stands in no network");
}
