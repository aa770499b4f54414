// A back-end that answers as a test tells it, right or wrong.
using Outboard.Linux.Sockets;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Frontend;

/// <summary>Our front-end, and the raw peer that plays its back-end.</summary>
internal sealed class ScriptedBackend : IAsyncDisposable
{
    public const ulong Features = VirtioFeatures.Version1 | VirtioFeatures.ProtocolFeatures;

    public ScriptedBackend(TimeSpan? timeout = null)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
        Wire = new WirePeer(theirs);
        Frontend = new VhostUserFrontend(
            new SocketChannel(ours), new VhostUserFrontendOptions { ReplyTimeout = timeout ?? Eventually.Limit });
    }

    public VhostUserFrontend Frontend { get; }

    public WirePeer Wire { get; }

    /// <summary>The front-end's end of the back-end's own channel, after <see cref="NegotiateAsync"/>.</summary>
    public WirePeer? BackendChannel { get; private set; }

    /// <summary>Reads the next request and checks its number.</summary>
    public async Task<WireMessage> ExpectAsync(FrontendRequest request)
    {
        WireMessage message = await Wire.ReceiveAsync();
        Assert.Equal((uint)request, message.Request);
        return message;
    }

    public Task ReplyAsync(FrontendRequest request, byte[] payload, uint flags = WirePeer.ReplyFlags) =>
        Wire.SendAsync(request, flags, payload);

    public async Task AnswerAsync(FrontendRequest request, ulong value)
    {
        await ExpectAsync(request);
        await ReplyAsync(request, WirePeer.Bytes(value));
    }

    /// <summary>Plays a well-behaved back-end through the negotiation.</summary>
    public async Task NegotiateAsync(ProtocolFeatures features = WirePeer.AllProtocolFeatures, ulong queues = 3)
    {
        Task negotiating = Frontend.NegotiateAsync(TestContext.Current.CancellationToken);
        await AnswerAsync(FrontendRequest.GetFeatures, Features);
        await AnswerAsync(FrontendRequest.GetProtocolFeatures, (ulong)features);
        await ExpectAsync(FrontendRequest.SetProtocolFeatures);
        bool acknowledges = features.HasFlag(ProtocolFeatures.ReplyAck);
        await AcknowledgeAsync(FrontendRequest.SetOwner, acknowledges);
        if (features.HasFlag(ProtocolFeatures.MultiQueue))
        {
            await AnswerAsync(FrontendRequest.GetQueueNum, queues);
        }

        if (features.HasFlag(ProtocolFeatures.Shmem))
        {
            await ExpectAsync(FrontendRequest.GetShmemConfig);
            await ReplyAsync(FrontendRequest.GetShmemConfig, ShmemConfig((1, 0x10000)));
        }

        if (features.HasFlag(ProtocolFeatures.BackendReq))
        {
            WireMessage message = await AcknowledgeAsync(FrontendRequest.SetBackendReqFd, acknowledges);
            BackendChannel = new WirePeer(new UnixSocket(Assert.Single(message.Descriptors)));
        }

        await AcknowledgeAsync(FrontendRequest.SetFeatures, acknowledges);
        await negotiating;
    }

    /// <summary>A shared memory configuration.</summary>
    public static byte[] ShmemConfig(params (byte Id, ulong Size)[] regions)
    {
        ulong[] sizes = new ulong[256];
        Array.ForEach(regions, region => sizes[region.Id] = region.Size);
        return [.. WirePeer.Bytes((ulong)regions.Length), .. sizes.SelectMany(WirePeer.Bytes)];
    }

    public async Task<WireMessage> AcknowledgeAsync(FrontendRequest request, bool acknowledges = true)
    {
        WireMessage message = await ExpectAsync(request);
        Assert.Equal(acknowledges ? WirePeer.NeedReply : WirePeer.NoReply, message.Flags);
        if (acknowledges)
        {
            await ReplyAsync(request, WirePeer.Bytes(0UL));
        }

        return message;
    }

    public async ValueTask DisposeAsync()
    {
        await Frontend.DisposeAsync();
        BackendChannel?.Dispose();
        Wire.Dispose();
    }
}
