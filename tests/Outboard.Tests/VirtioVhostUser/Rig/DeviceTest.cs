// A device, a driver by hand, and a front-end by hand; and the proof afterwards that nothing was kept.
using Outboard.Linux;
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Protocol;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Device;
using Outboard.VirtioVhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

[Collection(VhostUserCollection.Name)]
public abstract class DeviceTest : IAsyncLifetime
{
    public const uint Up = VirtioVhostUserSpec.BackendUp;
    public const uint Connected = VirtioVhostUserSpec.BackendUp | VirtioVhostUserSpec.FrontendUp;

    private OpenThings _before;
    private int _resets;

    private protected ApplianceRig Rig { get; private set; } = null!;

    private protected RawDriver Driver { get; private set; } = null!;

    /// <summary>Features of the driver.</summary>
    private protected virtual ulong DriverFeatures => ulong.MaxValue;

    private protected virtual VirtioVhostUserOptions Options => ApplianceRig.Options;

    /// <summary>Whether the engine is driven by way of a vhost-pci adapter.</summary>
    private protected virtual bool IsVhostPci => false;

    private protected int NeedsResets => Volatile.Read(ref _resets);

    public async ValueTask InitializeAsync()
    {
        _before = OpenThings.Count();
        Rig = await ApplianceRig.StartAsync(new InProcessOptions { Features = DriverFeatures }, Options, IsVhostPci);
        Rig.Device.NeedsReset += () => Interlocked.Increment(ref _resets);
        Driver = new RawDriver(Rig.Access);
    }

    public async ValueTask DisposeAsync()
    {
        await Rig.DisposeAsync();
        await _before.AssertNothingLeftAsync();
        GC.SuppressFinalize(this);
    }

    /// <summary>A front-end that is connected to the driver, with nothing negotiated.</summary>
    private protected async Task<WirePeer> ConnectAsync()
    {
        await Driver.ArmAsync();
        WirePeer peer = await Rig.ConnectAsync();
        await Driver.ExpectStatusAsync(Connected);
        return peer;
    }

    /// <summary>A front-end that has negotiated protocol features with the driver.</summary>
    private protected async Task<WirePeer> NegotiateAsync(ProtocolFeatures features = MessagePolicy.Passed)
    {
        Driver.Post();
        WirePeer peer = await ConnectAsync();
        ProtocolFeatures offered = MessagePolicy.PassedFor(Rig.Access.Features);
        await peer.SendAsync(FrontendRequest.GetProtocolFeatures, WirePeer.NoReply, []);
        await Driver.ReceiveAsync(FrontendRequest.GetProtocolFeatures);
        Driver.Reply(FrontendRequest.GetProtocolFeatures, ulong.MaxValue);
        Assert.Equal(WirePeer.Bytes((ulong)offered), await peer.ReplyAsync(FrontendRequest.GetProtocolFeatures));
        await peer.SendAsync(
            FrontendRequest.SetProtocolFeatures, WirePeer.NoReply, WirePeer.Bytes((ulong)(features & offered)));
        await Driver.ReceiveAsync(FrontendRequest.SetProtocolFeatures);
        return peer;
    }

    /// <summary>Sends a request with NEED_REPLY, and gives the driver's copy of it.</summary>
    private protected async Task<DriverFrame> PassAsync(
        WirePeer peer, FrontendRequest request, byte[] payload, params FileDescriptor[] descriptors)
    {
        await peer.SendAsync(request, WirePeer.NeedReply, payload, descriptors);
        return await Driver.ReceiveAsync(request);
    }

    /// <summary>The driver's acknowledgement, and the front-end's look at it.</summary>
    private protected async Task AcknowledgeAsync(WirePeer peer, FrontendRequest request, ulong value = 0)
    {
        Driver.Reply(request, value);
        Assert.Equal(WirePeer.Bytes(value), await peer.ReplyAsync(request));
    }

    /// <summary>Has the driver's side wait with some of what it is asked to map and unmap.</summary>
    private protected SlowRegions SlowDown(int mappings = 0, int unmappings = 0)
    {
        SlowRegions slow = new(Rig.Device.SharedRegionHost!, mappings, unmappings);
        Rig.Device.SharedRegionHost = slow;
        return slow;
    }

    private protected async Task ExpectBrokenAsync()
    {
        await Eventually.TrueAsync(() => NeedsResets == 1, "the device needs a reset");
        await Driver.ExpectStatusAsync(0);
    }
}
