// Requests that the back-end sends by itself, on its own channel; numbers that are none are refused there.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Frontend;

[Collection(VhostUserCollection.Name)]
public sealed class BackendRequestTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    public static TheoryData<uint> Unsupported => [0, 11, 1002, uint.MaxValue];

    [Theory]
    [InlineData(WirePeer.NoReply)]
    [InlineData(WirePeer.NeedReply)]
    public async Task Config_change_is_told_and_acknowledged_when_it_asks(uint flags)
    {
        await using ScriptedBackend backend = new();
        await backend.NegotiateAsync();
        TaskCompletionSource told = new();
        backend.Frontend.ConfigChanged += told.SetResult;
        await SendAsync(backend, (uint)BackendRequest.ConfigChangeMsg, flags, []);
        await told.Task.WaitAsync(Eventually.Limit, Token);
        if (flags == WirePeer.NeedReply)
        {
            await ExpectStatusAsync(backend, (uint)BackendRequest.ConfigChangeMsg, isServed: true);
        }
    }

    [Theory]
    [MemberData(nameof(Unsupported))]
    public async Task Unsupported_request_is_answered_with_a_refusal(uint request)
    {
        await using ScriptedBackend backend = new();
        await backend.NegotiateAsync();
        await SendAsync(backend, request, WirePeer.NeedReply, new byte[40]);
        await ExpectStatusAsync(backend, request, isServed: false);
        await SendAsync(backend, request, WirePeer.NoReply, new byte[40]);
        await SendAsync(backend, (uint)BackendRequest.ConfigChangeMsg, WirePeer.NeedReply, []);
        await ExpectStatusAsync(backend, (uint)BackendRequest.ConfigChangeMsg, isServed: true);
    }

    [Fact]
    public async Task Config_change_of_another_size_is_refused()
    {
        await using ScriptedBackend backend = new();
        await backend.NegotiateAsync();
        backend.Frontend.ConfigChanged += () => Assert.Fail("refused, and told all the same");
        await SendAsync(backend, (uint)BackendRequest.ConfigChangeMsg, WirePeer.NeedReply, new byte[8]);
        await ExpectStatusAsync(backend, (uint)BackendRequest.ConfigChangeMsg, isServed: false);
    }

    [Fact]
    public async Task Config_change_without_the_feature_is_refused()
    {
        await using ScriptedBackend backend = new();
        await backend.NegotiateAsync(WirePeer.AllProtocolFeatures & ~ProtocolFeatures.Config);
        await SendAsync(backend, (uint)BackendRequest.ConfigChangeMsg, WirePeer.NeedReply, []);
        await ExpectStatusAsync(backend, (uint)BackendRequest.ConfigChangeMsg, isServed: false);
    }

    [Fact]
    public async Task Listener_that_throws_is_heard_of_at_the_end_and_the_main_channel_serves()
    {
        await using ScriptedBackend backend = new();
        await backend.NegotiateAsync();
        TaskCompletionSource told = new();
        backend.Frontend.ConfigChanged += () =>
        {
            told.SetResult();
            throw new InvalidOperationException("the listener broke");
        };
        await SendAsync(backend, (uint)BackendRequest.ConfigChangeMsg, WirePeer.NoReply, []);
        await told.Task.WaitAsync(Eventually.Limit, Token);
        await ExpectMainChannelServesAsync(backend);
        await Assert.ThrowsAsync<InvalidOperationException>(async () => await backend.Frontend.DisposeAsync());
        await backend.Wire.ExpectClosedAsync();
    }

    [Fact]
    public async Task Garbage_closes_the_channel_and_leaves_the_main_one_alone()
    {
        await using ScriptedBackend backend = new();
        await backend.NegotiateAsync();
        await backend.BackendChannel!.SendAsync([.. Enumerable.Repeat((byte)0xFF, 12)]);
        await backend.BackendChannel.ExpectClosedAsync();
        await ExpectMainChannelServesAsync(backend);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(7)]
    public async Task Channel_that_the_back_end_closes_leaves_the_main_one_alone(int bytes)
    {
        await using ScriptedBackend backend = new();
        await backend.NegotiateAsync();
        await backend.BackendChannel!.SendAsync(new byte[bytes]);
        backend.BackendChannel.Dispose();
        await ExpectMainChannelServesAsync(backend);
    }

    [Fact]
    public async Task Our_back_end_tells_our_front_end()
    {
        await using BackendRig rig = new();
        await using Outboard.VhostUser.Frontend.VhostUserFrontend frontend = await rig.ConnectFrontendAsync();
        using SemaphoreSlim told = new(0);
        frontend.ConfigChanged += () => told.Release();
        for (ulong i = 1; i <= 10; i++)
        {
            rig.Device.ChangeCapacity(i);
            Assert.True(await told.WaitAsync(Eventually.Limit, Token));
            byte[] capacity = await frontend.GetConfigAsync(0, 8, Token);
            Assert.Equal(WirePeer.Bytes(i), capacity);
        }
    }

    private static Task SendAsync(ScriptedBackend backend, uint request, uint flags, byte[] payload) =>
        backend.BackendChannel!.SendAsync(WirePeer.Frame(request, flags, payload));

    private static async Task ExpectStatusAsync(ScriptedBackend backend, uint request, bool isServed)
    {
        WireMessage reply = await backend.BackendChannel!.ReceiveAsync();
        Assert.Equal(request, reply.Request);
        Assert.Equal(WirePeer.ReplyFlags, reply.Flags);
        Assert.Equal(sizeof(ulong), reply.Payload.Length);
        Assert.Equal(isServed, reply.Value == 0);
    }

    private static async Task ExpectMainChannelServesAsync(ScriptedBackend backend)
    {
        Task<ulong> asking = backend.Frontend.GetQueueNumAsync(Token);
        await backend.AnswerAsync(FrontendRequest.GetQueueNum, 3);
        Assert.Equal(3UL, await asking);
    }
}
