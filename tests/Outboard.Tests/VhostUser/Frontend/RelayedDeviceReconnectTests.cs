// A relayed device whose back-end is killed and started again: its driver sees a pause, each request takes effect once,
// and another device is refused by what differs.
using Outboard.Devices.Register;
using Outboard.JournalKills;
using Outboard.Tests.Cli;
using Outboard.Tests.Virtio.Rig;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Frontend.Relay;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Journal;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Frontend;

public sealed class RelayedDeviceReconnectTests : IAsyncDisposable
{
    private const ulong Features = VirtioFeatures.Version1 | VirtioFeatures.EventIndex;
    private const int RingSize = 32;
    private const int Kills = 5;

    private static readonly VhostUserBackendOptions s_offering = new()
    {
        AdditionalProtocolFeatures = ProtocolFeatures.LifeCycle,
    };

    private readonly TemporaryFolder _folder = new();
    private readonly QueueWorker _worker = new("test");
    private readonly ChannelSource _source;
    private RelayedDevice? _relay;

    public RelayedDeviceReconnectTests() => _source = ChannelSource.Connect(
        SocketPath, new BackOff(TimeSpan.FromMilliseconds(1), TimeSpan.FromMilliseconds(20)));

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string SocketPath => _folder["device.sock"];

    private string State => _folder["state"];

    public async ValueTask DisposeAsync()
    {
        if (_relay is not null)
        {
            await _relay.DisposeAsync();
        }

        _source.Dispose();
        await _worker.DisposeAsync();
        _folder.Dispose();
    }

    [Theory]
    [InlineData("counter", false, false)]
    [InlineData("register", true, false)]
    [InlineData("register", false, true)]
    public async Task Each_request_takes_effect_once_however_often_the_back_end_is_killed(
        string device, bool isPacked, bool isDeferred)
    {
        KillShape shape = new(isPacked, true, device == "register", RingSize, IsDeferred: isDeferred);
        string[] options = isDeferred ? ["--completion-delay=2"] : [];
        OutboardProcess process = Start(device, options);
        RelayedDevice relay = await ConnectAsync();
        int returns = 0;
        relay.Returned += () => Interlocked.Increment(ref returns);
        relay.AcceptFeatures(shape.Features);
        await using ServedRing ring =
            await ServedRing.StartAsync(relay, _worker, size: RingSize, features: shape.Features);
        ModelDriver driver = new(shape, ring.Memory, seed: 3, ring.Driver);
        Random random = new(7);
        for (int kill = 0; kill < Kills; kill++)
        {
            await LoadAsync(driver, ring, driver.Completed + random.Next(1, 300));
            driver.Add(RingSize);
            ring.Kick();
            await process.DisposeAsync();

            // Nobody is there: requests go on coming.
            driver.Add(RingSize);
            ring.Kick();
            process = Start(device, options);
        }

        await LoadAsync(driver, ring, driver.Completed + 100);
        await Eventually.TrueAsync(() => driver.Collect() >= 0 && driver.InFlight == 0, "all are answered");
        Assert.InRange(returns, 1, Kills);
        Assert.False(relay.Lost.IsCompleted);
        ulong due = driver.Value;
        await ring.StopAsync();
        relay.Reset();
        relay.AcceptFeatures(shape.Features);
        await process.DisposeAsync();
        using DeviceJournal journal = DeviceJournal.Open(
            State, shape.IsRegister ? RegisterDevice.Layout : CounterDevice.Layout);
        Assert.Equal(due, journal.Lane(0).Read(0));
    }

    [Fact]
    public async Task Calls_wait_for_the_next_back_end()
    {
        FakeDevice first = new();
        EndingBackend backend = new(first, SocketPath, s_offering);
        RelayedDevice relay = await ConnectAsync();
        relay.AcceptFeatures(Features);
        Assert.True(relay.WriteConfig(8, [5]));
        await using ServedRing ring = await ServedRing.StartAsync(relay, _worker, features: Features);
        await backend.DisposeAsync();

        Task<ServedRing> start = Task.Run(
            () => ServedRing.StartAsync(relay, _worker, index: 1, features: Features), Token);
        ring.Buffer.Span[..8].Fill(3);
        ring.Submit(1);
        FakeDevice second = new();
        EndingBackend next = new(second, SocketPath, s_offering);
        await using ServedRing other = await start.WaitAsync(Eventually.Limit, Token);
        Assert.Equal(1u, ring.Collect());
        Assert.Equal(3, ring.Buffer.Span[8]);
        other.Buffer.Span[..8].Fill(4);
        other.Submit(2);
        Assert.Equal(2u, other.Collect());

        // What the driver wrote to the first one is there.
        Assert.Equal(5u, second.Config.Get(FakeDevice.Mode));
        await next.DisposeAsync();
        Task<bool> write = Task.Run(() => relay.WriteConfig(8, [6]), Token);
        FakeDevice third = new();
        await using EndingBackend last = new(third, SocketPath, s_offering);
        Assert.True(await write.WaitAsync(Eventually.Limit, Token));
        Assert.Equal(6u, third.Config.Get(FakeDevice.Mode));
        Assert.False(relay.Lost.IsCompleted);
    }

    [Fact]
    public async Task A_reset_waits_as_well_and_is_one()
    {
        EndingBackend backend = new(new FakeDevice(), SocketPath, s_offering);
        RelayedDevice relay = await ConnectAsync();
        relay.AcceptFeatures(Features);
        ServedRing ring = await ServedRing.StartAsync(relay, _worker, features: Features);
        await ring.DisposeAsync();
        await backend.DisposeAsync();
        Task reset = Task.Run(
            () =>
            {
                relay.Reset();
                relay.AcceptFeatures(Features);
            },
            Token);
        await using EndingBackend next = new(new FakeDevice(), SocketPath, s_offering);
        await reset.WaitAsync(Eventually.Limit, Token);
        await using ServedRing again = await ServedRing.StartAsync(relay, _worker, features: Features);
        again.Submit(7);
        Assert.Equal(7u, again.Collect());
    }

    [Theory]
    [InlineData("(features|queues|device): ", true, 0)]
    [InlineData("config: differs from byte 0 on", false, 0x1234)]
    public async Task Another_device_is_refused_by_what_differs(string pattern, bool isCounter, long capacity)
    {
        EndingBackend backend = new(new FakeDevice(), SocketPath, s_offering);
        RelayedDevice relay = await ConnectAsync();
        relay.AcceptFeatures(Features);
        ServedRing ring = await ServedRing.StartAsync(relay, _worker, features: Features);
        await backend.DisposeAsync();
        FakeDevice other = new();
        if (capacity != 0)
        {
            other.ChangeCapacity((ulong)capacity);
        }

        OutboardProcess? process = isCounter ? Start("counter") : null;
        await using EndingBackend? next = isCounter ? null : new EndingBackend(other, SocketPath, s_offering);
        await relay.Lost.WaitAsync(Eventually.Limit, Token);
        Assert.Matches($"^the back-end that came back is another one: .*{pattern}", relay.LostReason);

        // Nothing hangs, and nothing starts.
        await ring.StopAsync().WaitAsync(Eventually.Limit, Token);
        await ring.DisposeAsync();
        await Assert.ThrowsAsync<VringSetupException>(
            () => ServedRing.StartAsync(relay, _worker, features: Features));
        relay.Reset();
        if (process is not null)
        {
            await process.DisposeAsync();
        }
    }

    [Fact]
    public async Task One_that_does_not_come_back_in_time_is_lost()
    {
        EndingBackend backend = new(new FakeDevice(), SocketPath, s_offering);
        RelayedDevice relay = await ConnectAsync(TimeSpan.FromMilliseconds(100));
        relay.AcceptFeatures(Features);
        ServedRing ring = await ServedRing.StartAsync(relay, _worker, features: Features);
        await backend.DisposeAsync();
        ring.Submit(1);
        await relay.Lost.WaitAsync(Eventually.Limit, Token);
        Assert.Contains("no back-end within", relay.LostReason, StringComparison.Ordinal);
        await ring.StopAsync().WaitAsync(Eventually.Limit, Token);
        await ring.DisposeAsync();
    }

    /// <summary>The driver agrees anew, and the back-end dies in the midst of that: the old record is gone, and there
    /// is no new one.</summary>
    [Fact]
    public async Task A_back_end_that_dies_while_features_are_agreed_upon_is_replaced()
    {
        EndingBackend backend = new(new FakeDevice(), SocketPath, s_offering);
        ReconnectOptions reconnect = new() { Limit = OutboardProcess.Limit, ConnectLimit = OutboardProcess.Limit };
        await using ReconnectingFrontend link =
            await ReconnectingFrontend.ConnectAsync(_source, null, reconnect, Token);
        await link.AgreeAsync(1, RingSize, Token);
        Assert.True(link.TracksInflight);
        await backend.DisposeAsync();
        await Assert.ThrowsAnyAsync<Exception>(() => link.AgreeAsync(1, RingSize, Token));
        await using EndingBackend next = new(new FakeDevice(), SocketPath, s_offering);
        await link.ReconnectAsync(Token);
        await link.AgreeAsync(1, RingSize, Token);
        Assert.True(link.TracksInflight);
    }

    [Fact]
    public async Task Disposing_ends_the_wait()
    {
        EndingBackend backend = new(new FakeDevice(), SocketPath, s_offering);
        RelayedDevice relay = await ConnectAsync(Timeout.InfiniteTimeSpan);
        await backend.DisposeAsync();
        await relay.DisposeAsync().AsTask().WaitAsync(Eventually.Limit, Token);
        _relay = null;
    }

    private static async Task LoadAsync(ModelDriver driver, ServedRing ring, long until)
    {
        await Eventually.TrueAsync(
            () =>
            {
                driver.Add(RingSize);
                ring.Kick();
                _ = driver.Collect();
                return driver.Completed >= until;
            },
            "answers");
    }

    private OutboardProcess Start(string device, params string[] options) => OutboardProcess.Start(
        [device, $"--socket-path={SocketPath}", $"--state-file={State}", "--life-cycle", "--quiet", .. options]);

    private async Task<RelayedDevice> ConnectAsync(TimeSpan? limit = null)
    {
        _relay = await RelayedDevice.ConnectAsync(
            _source,
            new ReconnectOptions { Limit = limit ?? OutboardProcess.Limit, ConnectLimit = OutboardProcess.Limit },
            null, Token);
        return _relay;
    }
}
