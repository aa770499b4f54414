// What holds for every request: the table's policy, and one answer at most. A class for each request adds the rest.
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser;

/// <summary>Tests of one request.</summary>
public abstract class RequestTest : BackendTest
{
    private static readonly int[] s_sizes = [0, 1, 4, 7, 8, 9, 12, 16, 24, 39, 40, 41, 44, 4096];

    /// <summary>The request.</summary>
    protected abstract FrontendRequest Request { get; }

    /// <summary>Protocol features without which the request is refused.</summary>
    protected virtual ProtocolFeatures Gate => ProtocolFeatures.None;

    /// <summary>Most descriptors that may come with it.</summary>
    protected virtual int MaxDescriptors => 0;

    /// <summary>Whether it is answered without being asked to.</summary>
    protected virtual bool HasOwnReply => false;

    /// <summary>Descriptors that come with its reply.</summary>
    protected virtual int ReplyDescriptors => 0;

    /// <summary>A payload that is carried out after <see cref="PrepareAsync"/>.</summary>
    protected abstract byte[] GoodPayload { get; }

    /// <summary>Descriptors for <see cref="GoodPayload"/>.</summary>
    private protected virtual FileDescriptor[] GoodDescriptors() => [];

    /// <summary>Whether a payload of that many bytes is well-formed.</summary>
    protected virtual bool IsSizeAllowed(int bytes) => bytes == GoodPayload.Length;

    /// <summary>Brings a connection to where the request is in place.</summary>
    private protected virtual Task PrepareAsync(WirePeer peer) => peer.NegotiateAsync();

    [Fact]
    public async Task Payload_of_another_size_is_refused()
    {
        foreach (int size in s_sizes.Where(size => !IsSizeAllowed(size)))
        {
            byte[] payload = new byte[size];
            GoodPayload.AsSpan(0, Math.Min(size, GoodPayload.Length)).CopyTo(payload);
            await ExpectRefusedAsync(payload, GoodDescriptors());
        }
    }

    [Fact]
    public async Task Descriptors_that_do_not_belong_are_refused_and_closed()
    {
        FileDescriptor extra = Rig.Event().Descriptor;
        await ExpectRefusedAsync(GoodPayload, [.. Enumerable.Repeat(extra, MaxDescriptors + 1)]);
        await ExpectRefusedAsync(GoodPayload, [.. Enumerable.Repeat(extra, 32)]);
    }

    [Fact]
    public async Task Without_its_feature_it_is_refused()
    {
        if (Gate == ProtocolFeatures.None)
        {
            return;
        }

        using (WirePeer peer = await Rig.ConnectAsync())
        {
            await peer.NegotiateAsync(WirePeer.AllProtocolFeatures & ~Gate);
            await ExpectRefusalAsync(peer, GoodPayload, GoodDescriptors());
        }

        using (WirePeer fresh = await Rig.ConnectAsync())
        {
            await fresh.SendAsync(Request, WirePeer.NeedReply, GoodPayload, GoodDescriptors());
            await ExpectFailureOrCloseAsync(fresh);
        }

        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task A_reply_where_a_request_is_due_closes_the_connection()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.SendAsync(Request, WirePeer.NeedReply | 4, GoodPayload, GoodDescriptors());
        await peer.ExpectClosedAsync();
        await Rig.ExpectServesNextAsync();
    }

    [Theory]
    [InlineData(0)]
    [InlineData(2)]
    [InlineData(3)]
    public async Task Another_version_closes_the_connection(uint version)
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.SendAsync(Request, version | 8, GoodPayload, GoodDescriptors());
        await peer.ExpectClosedAsync();
        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task Good_request_is_answered_once_when_it_asks()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.SendAsync(Request, WirePeer.NeedReply, GoodPayload, GoodDescriptors());
        byte[] reply = await ReplyAsync(peer);
        if (!HasOwnReply)
        {
            Assert.Equal(WirePeer.Bytes(0UL), reply);
        }

        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task Good_request_that_does_not_ask_has_only_its_own_reply()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.SendAsync(Request, WirePeer.NoReply, GoodPayload, GoodDescriptors());
        if (HasOwnReply)
        {
            await ReplyAsync(peer);
        }

        await peer.ExpectServedAsync();
    }

    private protected async Task<WirePeer> ConnectPreparedAsync()
    {
        WirePeer peer = await Rig.ConnectAsync();
        await PrepareAsync(peer);
        return peer;
    }

    /// <summary>
    /// Expects a refusal of this message: a number that is not zero when it asks, the end of the connection when not. A
    /// request with a reply of its own is answered by the reply that tells a failure; where there is none, the
    /// connection ends. The next connection is served.
    /// </summary>
    private protected async Task ExpectRefusedAsync(byte[] payload, params FileDescriptor[] descriptors)
    {
        using (WirePeer asking = await ConnectPreparedAsync())
        {
            await ExpectRefusalAsync(asking, payload, descriptors);
        }

        using (WirePeer silent = await ConnectPreparedAsync())
        {
            await silent.SendAsync(Request, WirePeer.NoReply, payload, descriptors);
            await ExpectFailureOrCloseAsync(silent);
        }

        await Rig.ExpectServesNextAsync();
    }

    private async Task ExpectFailureOrCloseAsync(WirePeer peer)
    {
        if (HasOwnReply && FailureReplies.Of(Request) is { } failure)
        {
            Assert.Equal(failure, await peer.ReplyAsync(Request));
            await peer.ExpectServedAsync();
        }
        else
        {
            await peer.ExpectClosedAsync();
        }
    }

    private async Task<byte[]> ReplyAsync(WirePeer peer)
    {
        WireMessage reply = await peer.ReplyWithAsync(Request, ReplyDescriptors);
        foreach (FileDescriptor descriptor in reply.Descriptors)
        {
            descriptor.Dispose();
        }

        return reply.Payload;
    }

    private async Task ExpectRefusalAsync(WirePeer peer, byte[] payload, FileDescriptor[] descriptors)
    {
        if (HasOwnReply)
        {
            await peer.SendAsync(Request, WirePeer.NeedReply, payload, descriptors);
            await ExpectFailureOrCloseAsync(peer);
        }
        else
        {
            await peer.RefusedAsync(Request, payload, descriptors);
            await peer.ExpectServedAsync();
        }
    }
}
