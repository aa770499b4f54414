// What a front-end tells a network device.
using System.Net.NetworkInformation;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Frontend;

public sealed partial class VhostUserFrontend
{
    /// <summary>SEND_RARP: the back-end announces a guest that has arrived.</summary>
    /// <param name="address">Its Ethernet address.</param>
    /// <param name="cancellation">Gives up waiting for the reply.</param>
    public Task SendRarpAsync(PhysicalAddress address, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(address);
        byte[] payload = new byte[sizeof(ulong)];
        address.GetAddressBytes().CopyTo(payload, 0);
        return RequestAsync(FrontendRequest.SendRarp, payload, cancellation);
    }

    /// <summary>NET_SET_MTU: the guest's MTU.</summary>
    /// <exception cref="ProtocolException">The back-end's network does not carry such packets.</exception>
    public async Task NetSetMtuAsync(int mtu, CancellationToken cancellation = default)
    {
        byte[] payload = VhostUserMessage.PayloadOf((ulong)mtu);
        await RequestAsync(FrontendRequest.NetSetMtu, payload, cancellation).ConfigureAwait(false);
        State.Mtu = mtu;
    }
}
