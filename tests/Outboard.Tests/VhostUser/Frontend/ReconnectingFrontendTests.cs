// A front-end that outlives its back-ends: state is told again, requests survive, and another device is refused.
using Outboard.Linux.Sockets;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Frontend;

public sealed class ReconnectingFrontendTests : IDisposable
{
    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("outboard-");
    private readonly DriverMemory _memory = new(1 << 20);

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string SocketPath => Path.Combine(_folder.FullName, "device.sock");

    private static ReconnectOptions Patient => new()
    {
        Limit = Eventually.Limit,
        FirstDelay = TimeSpan.FromMilliseconds(1),
        LongestDelay = TimeSpan.FromMilliseconds(20),
        ConfigSizeBytes = FakeDevice.ConfigBytes,
    };

    public void Dispose()
    {
        _memory.Dispose();
        _folder.Delete(recursive: true);
    }

    [Theory]
    [InlineData(false, false)]
    [InlineData(false, true)]
    [InlineData(true, false)]
    [InlineData(true, true)]
    public async Task Requests_survive_back_end_after_back_end(bool packed, bool table)
    {
        VhostUserFrontendOptions options = new() { UsePacked = packed };
        if (table)
        {
            options = options with
            {
                ProtocolFeatures = options.ProtocolFeatures & ~ProtocolFeatures.ConfigureMemSlots,
            };
        }

        FakeDevice device = new() { Holds = true };
        EndingBackend backend = new(device, SocketPath);
        using ChannelSource source = ChannelSource.Connect(SocketPath, QuickDelays());
        await using ReconnectingFrontend frontend =
            await ReconnectingFrontend.ConnectAsync(source, options, Patient, Token);
        await frontend.ShareMemoryAsync(_memory, Token);
        FrontendQueue queue = (await frontend.StartQueuesAsync(2, 16, _memory, Token))[1];
        Assert.True(frontend.TracksInflight);
        DriverBuffer buffer = _memory.Allocate(8);
        for (uint round = 0; round < 6; round++)
        {
            Add(queue, buffer, round);
            FakeDevice holding = device;
            await Eventually.TrueAsync(() => holding.Held == 1, "the request is held");
            Task lost = frontend.Lost;
            Assert.False(lost.IsCompleted);
            await backend.DisposeAsync();
            await lost.WaitAsync(Eventually.Limit, Token);

            // The next one answers what the last one held, and holds what comes after.
            device = new FakeDevice();
            backend = new EndingBackend(device, SocketPath);
            await frontend.ReconnectAsync(Token);
            await Eventually.TrueAsync(() => queue.Ring.TryCollect(out uint token, out _) && token == round, "answer");
            device.Holds = true;
        }

        Assert.Equal(6, frontend.Reconnections);
        await backend.DisposeAsync();
    }

    [Fact]
    public async Task Without_a_record_this_side_submits_again()
    {
        const ProtocolFeatures withheld = ProtocolFeatures.InflightShmFd;
        VhostUserBackendOptions plain = new() { WithheldProtocolFeatures = withheld };
        FakeDevice device = new();
        EndingBackend backend = new(device, SocketPath, plain);
        using ChannelSource source = ChannelSource.Connect(SocketPath, QuickDelays());
        await using ReconnectingFrontend frontend =
            await ReconnectingFrontend.ConnectAsync(source, null, Patient, Token);
        await frontend.ShareMemoryAsync(_memory, Token);
        FrontendQueue queue = (await frontend.StartQueuesAsync(1, 16, _memory, Token))[0];
        Assert.False(frontend.TracksInflight);
        await backend.DisposeAsync();

        // Nobody serves the ring: this request waits in it.
        DriverBuffer buffer = _memory.Allocate(8);
        Add(queue, buffer, 5);
        backend = new EndingBackend(new FakeDevice(), SocketPath, plain);
        await frontend.ReconnectAsync(Token);
        await Eventually.TrueAsync(() => queue.Ring.TryCollect(out uint token, out _) && token == 5, "the answer");
        await backend.DisposeAsync();
    }

    [Theory]
    [InlineData("features")]
    [InlineData("protocol features")]
    [InlineData("config")]
    public async Task Another_device_is_refused_by_the_field_that_differs(string field)
    {
        EndingBackend backend = new(new FakeDevice(), SocketPath);
        using ChannelSource source = ChannelSource.Connect(SocketPath, QuickDelays());
        await using ReconnectingFrontend frontend =
            await ReconnectingFrontend.ConnectAsync(source, null, Patient, Token);
        await frontend.ShareMemoryAsync(_memory, Token);
        await backend.DisposeAsync();
        FakeDevice other = new();
        if (field == "config")
        {
            other.ChangeCapacity(77);
        }

        backend = new EndingBackend(other, SocketPath, new VhostUserBackendOptions
        {
            WithheldFeatures = field == "features" ? VirtioFeatures.EventIndex : 0,
            WithheldProtocolFeatures =
                field == "protocol features" ? ProtocolFeatures.Status : ProtocolFeatures.None,
        });
        BackendMismatchException refusal =
            await Assert.ThrowsAsync<BackendMismatchException>(() => frontend.ReconnectAsync(Token));
        Assert.Equal(field, refusal.Field);
        Assert.Contains(field, refusal.Message, StringComparison.Ordinal);
        await backend.DisposeAsync();
    }

    [Fact]
    public async Task Fewer_queues_and_memory_slots_are_refused_and_more_are_not()
    {
        BackendIdentity was = new(1, ProtocolFeatures.MultiQueue, 2, 8, [1, 2]);
        Assert.Equal("queues", Refused(was, was with { QueueCount = 1 }).Field);
        Assert.Equal("memory slots", Refused(was, was with { MemorySlots = 7 }).Field);
        Assert.Equal("config", Refused(was, was with { Config = [1, 3] }).Field);
        Assert.Equal("config", Refused(was, was with { Config = [] }).Field);
        SharedRegion region = new(1, 0x10000);
        BackendIdentity shared = was with { Regions = [region] };
        Assert.Equal("shared memory", Refused(shared, was).Field);
        Assert.Equal("shared memory", Refused(shared, was with { Regions = [region with { SizeBytes = 1 }] }).Field);
        was.Check(was with { QueueCount = 3, MemorySlots = 509, Features = 3 });
        Assert.Equal(was.Digest, (was with { Features = 1 | VirtioFeatures.LogAll }).Digest);
        Assert.NotEqual(was.Digest, (was with { Config = [1, 3] }).Digest);
        await Task.CompletedTask;
    }

    [Fact]
    public async Task Back_end_that_stays_away_is_given_up_and_the_message_says_why()
    {
        EndingBackend backend = new(new FakeDevice(), SocketPath);
        using ChannelSource source = ChannelSource.Connect(SocketPath, QuickDelays());
        ReconnectOptions impatient = Patient with
        {
            Limit = TimeSpan.FromMilliseconds(30),
            ConnectLimit = Eventually.Limit,
        };
        await using ReconnectingFrontend frontend =
            await ReconnectingFrontend.ConnectAsync(source, null, impatient, Token);
        await backend.DisposeAsync();
        IOException failure = await Assert.ThrowsAsync<IOException>(() => frontend.ReconnectAsync(Token));
        Assert.Contains(SocketPath, failure.Message, StringComparison.Ordinal);
        Assert.Contains("no back-end within", failure.Message, StringComparison.Ordinal);
        Assert.IsNotType<BackendMismatchException>(failure);
    }

    [Fact]
    public async Task Waiting_can_be_cancelled()
    {
        using CancellationTokenSource stop = CancellationTokenSource.CreateLinkedTokenSource(Token);
        using ChannelSource source = ChannelSource.Connect(SocketPath, QuickDelays());
        Task<ReconnectingFrontend> connecting = ReconnectingFrontend.ConnectAsync(source, null, Patient, stop.Token);
        await stop.CancelAsync();
        await Assert.ThrowsAnyAsync<OperationCanceledException>(() => connecting);
    }

    [Fact]
    public async Task Peer_that_hangs_up_in_the_handshake_is_tried_again()
    {
        using UnixListener listener = UnixListener.Bind(SocketPath);
        using ChannelSource source = ChannelSource.Connect(SocketPath, QuickDelays());
        Task<ReconnectingFrontend> connecting = ReconnectingFrontend.ConnectAsync(source, null, Patient, Token);
        for (int i = 0; i < 3; i++)
        {
            (await listener.AcceptAsync(Token)).Dispose();
        }

        Task serving = VhostUserBackend.ServeConnectionAsync(
            new FakeDevice(), new SocketChannel(await listener.AcceptAsync(Token)), cancellation: Token);
        await (await connecting).DisposeAsync();
        await serving.WaitAsync(Eventually.Limit, Token);
    }

    private static BackendMismatchException Refused(BackendIdentity was, BackendIdentity now) =>
        Assert.Throws<BackendMismatchException>(() => was.Check(now));

    private static BackOff QuickDelays() => new(TimeSpan.FromMilliseconds(1), TimeSpan.FromMilliseconds(20));

    private static void Add(FrontendQueue queue, DriverBuffer buffer, uint token)
    {
        Assert.True(queue.Ring.TryAdd([buffer.Slice(0, 4)], [buffer.Slice(4, 4)], token));
        queue.Submit();
    }
}
