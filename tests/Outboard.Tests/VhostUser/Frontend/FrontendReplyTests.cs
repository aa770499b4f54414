// What our front-end makes of answers, right and wrong.
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Frontend;

[Collection(VhostUserCollection.Name)]
public sealed class FrontendReplyTests
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Refused_request_is_named_and_the_connection_goes_on()
    {
        await using ScriptedBackend backend = new();
        await backend.NegotiateAsync();
        Task asking = backend.Frontend.SetVringNumAsync(0, 64, Token);
        await backend.AnswerAsync(FrontendRequest.SetVringNum, 22);
        ProtocolException refusal = await Assert.ThrowsAsync<ProtocolException>(() => asking);
        Assert.Equal("SET_VRING_NUM", refusal.Request);
        Assert.Contains("22", refusal.Message, StringComparison.Ordinal);
        Assert.False(refusal.IsFatal);

        Task<ulong> next = backend.Frontend.GetQueueNumAsync(Token);
        await backend.AnswerAsync(FrontendRequest.GetQueueNum, 3);
        Assert.Equal(3UL, await next);
    }

    [Theory]
    [InlineData(FrontendRequest.GetQueueNum, 5U)]
    [InlineData(FrontendRequest.GetFeatures, 1U)]
    [InlineData(FrontendRequest.GetFeatures, 9U)]
    [InlineData(FrontendRequest.GetFeatures, 6U)]
    [InlineData(FrontendRequest.GetFeatures, 4U)]
    [InlineData((FrontendRequest)1000, 5U)]
    public async Task Another_number_or_other_flags_end_the_connection(FrontendRequest request, uint flags)
    {
        await using ScriptedBackend backend = new();
        Task<ulong> asking = backend.Frontend.GetFeaturesAsync(Token);
        await backend.ExpectAsync(FrontendRequest.GetFeatures);
        await backend.ReplyAsync(request, WirePeer.Bytes(0UL), flags);
        ProtocolException error = await Assert.ThrowsAsync<ProtocolException>(() => asking);
        Assert.True(error.IsFatal);
        await ExpectDeadAsync(backend);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(4)]
    [InlineData(7)]
    [InlineData(9)]
    [InlineData(16)]
    [InlineData(4096)]
    public async Task Number_of_another_size_ends_the_connection(int size)
    {
        await using ScriptedBackend backend = new();
        Task<ulong> asking = backend.Frontend.GetFeaturesAsync(Token);
        await backend.ExpectAsync(FrontendRequest.GetFeatures);
        await backend.ReplyAsync(FrontendRequest.GetFeatures, new byte[size]);
        ProtocolException error = await Assert.ThrowsAsync<ProtocolException>(() => asking);
        Assert.Equal("GET_FEATURES", error.Request);
        Assert.Equal("size", error.Field);
        await ExpectDeadAsync(backend);
    }

    [Fact]
    public async Task Acknowledgement_of_another_size_ends_the_connection()
    {
        await using ScriptedBackend backend = new();
        await backend.NegotiateAsync();
        Task asking = backend.Frontend.SetVringNumAsync(0, 64, Token);
        await backend.ExpectAsync(FrontendRequest.SetVringNum);
        await backend.ReplyAsync(FrontendRequest.SetVringNum, new byte[4]);
        ProtocolException error = await Assert.ThrowsAsync<ProtocolException>(() => asking);
        Assert.Equal("SET_VRING_NUM", error.Request);
        await ExpectDeadAsync(backend);
    }

    [Theory]
    [InlineData(4)]
    [InlineData(12)]
    public async Task Ring_base_of_another_size_ends_the_connection(int size)
    {
        await using ScriptedBackend backend = new();
        Task<uint> asking = backend.Frontend.GetVringBaseAsync(1, Token);
        await backend.ExpectAsync(FrontendRequest.GetVringBase);
        await backend.ReplyAsync(FrontendRequest.GetVringBase, new byte[size]);
        ProtocolException error = await Assert.ThrowsAsync<ProtocolException>(() => asking);
        Assert.Equal("GET_VRING_BASE", error.Request);
    }

    [Theory]
    [InlineData(0U, 7U)]
    [InlineData(1U, 0x10000U)]
    public async Task Ring_base_of_another_ring_or_out_of_range_ends_the_connection(uint index, uint num)
    {
        await using ScriptedBackend backend = new();
        Task<uint> asking = backend.Frontend.GetVringBaseAsync(1, Token);
        await backend.ExpectAsync(FrontendRequest.GetVringBase);
        await backend.ReplyAsync(FrontendRequest.GetVringBase, WirePeer.Bytes(new VringStatePayload(index, num)));
        ProtocolException error = await Assert.ThrowsAsync<ProtocolException>(() => asking);
        Assert.Equal("GET_VRING_BASE", error.Request);
        await ExpectDeadAsync(backend);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(12)]
    [InlineData(21)]
    public async Task Configuration_of_another_size_is_a_refusal(int size)
    {
        await using ScriptedBackend backend = new();
        await backend.NegotiateAsync();
        Task<byte[]> asking = backend.Frontend.GetConfigAsync(0, 8, Token);
        await backend.ExpectAsync(FrontendRequest.GetConfig);
        await backend.ReplyAsync(FrontendRequest.GetConfig, new byte[size]);
        ProtocolException error = await Assert.ThrowsAsync<ProtocolException>(() => asking);
        Assert.Equal("GET_CONFIG", error.Request);
        Task<ulong> next = backend.Frontend.GetQueueNumAsync(Token);
        await backend.AnswerAsync(FrontendRequest.GetQueueNum, 3);
        Assert.Equal(3UL, await next);
    }

    [Theory]
    [InlineData(1UL << 31)]
    [InlineData(ulong.MaxValue)]
    public async Task Absurd_number_of_queues_is_refused(ulong queues)
    {
        await using ScriptedBackend backend = new();
        Task negotiating = backend.Frontend.NegotiateAsync(Token);
        await backend.AnswerAsync(FrontendRequest.GetFeatures, ScriptedBackend.Features);
        await backend.AnswerAsync(FrontendRequest.GetProtocolFeatures, (ulong)ProtocolFeatures.MultiQueue);
        await backend.ExpectAsync(FrontendRequest.SetProtocolFeatures);
        await backend.ExpectAsync(FrontendRequest.SetOwner);
        await backend.AnswerAsync(FrontendRequest.GetQueueNum, queues);
        ProtocolException error = await Assert.ThrowsAsync<ProtocolException>(() => negotiating);
        Assert.Equal("GET_QUEUE_NUM", error.Request);
    }

    [Fact]
    public async Task Silence_runs_into_the_time_limit_and_a_late_answer_is_never_taken_for_another()
    {
        await using ScriptedBackend backend = new(TimeSpan.FromMilliseconds(50));
        ProtocolException error =
            await Assert.ThrowsAsync<ProtocolException>(() => backend.Frontend.GetFeaturesAsync(Token));
        Assert.Equal("GET_FEATURES", error.Request);
        Assert.True(error.IsFatal);
        await backend.ExpectAsync(FrontendRequest.GetFeatures);
        await ExpectDeadAsync(backend);
    }

    [Fact]
    public async Task Answer_that_is_not_waited_for_is_never_taken_for_another()
    {
        await using ScriptedBackend backend = new();
        using CancellationTokenSource impatience = new();
        Task<ulong> asking = backend.Frontend.GetFeaturesAsync(impatience.Token);
        await backend.ExpectAsync(FrontendRequest.GetFeatures);
        await impatience.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => asking);
        await ExpectDeadAsync(backend);
    }

    [Fact]
    public async Task Request_that_is_cancelled_before_it_is_sent_harms_nothing()
    {
        await using ScriptedBackend backend = new();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(
            () => backend.Frontend.GetFeaturesAsync(new CancellationToken(canceled: true)));
        Task<ulong> next = backend.Frontend.GetFeaturesAsync(Token);
        await backend.AnswerAsync(FrontendRequest.GetFeatures, 3);
        Assert.Equal(3UL, await next);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(5)]
    [InlineData(19)]
    public async Task Connection_that_ends_where_an_answer_is_due_is_an_error(int bytes)
    {
        await using ScriptedBackend backend = new();
        Task<ulong> asking = backend.Frontend.GetFeaturesAsync(Token);
        await backend.ExpectAsync(FrontendRequest.GetFeatures);
        await backend.Wire.SendAsync(WirePeer.Frame(1, 5, new byte[8])[..bytes]);
        backend.Wire.Shutdown();
        ProtocolException error = await Assert.ThrowsAsync<ProtocolException>(() => asking);
        Assert.True(error.IsFatal);
        await ExpectDeadAsync(backend);
    }

    [Fact]
    public async Task Requests_of_many_callers_do_not_mix()
    {
        await using ScriptedBackend backend = new();
        Task<ulong>[] asking =
            [.. Enumerable.Range(0, 20).Select(i => i % 2 == 0
                ? backend.Frontend.GetFeaturesAsync(Token)
                : backend.Frontend.GetMaxMemSlotsAsync(Token))];
        for (int i = 0; i < asking.Length; i++)
        {
            WireMessage request = await backend.Wire.ReceiveAsync();
            await backend.ReplyAsync((FrontendRequest)request.Request, WirePeer.Bytes((ulong)request.Request));
        }

        ulong[] answers = await Task.WhenAll(asking);
        Assert.Equal(10, answers.Count(answer => answer == (ulong)FrontendRequest.GetFeatures));
    }

    [Fact]
    public async Task Back_end_without_protocol_features_is_spoken_to_without_acknowledgements()
    {
        await using ScriptedBackend backend = new();
        Task negotiating = backend.Frontend.NegotiateAsync(Token);
        await backend.AnswerAsync(FrontendRequest.GetFeatures, VirtioFeatures.Version1);
        await backend.AcknowledgeAsync(FrontendRequest.SetOwner, acknowledges: false);
        WireMessage features = await backend.AcknowledgeAsync(FrontendRequest.SetFeatures, acknowledges: false);
        Assert.Equal(VirtioFeatures.Version1, features.Value);
        await negotiating;
        Assert.Equal(0, backend.Frontend.QueueCount);
    }

    [Fact]
    public async Task Only_known_protocol_features_are_accepted()
    {
        await using ScriptedBackend backend = new();
        Task negotiating = backend.Frontend.NegotiateAsync(Token);
        await backend.AnswerAsync(FrontendRequest.GetFeatures, ScriptedBackend.Features);
        await backend.AnswerAsync(
            FrontendRequest.GetProtocolFeatures, ulong.MaxValue & ~(ulong)ProtocolFeatures.BackendReq);
        WireMessage accepted = await backend.ExpectAsync(FrontendRequest.SetProtocolFeatures);
        ProtocolFeatures known = new VhostUserFrontendOptions().ProtocolFeatures;
        Assert.Equal((ulong)(known & ~ProtocolFeatures.BackendReq), accepted.Value);
        await backend.AcknowledgeAsync(FrontendRequest.SetOwner);
        await backend.AnswerAsync(FrontendRequest.GetQueueNum, 1);
        await backend.ExpectAsync(FrontendRequest.GetShmemConfig);
        await backend.ReplyAsync(FrontendRequest.GetShmemConfig, ScriptedBackend.ShmemConfig());
        await backend.AcknowledgeAsync(FrontendRequest.SetFeatures);
        await negotiating;
    }

    /// <summary>After a broken exchange nothing is sent any more: what comes could be an answer to anything.</summary>
    private static async Task ExpectDeadAsync(ScriptedBackend backend)
    {
        VhostUserFrontend frontend = backend.Frontend;
        ProtocolException error = await Assert.ThrowsAsync<ProtocolException>(() => frontend.GetFeaturesAsync(Token));
        Assert.True(error.IsFatal);
        await backend.Wire.ExpectClosedAsync();
    }
}
