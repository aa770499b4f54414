// VRING_KICK: kicks as messages, and calls and errors as messages the other way, for front-ends that simulate time.
using System.Buffers.Binary;
using Outboard.Linux;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class VringKickTests : RequestTest
{
    private const ProtocolFeatures Features = WirePeer.AllProtocolFeatures | ProtocolFeatures.InbandNotifications;

    protected override FrontendRequest Request => FrontendRequest.VringKick;

    protected override ProtocolFeatures Gate => ProtocolFeatures.InbandNotifications;

    protected override byte[] GoodPayload => State(0, 0);

    private protected override VhostUserBackendOptions Configure(VhostUserBackendOptions options) =>
        options with { AdditionalProtocolFeatures = ProtocolFeatures.InbandNotifications };

    private protected override async Task PrepareAsync(WirePeer peer)
    {
        await peer.NegotiateAsync(WirePeer.AllProtocolFeatures | Gate);
        RawRing ring = new(Rig, Rig.Memory(), 0);
        await SetUpAsync(peer, ring);
    }

    [Theory]
    [InlineData(0, 1)]
    [InlineData(1, 0)]
    [InlineData(3, 0)]
    [InlineData(uint.MaxValue, 0)]
    public Task Ring_that_is_not_set_up_and_a_number_are_refused(uint index, uint num) =>
        ExpectRefusedAsync(State(index, num));

    [Theory]
    [InlineData(ProtocolFeatures.BackendReq)]
    [InlineData(ProtocolFeatures.ReplyAck)]
    [InlineData(ProtocolFeatures.BackendReq | ProtocolFeatures.ReplyAck)]
    public async Task Without_what_it_needs_the_connection_ends(ProtocolFeatures missing)
    {
        using (WirePeer peer = await Rig.ConnectAsync())
        {
            await peer.SendAsync(
                FrontendRequest.SetProtocolFeatures, WirePeer.NeedReply, WirePeer.Bytes((ulong)(Features & ~missing)));
            await peer.ExpectClosedAsync();
        }

        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task Ring_without_descriptors_runs_by_messages()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        (RawRing ring, WirePeer channel) = await StartWithChannelAsync(peer);
        for (byte i = 1; i < 20; i++)
        {
            // A worker that is still looking needs no message; one too many does no harm.
            await KickAsync(peer, ring, i);
            await AnswerAsync(channel, BackendRequest.VringCall, 0);
        }

        Assert.Equal(19U, await ring.StopAsync(peer));
    }

    [Fact]
    public async Task Ring_is_not_polled_while_it_waits_for_a_message()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync(Features);
        RawRing ring = new(Rig, Rig.Memory(), 0);
        await SetUpAsync(peer, ring);
        await ring.PolledAsync(peer);
        ring.Put(1);
        await peer.ExpectServedAsync();
        Assert.Equal(0, Rig.Device.Handled);
        await ring.EnableAsync(peer);
        await ring.ExpectEchoAsync(1);
        await Eventually.TrueAsync(() => ring.Ring.ShouldKick() || ring.Ring.FreeDescriptors > 0, "an idle ring");
    }

    [Fact]
    public async Task Calls_that_nobody_answers_become_one_more()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        (RawRing ring, WirePeer channel) = await StartWithChannelAsync(peer);
        for (byte i = 1; i < 10; i++)
        {
            await KickAsync(peer, ring, i);
        }

        await AnswerAsync(channel, BackendRequest.VringCall, 0);
        await AnswerAsync(channel, BackendRequest.VringCall, 0);
        await peer.ExpectServedAsync();
        peer.Dispose();
        await channel.ExpectClosedAsync();
    }

    [Fact]
    public async Task Descriptor_that_is_given_wins_over_messages()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync(Features);
        WirePeer channel = await OpenChannelAsync(peer);
        RawRing ring = new(Rig, Rig.Memory(), 0);
        await RawRing.AddMemoryAsync(peer, ring.Memory);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync(1);
        await peer.DoBytesAsync(Request, State(0, 0));
        await Eventually.TrueAsync(() => ring.Call.Take() != 0, "the call descriptor");
        peer.Dispose();
        await channel.ExpectClosedAsync();
    }

    [Fact]
    public async Task Broken_ring_is_told_by_a_message()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        (RawRing ring, WirePeer channel) = await StartWithChannelAsync(peer);
        await RawRing.RemoveMemoryAsync(peer, ring.Memory);
        await AnswerAsync(channel, BackendRequest.VringErr, 0);
    }

    [Fact]
    public async Task Ring_runs_without_a_channel_and_nobody_is_called()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync(Features);
        RawRing ring = new(Rig, Rig.Memory(), 0);
        await SetUpAsync(peer, ring);
        await ring.EnableAsync(peer);
        await KickAsync(peer, ring, 1);
    }

    private static byte[] State(uint index, uint num) => WirePeer.Bytes(new VringStatePayload(index, num));

    /// <summary>As User Mode Linux does: no message for notifiers at all.</summary>
    private static async Task SetUpAsync(WirePeer peer, RawRing ring)
    {
        await RawRing.AddMemoryAsync(peer, ring.Memory);
        await ring.NumAsync(peer);
        await ring.BaseAsync(peer);
        await ring.AddrAsync(peer);
    }

    /// <summary>A ring that is enabled, and the channel by which its back-end calls.</summary>
    private async Task<(RawRing Ring, WirePeer Channel)> StartWithChannelAsync(WirePeer peer)
    {
        await peer.NegotiateAsync(Features);
        WirePeer channel = await OpenChannelAsync(peer);
        RawRing ring = new(Rig, Rig.Memory(), 0);
        await SetUpAsync(peer, ring);
        await ring.EnableAsync(peer);
        return (ring, channel);
    }

    /// <summary>One request, kicked by a message.</summary>
    private static async Task KickAsync(WirePeer peer, RawRing ring, byte value)
    {
        ring.Put(value);
        await peer.DoBytesAsync(FrontendRequest.VringKick, State(0, 0));
        await ring.ExpectEchoAsync(value);
    }

    private static async Task AnswerAsync(WirePeer channel, BackendRequest request, uint index)
    {
        WireMessage told = await channel.ReceiveAsync();
        Assert.Equal((uint)request, told.Request);
        Assert.Equal(WirePeer.NeedReply, told.Flags);
        Assert.Equal(index, BinaryPrimitives.ReadUInt32LittleEndian(told.Payload));
        await channel.SendAsync(WirePeer.Frame(told.Request, WirePeer.ReplyFlags, WirePeer.Bytes(0UL)));
    }

    private async Task<WirePeer> OpenChannelAsync(WirePeer peer)
    {
        (FileDescriptor passed, WirePeer kept) = Rig.SocketPair();
        await peer.DoBytesAsync(FrontendRequest.SetBackendReqFd, [], passed);
        passed.Dispose();
        return kept;
    }
}
