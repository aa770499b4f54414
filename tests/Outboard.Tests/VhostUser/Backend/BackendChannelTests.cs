// The channel for the back-end's own requests: what is asked is answered in order, or fails; nobody waits for ever.
using Outboard.Linux.Sockets;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Backend;

[Collection(VhostUserCollection.Name)]
public sealed class BackendChannelTests : IAsyncLifetime
{
    private readonly BackendChannel _channel = new();
    private OpenThings _before;
    private WirePeer _peer = null!;

    public async ValueTask InitializeAsync()
    {
        _before = OpenThings.Count();
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
        _peer = new WirePeer(theirs);
        await _channel.ReplaceAsync(new SocketChannel(ours));
    }

    public async ValueTask DisposeAsync()
    {
        await _channel.DisposeAsync();
        _peer.Dispose();
        await _before.AssertNothingLeftAsync();
    }

    [Fact]
    public async Task Answers_reach_who_asked_in_order()
    {
        Task<VhostUserMessage> first = AskAsync(1);
        _channel.Post(BackendRequest.ConfigChangeMsg, []);
        Task<VhostUserMessage> second = AskAsync(2);
        Assert.Equal((WirePeer.NeedReply, 1UL), await NextAsync());
        Assert.Equal(WirePeer.NoReply, (await _peer.ReceiveAsync()).Flags);
        Assert.Equal((WirePeer.NeedReply, 2UL), await NextAsync());
        await ReplyAsync(11);
        await ReplyAsync(22);
        Assert.Equal(11UL, await ValueAsync(first));
        Assert.Equal(22UL, await ValueAsync(second));
    }

    [Fact]
    public async Task Question_without_an_answer_fails_when_the_channel_closes()
    {
        Task<VhostUserMessage> asking = AskAsync(1);
        await NextAsync();
        _peer.Shutdown();
        await Assert.ThrowsAnyAsync<IOException>(() => asking.WaitAsync(Eventually.Limit));
        await Assert.ThrowsAnyAsync<IOException>(() => AskAsync(2).WaitAsync(Eventually.Limit));
    }

    [Fact]
    public async Task Question_without_an_answer_fails_when_the_channel_is_replaced()
    {
        Task<VhostUserMessage> asking = AskAsync(1);
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
        await _channel.ReplaceAsync(new SocketChannel(ours));
        await Assert.ThrowsAnyAsync<IOException>(() => asking.WaitAsync(Eventually.Limit));
        _peer.Dispose();
        _peer = new WirePeer(theirs);
        Task<VhostUserMessage> again = AskAsync(3);
        await NextAsync();
        await ReplyAsync(0);
        Assert.Equal(0UL, await ValueAsync(again));
    }

    [Fact]
    public async Task Answer_to_another_request_fails_the_question()
    {
        Task<VhostUserMessage> asking = AskAsync(1);
        await NextAsync();
        byte[] reply = WirePeer.Frame((uint)BackendRequest.ShmemMap, WirePeer.ReplyFlags, WirePeer.Bytes(0UL));
        await _peer.SendAsync(reply);
        await Assert.ThrowsAnyAsync<IOException>(() => asking.WaitAsync(Eventually.Limit));
    }

    [Fact]
    public async Task What_answers_nothing_is_passed_over()
    {
        await ReplyAsync(5);
        await _peer.SendAsync(WirePeer.Frame(7, WirePeer.NoReply, [1, 2, 3]));
        Task<VhostUserMessage> asking = AskAsync(1);
        await NextAsync();
        await ReplyAsync(9);
        Assert.True(await ValueAsync(asking) is 9 or 5);
    }

    [Fact]
    public async Task Without_a_channel_a_question_fails_at_once()
    {
        await using BackendChannel none = new();
        Assert.False(none.IsOpen);
        none.Post(BackendRequest.ConfigChangeMsg, []);
        await Assert.ThrowsAnyAsync<IOException>(() => none.AskAsync(BackendRequest.IotlbMsg, new byte[32]));
    }

    private Task<VhostUserMessage> AskAsync(ulong mark) =>
        _channel.AskAsync(BackendRequest.IotlbMsg, [.. WirePeer.Bytes(mark), .. new byte[24]]);

    private async Task<(uint Flags, ulong Mark)> NextAsync()
    {
        WireMessage message = await _peer.ReceiveAsync();
        Assert.Equal((uint)BackendRequest.IotlbMsg, message.Request);
        return (message.Flags, message.Value);
    }

    private Task ReplyAsync(ulong value) => _peer.SendAsync(
        WirePeer.Frame((uint)BackendRequest.IotlbMsg, WirePeer.ReplyFlags, WirePeer.Bytes(value)));

    private static async Task<ulong> ValueAsync(Task<VhostUserMessage> asking)
    {
        using VhostUserMessage reply = await asking.WaitAsync(Eventually.Limit);
        return reply.Read<ulong>();
    }
}
