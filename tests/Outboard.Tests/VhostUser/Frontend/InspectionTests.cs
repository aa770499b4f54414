// Asking a back-end what it offers: everything that it offers and nothing that it does not; refusals end nothing.
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Frontend;

public sealed class InspectionTests : BackendTest
{
    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Our_back_end_tells_everything()
    {
        BackendOffer offer = await VhostUserFrontend.InspectAsync(Rig.SocketPath, VirtioDeviceId.Socket, null, Token);
        Assert.Equal(FakeDevice.OwnFeatures, offer.Features & 0xFFFFFF);
        Assert.Equal(3UL, offer.QueueCount);
        Assert.Equal(509UL, offer.MemorySlots);
        Assert.Equal(8, offer.Config!.Length);
        Assert.False(offer.IsDeviceGuessed);
        Assert.Empty(offer.Problems);
        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task Back_end_without_protocol_features_is_asked_one_question()
    {
        await using ScriptedBackend backend = new();
        Task<BackendOffer> asking = backend.Frontend.InspectAsync(VirtioDeviceId.Block, Token);
        await backend.AnswerAsync(FrontendRequest.GetFeatures, VirtioFeatures.Version1);
        BackendOffer offer = await asking;
        Assert.Null(offer.ProtocolFeatures);
        Assert.Null(offer.QueueCount);
    }

    [Fact]
    public async Task Only_what_was_offered_is_asked()
    {
        await using ScriptedBackend backend = new();
        Task<BackendOffer> asking = backend.Frontend.InspectAsync(VirtioDeviceId.Block, Token);
        await backend.AnswerAsync(FrontendRequest.GetFeatures, ScriptedBackend.Features);
        const ProtocolFeatures offered = ProtocolFeatures.ReplyAck | ProtocolFeatures.MultiQueue
            | ProtocolFeatures.XenMmap | ProtocolFeatures.InbandNotifications | ProtocolFeatures.PageFault;
        await backend.AnswerAsync(FrontendRequest.GetProtocolFeatures, (ulong)offered);
        WireMessage set = await backend.ExpectAsync(FrontendRequest.SetProtocolFeatures);
        Assert.Equal((ulong)ProtocolFeatures.MultiQueue, set.Value);
        Assert.Equal(WirePeer.NoReply, set.Flags);
        await backend.AnswerAsync(FrontendRequest.GetQueueNum, 4);
        BackendOffer offer = await asking;
        Assert.Equal(offered, offer.ProtocolFeatures);
        Assert.Equal(4UL, offer.QueueCount);
        Assert.Null(offer.MemorySlots);
        Assert.Null(offer.Config);
    }

    [Fact]
    public async Task Configuration_is_asked_as_far_as_its_fields_mean_something()
    {
        await using ScriptedBackend backend = new();
        Task<BackendOffer> asking = backend.Frontend.InspectAsync(null, Token);
        await backend.AnswerAsync(
            FrontendRequest.GetFeatures, ScriptedBackend.Features | BlockFeatures.SegMax | BlockFeatures.Discard
            | BlockFeatures.BlockSize);
        await backend.AnswerAsync(FrontendRequest.GetProtocolFeatures, (ulong)ProtocolFeatures.Config);
        await backend.ExpectAsync(FrontendRequest.SetProtocolFeatures);
        WireMessage asked = await backend.ExpectAsync(FrontendRequest.GetConfig);
        Assert.Equal(12 + 48, asked.Payload.Length);
        await backend.ReplyAsync(FrontendRequest.GetConfig, asked.Payload);
        BackendOffer offer = await asking;
        Assert.Equal(VirtioDeviceId.Block, offer.Device);
        Assert.True(offer.IsDeviceGuessed);
        Assert.Equal(48, offer.Config!.Length);
    }

    [Theory]
    [InlineData(0)]
    [InlineData(12)]
    public async Task Refused_configuration_is_a_problem_and_no_failure(int replyBytes)
    {
        await using ScriptedBackend backend = new();
        Task<BackendOffer> asking = backend.Frontend.InspectAsync(VirtioDeviceId.Socket, Token);
        await AnswerUpToAsync(backend, ProtocolFeatures.Config | ProtocolFeatures.ConfigureMemSlots);
        await backend.AnswerAsync(FrontendRequest.GetMaxMemSlots, 8);
        await backend.ExpectAsync(FrontendRequest.GetConfig);
        await backend.ReplyAsync(FrontendRequest.GetConfig, new byte[replyBytes]);
        BackendOffer offer = await asking;
        Assert.Equal(8UL, offer.MemorySlots);
        Assert.Null(offer.Config);
        Assert.Contains("GET_CONFIG", Assert.Single(offer.Problems), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Back_end_that_closes_in_between_is_told_as_far_as_it_came()
    {
        await using ScriptedBackend backend = new();
        Task<BackendOffer> asking = backend.Frontend.InspectAsync(VirtioDeviceId.Socket, Token);
        await AnswerUpToAsync(
            backend, ProtocolFeatures.Config | ProtocolFeatures.ConfigureMemSlots | ProtocolFeatures.Shmem);
        await backend.ExpectAsync(FrontendRequest.GetMaxMemSlots);
        backend.Wire.Shutdown();
        BackendOffer offer = await asking;
        Assert.Contains("GET_MAX_MEM_SLOTS", Assert.Single(offer.Problems), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Shared_memory_regions_are_told_by_their_number()
    {
        await using ScriptedBackend backend = new();
        Task<BackendOffer> asking = backend.Frontend.InspectAsync(null, Token);
        await AnswerUpToAsync(backend, ProtocolFeatures.Shmem);
        await backend.ExpectAsync(FrontendRequest.GetShmemConfig);
        byte[] reply = new byte[2056];
        reply[0] = 1;
        BitConverter.TryWriteBytes(reply.AsSpan(8 + (3 * 8)), 0x10000UL);
        await backend.ReplyAsync(FrontendRequest.GetShmemConfig, reply);
        Assert.Equal([new(3, 0x10000UL)], (await asking).SharedMemory!);
    }

    private static async Task AnswerUpToAsync(ScriptedBackend backend, ProtocolFeatures offered)
    {
        await backend.AnswerAsync(FrontendRequest.GetFeatures, ScriptedBackend.Features);
        await backend.AnswerAsync(FrontendRequest.GetProtocolFeatures, (ulong)offered);
        await backend.ExpectAsync(FrontendRequest.SetProtocolFeatures);
    }
}
