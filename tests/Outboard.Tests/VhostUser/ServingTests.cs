// How serving begins and ends: on a path, on a connected pair, when it is cancelled.
using Outboard.Linux;
using Outboard.Linux.Sockets;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class ServingTests : BackendTest
{
    [Fact]
    public async Task One_connection_is_served_on_a_pair_until_it_ends()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
        using WirePeer peer = new(theirs);
        FakeDevice device = new();
        Task serving = VhostUserBackend.ServeConnectionAsync(
            device, new SocketChannel(ours), cancellation: TestContext.Current.CancellationToken);
        await peer.ExpectServedAsync();
        Assert.False(serving.IsCompleted);
        peer.Dispose();
        await serving.WaitAsync(Eventually.Limit, TestContext.Current.CancellationToken);
        Assert.Equal(1, device.Resets);
    }

    [Fact]
    public async Task Cancelled_it_stops_rings_closes_the_connection_and_removes_the_socket()
    {
        BackendRig rig = new();
        await using (rig)
        {
            (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(rig);
            await ring.StartAsync(peer);
            await ring.RoundTripAsync();
            await rig.EndAsync();
            await peer.ExpectClosedAsync();
            ring.Put();
            ring.Kick.Signal();
            Assert.False(File.Exists(rig.SocketPath));
            Assert.False(ring.HasUsed());
        }
    }

    [Fact]
    public async Task Cancelled_with_requests_in_flight_it_waits_for_them()
    {
        BackendRig rig = new();
        await using (rig)
        {
            (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(rig);
            rig.Device.Holds = true;
            await ring.StartAsync(peer);
            ring.Submit();
            await Eventually.TrueAsync(() => rig.Device.Held == 1, "a held request");
            Task ending = rig.EndAsync();
            Assert.False(rig.HasEnded);
            rig.Device.CompleteHeld();
            await ending;
            Assert.True(ring.HasUsed());
        }
    }

    [Fact]
    public async Task Path_that_is_in_use_is_refused_and_its_server_undisturbed()
    {
        await Assert.ThrowsAsync<LinuxException>(() => VhostUserBackend.ServeAsync(
            new FakeDevice(), Rig.SocketPath, cancellation: TestContext.Current.CancellationToken));
        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task Withheld_features_are_not_offered_and_refused()
    {
        const ProtocolFeatures withheld = ProtocolFeatures.Config | ProtocolFeatures.ConfigureMemSlots;
        await using BackendRig rig = new(options => options with
        {
            WithheldFeatures = 1UL << 29,
            WithheldProtocolFeatures = withheld,
        });
        using WirePeer peer = await rig.ConnectAsync();
        Assert.Equal(0UL, await peer.AskValueAsync(FrontendRequest.GetFeatures) & (1UL << 29));
        Assert.Equal(
            (ulong)(WirePeer.OfferedProtocolFeatures & ~withheld),
            await peer.AskValueAsync(FrontendRequest.GetProtocolFeatures));
        await peer.NegotiateAsync(WirePeer.AllProtocolFeatures & ~withheld);
        await peer.RefusedAsync(FrontendRequest.SetFeatures, WirePeer.Bytes(WirePeer.Features | (1UL << 29)));
        await peer.RefusedAsync(
            FrontendRequest.SetProtocolFeatures, WirePeer.Bytes((ulong)WirePeer.AllProtocolFeatures));
    }
}
