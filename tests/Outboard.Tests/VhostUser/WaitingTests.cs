// No wait on the peer blocks what answers the peer: either side may wait for a reply of the other one on one channel,
// or have every buffer full, and the other channel, the rings and the end of the connection go on.
using Outboard.Linux;
using Outboard.Memory;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class WaitingTests : BackendTest
{
    /// <summary>Replies that fill the socket's buffer: its default size holds a few hundred.</summary>
    private const int MoreThanFits = 3000;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private TalentedDevice Device => (TalentedDevice)Rig.Device;

    private protected override FakeDevice CreateDevice() => new TalentedDevice();

    [Fact]
    public async Task Front_end_that_waits_for_us_is_answered_while_we_wait_for_it()
    {
        (WirePeer peer, WirePeer channel) = await ConnectAsync();
        Task<SharedMemory?> asking = Device.Directory!.LookUpAsync(Guid.NewGuid());
        WireMessage question = await channel.ReceiveAsync();

        // As QEMU: nothing on the channel is answered before the reply on the main one has come.
        await peer.ExpectServedAsync();
        RawRing ring = new(Rig, Rig.Memory(), 0);
        await RawRing.AddMemoryAsync(peer, ring.Memory);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
        await ring.StopAsync(peer);
        await peer.DoBytesAsync(FrontendRequest.ResetDevice, []);
        Assert.False(asking.IsCompleted);
        await channel.SendAsync(WirePeer.Frame(question.Request, WirePeer.ReplyFlags, WirePeer.Bytes(1UL)));
        Assert.Null(await asking);
    }

    [Fact]
    public async Task Front_end_that_goes_away_while_we_wait_for_it_leaves_nothing()
    {
        (WirePeer peer, WirePeer channel) = await ConnectAsync();
        Task<SharedMemory?> asking = Device.Directory!.LookUpAsync(Guid.NewGuid());
        await channel.ReceiveAsync();
        peer.Dispose();
        Assert.Null(await asking.WaitAsync(Eventually.Limit, Token));
        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task Channel_that_is_full_and_never_read_is_replaced_at_once()
    {
        (WirePeer peer, _) = await ConnectAsync();
        ISharedObjectDirectory directory = Device.Directory!;
        Task<bool>[] questions =
            [.. Enumerable.Range(0, MoreThanFits).Select(_ => directory.AddAsync(Guid.NewGuid()))];
        await peer.ExpectServedAsync();
        await peer.DoBytesAsync(FrontendRequest.SetBackendReqFd, [], Rig.SocketPair().Passed);
        Assert.All(await Task.WhenAll(questions).WaitAsync(Eventually.Limit, Token), Assert.False);
    }

    [Fact]
    public async Task Full_buffers_both_ways_stop_neither_rings_nor_the_channel()
    {
        (WirePeer peer, WirePeer channel) = await ConnectAsync();
        RawRing ring = new(Rig, Rig.Memory(), 0);
        await RawRing.AddMemoryAsync(peer, ring.Memory);
        await ring.StartAsync(peer);
        Task flooding = FloodAsync(peer);
        for (byte i = 1; i < 50; i++)
        {
            await ring.RoundTripAsync(i);
        }

        Device.ChangeCapacity(9);
        Assert.Equal((uint)BackendRequest.ConfigChangeMsg, (await channel.ReceiveAsync()).Request);

        // The front-end reads at last: every answer is there, in order.
        for (int i = 0; i < MoreThanFits; i++)
        {
            Assert.Equal(4096, (await peer.ReplyAsync(FrontendRequest.GetConfig)).Length);
        }

        await flooding;
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task Front_end_that_never_reads_can_be_left()
    {
        (WirePeer peer, _) = await ConnectAsync();
        Task flooding = FloodAsync(peer);
        RawRing ring = new(Rig, Rig.Memory(), 0);
        await Task.Delay(20, Token);
        await Rig.EndAsync();
        peer.Shutdown();
        await Assert.ThrowsAnyAsync<Exception>(() => flooding);
        Assert.NotNull(ring);
    }

    [Fact]
    public async Task Back_end_that_floods_its_channel_does_not_hold_our_front_end()
    {
        await using Frontend.ScriptedBackend backend = new();
        await backend.NegotiateAsync();
        using CancellationTokenSource end = new();
        byte[] change = WirePeer.Frame((uint)BackendRequest.ConfigChangeMsg, WirePeer.NeedReply, []);
        Task flooding = Task.Run(
            async () =>
            {
                for (int i = 0; i < MoreThanFits; i++)
                {
                    await backend.BackendChannel!.SendAsync(change);
                }
            },
            Token);
        for (ulong i = 0; i < 20; i++)
        {
            Task<ulong> asking = backend.Frontend.GetFeaturesAsync(Token);
            await backend.AnswerAsync(FrontendRequest.GetFeatures, i);
            Assert.Equal(i, await asking);
        }

        await backend.Frontend.DisposeAsync();
        await Record.ExceptionAsync(() => flooding);
    }

    /// <summary>Asks without reading, until both buffers are full; then waits until they are read.</summary>
    private static async Task FloodAsync(WirePeer peer)
    {
        byte[] ask = [.. WirePeer.Bytes(new ConfigPayload(0, 4084, 0)), .. new byte[4084]];
        for (int i = 0; i < MoreThanFits; i++)
        {
            await peer.SendAsync(FrontendRequest.GetConfig, WirePeer.NoReply, ask);
        }
    }

    private async Task<(WirePeer Peer, WirePeer Channel)> ConnectAsync()
    {
        WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync(WirePeer.AllProtocolFeatures | ProtocolFeatures.SharedObject);
        (FileDescriptor passed, WirePeer kept) = Rig.SocketPair();
        await peer.DoBytesAsync(FrontendRequest.SetBackendReqFd, [], passed);
        passed.Dispose();
        return (peer, kept);
    }
}
