// A whole front-end and a whole back-end with a relay between them: everything works as without it, the channel that is
// handed over on the way included.
using System.Collections.Concurrent;
using Outboard.Linux.Sockets;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.VhostUser.Tracing;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VhostUser.Tracing;

public sealed class TracedBackendTests : BackendTest
{
    private readonly ConcurrentQueue<TraceEntry> _entries = new();
    private readonly List<Task> _relays = [];

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Rings_run_and_the_back_end_channel_is_traced()
    {
        TraceRelay relay = new(_entries.Enqueue);
        await using (VhostUserFrontend frontend = await ConnectAsync(relay))
        {
            using DriverMemory memory = new(1 << 16);
            await frontend.ShareMemoryAsync(memory, Token);
            using FrontendQueue queue = await frontend.StartQueueAsync(0, 16, memory, Token);
            DriverBuffer request = memory.Allocate(16);
            DriverBuffer answer = memory.Allocate(16);
            request.Span.Fill(0x42);
            Assert.True(queue.Ring.TryAdd([request], [answer], 0));
            queue.Submit();
            Assert.True(queue.WaitForUsed((int)Eventually.Limit.TotalMilliseconds));
            Assert.Equal(request.Span, answer.Span);

            TaskCompletionSource told = new();
            frontend.ConfigChanged += told.SetResult;
            Rig.Device.ChangeCapacity(5);
            await told.Task.WaitAsync(Eventually.Limit, Token);
            await frontend.StopQueueAsync(queue, Token);
        }

        await Task.WhenAll(_relays).WaitAsync(Eventually.Limit, Token);
        MessageEntry change = _entries.OfType<MessageEntry>().Single(entry =>
            entry.Channel.Kind == TracedChannelKind.Backend);
        Assert.Equal("BACKEND_CONFIG_CHANGE_MSG", change.Name);
        Assert.False(change.IsFromFrontend);
        Assert.Equal("1.b1", change.Channel.Name);
        Assert.All(_entries.OfType<MessageEntry>(), entry => Assert.Null(entry.Problem));
    }

    [Fact]
    public async Task Connections_are_told_apart()
    {
        TraceRelay relay = new(_entries.Enqueue);
        for (int i = 0; i < 3; i++)
        {
            await using VhostUserFrontend frontend = await ConnectAsync(relay);
        }

        await Task.WhenAll(_relays).WaitAsync(Eventually.Limit, Token);
        Assert.Equal([1, 2, 3], _entries.Select(entry => entry.Channel.Connection).Distinct());
        Assert.Equal(
            Enumerable.Range(1, _entries.OfType<MessageEntry>().Count()).Select(i => (long)i),
            _entries.OfType<MessageEntry>().Select(entry => entry.Number));
    }

    [Fact]
    public async Task What_is_no_channel_is_passed_on_as_it_is()
    {
        (UnixSocket front, UnixSocket relayFront) = UnixSocket.CreatePair();
        (UnixSocket relayBack, UnixSocket back) = UnixSocket.CreatePair();
        using WirePeer frontPeer = new(front);
        using WirePeer backPeer = new(back);
        Task relay = new TraceRelay(_entries.Enqueue).RelayAsync(relayFront, relayBack, Token);
        await frontPeer.SendAsync(FrontendRequest.SetBackendReqFd, WirePeer.NoReply, [], Rig.MemoryFile());
        await frontPeer.SendAsync(FrontendRequest.SetBackendReqFd, WirePeer.NoReply, []);
        Assert.Equal(
            Outboard.Linux.FileKind.Regular, Rig.Own((await backPeer.ReceiveAsync()).Descriptors.Single()).Kind);
        Assert.Empty((await backPeer.ReceiveAsync()).Descriptors);
        frontPeer.Dispose();
        backPeer.Dispose();
        await relay.WaitAsync(Eventually.Limit, Token);
        Assert.All(_entries, entry => Assert.Equal(TracedChannelKind.Main, entry.Channel.Kind));
    }

    private async Task<VhostUserFrontend> ConnectAsync(TraceRelay relay)
    {
        (UnixSocket front, UnixSocket relayFront) = UnixSocket.CreatePair();
        UnixSocket back = await UnixSocket.ConnectAsync(Rig.SocketPath, Token);
        _relays.Add(relay.RelayAsync(relayFront, back, Token));
        VhostUserFrontend frontend = new(new SocketChannel(front));
        await frontend.NegotiateAsync(Token);
        return frontend;
    }
}
