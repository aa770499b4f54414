// What a transport may tell a device that stands in a network, beside its configuration: whoever runs the guest knows
// its address and its MTU, and when it has moved. A device without a network does not have this.
namespace Outboard.Virtio;

/// <summary>The network's side of a device, for the transport's control loop.</summary>
public interface INetworkLink
{
    /// <summary>
    /// Tells the network that a guest is here now, as after a migration: switches learn the way to it. What was told
    /// goes out when the device next sends.
    /// </summary>
    /// <param name="address">The guest's address, six bytes.</param>
    /// <returns>False when that is no address of a guest.</returns>
    bool TryAnnounce(ReadOnlySpan<byte> address);

    /// <summary>The guest will send packets of up to this size, without their Ethernet header.</summary>
    /// <returns>False when the network cannot carry them.</returns>
    bool TrySetMtu(int mtu);
}
