// The device status behind LIFE_CYCLE: which steps there are, and what each means for rings and features.
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class LifeCycleStatusTests : BackendTest
{
    private const ulong Acknowledge = 1;
    private const ulong Driver = 3;
    private const ulong Agreed = 11;
    private const ulong Running = 15;

    private protected override VhostUserBackendOptions Configure(VhostUserBackendOptions options) =>
        options with { AdditionalProtocolFeatures = ProtocolFeatures.LifeCycle };

    [Fact]
    public async Task Steps_of_a_driver_are_taken_and_none_is_taken_back()
    {
        using WirePeer peer = await ConnectAsync();
        foreach (ulong step in (ulong[])[Acknowledge, Driver, Agreed, Running, Running | 128])
        {
            await peer.DoAsync(FrontendRequest.SetStatus, step);
            Assert.Equal(step, await peer.AskValueAsync(FrontendRequest.GetStatus));
        }

        await RefusedAsync(peer, Agreed);
        await RefusedAsync(peer, 16 | Running | 128);
        await peer.DoAsync(FrontendRequest.SetStatus, 0UL);
        Assert.Equal(0UL, await peer.AskValueAsync(FrontendRequest.GetStatus));
    }

    [Theory]
    [InlineData(8UL, 0UL)]
    [InlineData(9UL, 1UL)]
    [InlineData(10UL, 2UL)]
    public async Task Features_are_not_agreed_upon_before_there_is_a_driver(ulong status, ulong taken)
    {
        using WirePeer peer = await ConnectAsync();
        await peer.DoAsync(FrontendRequest.SetStatus, status);
        Assert.Equal(taken, await peer.AskValueAsync(FrontendRequest.GetStatus));
    }

    [Theory]
    [InlineData(VirtioFeatures.ProtocolFeatures)]
    [InlineData(VirtioFeatures.ProtocolFeatures | 0x20)]
    [InlineData(0UL)]
    public async Task Features_without_version_1_are_refused(ulong features)
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync(LifeCycleTest.Negotiated, features);
        await peer.DoAsync(FrontendRequest.SetStatus, Agreed);
        Assert.Equal(Driver, await peer.AskValueAsync(FrontendRequest.GetStatus));
        await RefusedAsync(peer, Running);
    }

    [Fact]
    public async Task Features_that_were_not_offered_are_refused_until_others_are_told()
    {
        using WirePeer peer = await ConnectAsync();
        byte[] unknown = WirePeer.Bytes(WirePeer.Features | (1UL << 50));
        await peer.RefusedAsync(FrontendRequest.SetFeatures, unknown);
        await peer.DoAsync(FrontendRequest.SetStatus, Agreed);
        Assert.Equal(Driver, await peer.AskValueAsync(FrontendRequest.GetStatus));
        await peer.DoAsync(FrontendRequest.SetFeatures, WirePeer.Features);
        await peer.DoAsync(FrontendRequest.SetStatus, Agreed);
        Assert.Equal(Agreed, await peer.AskValueAsync(FrontendRequest.GetStatus));
    }

    [Fact]
    public async Task Features_do_not_change_after_they_were_agreed_upon()
    {
        using WirePeer peer = await ConnectAsync();
        await peer.DoAsync(FrontendRequest.SetStatus, Agreed);
        await peer.RefusedAsync(FrontendRequest.SetFeatures, WirePeer.Bytes(WirePeer.Features | 0x20));
        await peer.DoAsync(FrontendRequest.SetFeatures, WirePeer.Features);
        await peer.DoAsync(FrontendRequest.SetStatus, 0UL);
        await peer.DoAsync(FrontendRequest.SetFeatures, WirePeer.Features | 0x20);
        await peer.DoAsync(FrontendRequest.SetStatus, Agreed);
        Assert.Equal(Agreed, await peer.AskValueAsync(FrontendRequest.GetStatus));
    }

    [Fact]
    public async Task A_kick_before_the_driver_is_ready_is_kept()
    {
        using WirePeer peer = await ConnectAsync();
        await peer.DoAsync(FrontendRequest.SetStatus, Agreed);
        DriverMemory memory = Rig.Memory();
        await RawRing.AddMemoryAsync(peer, memory);
        RawRing ring = new(Rig, memory, 0);
        await ring.StartAsync(peer);
        ring.Submit();
        await peer.ExpectServedAsync();
        await Task.Delay(20, TestContext.Current.CancellationToken);
        Assert.Equal(0, Rig.Device.Handled);
        await peer.DoAsync(FrontendRequest.SetStatus, Running);
        await ring.ExpectEchoAsync();
    }

    [Fact]
    public async Task Zero_resets_the_device_wherever_it_stands()
    {
        using WirePeer peer = await ConnectAsync();
        int resets = Rig.Device.Resets;
        await peer.DoAsync(FrontendRequest.SetStatus, Acknowledge);
        await peer.DoAsync(FrontendRequest.SetStatus, 0UL);
        Assert.Equal(resets + 1, Rig.Device.Resets);
        await peer.DoAsync(FrontendRequest.SetStatus, Agreed);

        // What was accepted is forgotten, too.
        Assert.Equal(Driver, await peer.AskValueAsync(FrontendRequest.GetStatus));
    }

    [Theory]
    [InlineData(ProtocolFeatures.Status)]
    [InlineData(ProtocolFeatures.ReplyAck)]
    [InlineData(ProtocolFeatures.Config)]
    public async Task It_needs_other_features(ProtocolFeatures missing)
    {
        using WirePeer peer = await Rig.ConnectAsync();
        byte[] features = WirePeer.Bytes((ulong)(LifeCycleTest.Negotiated & ~missing));
        await peer.SendAsync(FrontendRequest.SetProtocolFeatures, WirePeer.NoReply, features);
        await peer.ExpectClosedAsync();
    }

    [Fact]
    public async Task It_is_not_offered_unless_it_is_asked_for()
    {
        await using BackendRig plain = new();
        using WirePeer peer = await plain.ConnectAsync();
        ulong offered = await peer.AskValueAsync(FrontendRequest.GetProtocolFeatures);
        Assert.Equal(0UL, offered & (ulong)ProtocolFeatures.LifeCycle);
    }

    private async Task<WirePeer> ConnectAsync()
    {
        WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync(LifeCycleTest.Negotiated);
        return peer;
    }

    private static async Task RefusedAsync(WirePeer peer, ulong status)
    {
        ulong before = await peer.AskValueAsync(FrontendRequest.GetStatus);
        await peer.RefusedAsync(FrontendRequest.SetStatus, WirePeer.Bytes(status));
        Assert.Equal(before, await peer.AskValueAsync(FrontendRequest.GetStatus));
    }
}
