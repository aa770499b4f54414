// Tests of a request behind LIFE_CYCLE: the back-end offers it, and the connection has it.
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.Tests.VhostUser;

public abstract class LifeCycleTest : RequestTest
{
    internal const ProtocolFeatures Negotiated = WirePeer.AllProtocolFeatures | ProtocolFeatures.LifeCycle;

    protected override ProtocolFeatures Gate => ProtocolFeatures.LifeCycle;

    private protected override VhostUserBackendOptions Configure(VhostUserBackendOptions options) =>
        options with { AdditionalProtocolFeatures = ProtocolFeatures.LifeCycle };

    private protected override Task PrepareAsync(WirePeer peer) => NegotiateAsync(peer);

    /// <summary>Shares memory, and makes a ring in it for queue 0.</summary>
    private protected async Task<RawRing> AddRingAsync(WirePeer peer)
    {
        DriverMemory memory = Rig.Memory();
        await RawRing.AddMemoryAsync(peer, memory);
        return new RawRing(Rig, memory, 0);
    }

    /// <summary>Up to FEATURES_OK.</summary>
    internal static async Task NegotiateAsync(WirePeer peer, VirtioStatus upTo = VirtioStatus.FeaturesOk)
    {
        await peer.NegotiateAsync(Negotiated);
        VirtioStatus status = VirtioStatus.None;
        foreach (VirtioStatus step in (VirtioStatus[])
            [VirtioStatus.Acknowledge, VirtioStatus.Driver, VirtioStatus.FeaturesOk, VirtioStatus.DriverOk])
        {
            status |= step;
            await peer.DoAsync(FrontendRequest.SetStatus, (ulong)status);
            if (step == upTo)
            {
                break;
            }
        }
    }
}
