// What a front-end tells the successor of its back-end: every row of the table in ReconnectingFrontend.cs.
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Tests.Cli;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Frontend;

public sealed class ReplayTests : IAsyncDisposable
{
    private const VirtioStatus Ready = VirtioStatus.Acknowledge | VirtioStatus.Driver | VirtioStatus.FeaturesOk;
    private const VirtioStatus Running = Ready | VirtioStatus.DriverOk;

    private readonly TemporaryFolder _folder = new();
    private readonly DriverMemory _memory = new(1 << 20);
    private readonly ChannelSource _source;
    private EndingBackend? _backend;
    private ReconnectingFrontend _frontend = null!;
    private bool _isConnected;

    public ReplayTests() =>
        _source = ChannelSource.Connect(
            SocketPath, new BackOff(TimeSpan.FromMilliseconds(1), TimeSpan.FromMilliseconds(9)));

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string SocketPath => _folder["device.sock"];

    public async ValueTask DisposeAsync()
    {
        if (_isConnected)
        {
            await _frontend.DisposeAsync();
        }

        if (_backend is not null)
        {
            await _backend.DisposeAsync();
        }

        _source.Dispose();
        _memory.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public async Task Status_and_the_drivers_writes_are_told_again()
    {
        await ConnectAsync(new FakeDevice());
        await _frontend.Current.SetStatusAsync(Ready, Token);
        await _frontend.Current.SetConfigAsync(8, new byte[] { 1 }, cancellation: Token);
        await _frontend.Current.SetConfigAsync(8, new byte[] { 7 }, cancellation: Token);
        await StartQueuesAsync(1);
        await _frontend.Current.SetStatusAsync(Running, Token);
        for (int life = 0; life < 3; life++)
        {
            FakeDevice next = new();
            next.Config.Set(FakeDevice.Mode, (ulong)(40 + life));
            await ReplaceAsync(next);
            Assert.Equal(7u, next.Config.Get(FakeDevice.Mode));
            Assert.Equal(1, next.ConfigWrites);
            Assert.Equal(Running, await _frontend.Current.GetStatusAsync(Token));
        }
    }

    [Fact]
    public async Task What_a_reset_undid_is_not_told_again()
    {
        await ConnectAsync(new FakeDevice());
        await StartQueuesAsync(1);
        await _frontend.Current.SetStatusAsync(Running, Token);
        await _frontend.Current.SetConfigAsync(8, new byte[] { 1 }, cancellation: Token);
        await _frontend.Current.SetStatusAsync(VirtioStatus.None, Token);
        FakeDevice next = new();
        await ReplaceAsync(next);
        Assert.Equal(0, next.ConfigWrites);
        Assert.Equal(VirtioStatus.None, await _frontend.Current.GetStatusAsync(Token));
        await ExpectNotServedAsync(_frontend.Queues[0]);
    }

    [Fact]
    public async Task Rings_are_started_disabled_or_left_alone_as_before()
    {
        await ConnectAsync(new FakeDevice());
        IReadOnlyList<FrontendQueue> queues = await StartQueuesAsync(3);
        using EventFd errors = new();
        await _frontend.Current.SetVringErrAsync(0, errors, Token);
        await _frontend.Current.SetVringEnableAsync(1, false, Token);
        uint stopped = await _frontend.Current.StopQueueAsync(queues[2], Token);
        FakeDevice next = new();
        await ReplaceAsync(next);
        await ExpectServedAsync(queues[0]);
        await ExpectNotServedAsync(queues[1]);
        await _frontend.Current.SetVringEnableAsync(1, true, Token);
        await Eventually.TrueAsync(() => queues[1].Ring.TryCollect(out _, out _), "the disabled ring goes on");
        await _frontend.Current.ResumeQueueAsync(queues[2], stopped, Token);
        await ExpectServedAsync(queues[2]);

        // The notifier of errors is known there, too.
        Assert.True(queues[0].Ring.TryAdd([new DriverBuffer(0x10, _memory.Allocate(8).Memory)], [], 9));
        queues[0].Submit();
        await Eventually.TrueAsync(() => errors.Take() != 0, "the error notifier");
    }

    [Fact]
    public async Task Logging_goes_on()
    {
        await ConnectAsync(new FakeDevice());
        IReadOnlyList<FrontendQueue> queues = await StartQueuesAsync(1);
        using FrontendLog log = await _frontend.Current.StartLoggingAsync(queues, tells: true, Token);
        await ExpectServedAsync(queues[0]);
        Assert.NotEmpty(log.Harvest());
        for (int life = 0; life < 2; life++)
        {
            await ReplaceAsync(new FakeDevice());
            log.Harvest();
            log.Marked!.Take();
            Assert.True(_frontend.Current.IsLogging);
            await ExpectServedAsync(queues[0]);
            Assert.NotEmpty(log.Harvest());
            Assert.True(log.Marked.Wait(20_000) > 0, "marks are told");
        }

        await _frontend.Current.StopLoggingAsync(queues, Token);
        await ReplaceAsync(new FakeDevice());
        Assert.False(_frontend.Current.IsLogging);
    }

    [Fact]
    public async Task Mtu_is_told_again()
    {
        await ConnectAsync(new FakeDevice());
        await _frontend.Current.NetSetMtuAsync(1400, Token);
        FakeDevice next = new();
        await ReplaceAsync(next);
        Assert.Equal(1400, next.Mtu);
    }

    [Fact]
    public async Task Crypto_sessions_are_made_again_and_must_have_their_numbers()
    {
        await ConnectAsync(new TalentedDevice());
        SymmetricSession keyed = new(2, 0, 0, 0, 1, 1, 0, 0, new byte[] { 1, 2, 3 }, default);
        CryptoSessionParameters parameters = new(2) { Symmetric = keyed };
        ulong first = await _frontend.Current.CreateCryptoSessionAsync(parameters, Token);
        await _frontend.Current.CreateCryptoSessionAsync(parameters, Token);
        await _frontend.Current.CloseCryptoSessionAsync(2, Token);
        TalentedDevice next = new();
        await ReplaceAsync(next);
        Assert.Equal([first], next.Sessions);
        Assert.Equal([1, 2, 3], next.Created[0].Symmetric!.CipherKey.ToArray());
        await _backend!.DisposeAsync();
        TalentedDevice other = new();
        other.CreateSession(parameters);
        _backend = new EndingBackend(other, SocketPath);
        Assert.Equal("crypto session", (await RefusalAsync()).Field);
    }

    [Fact]
    public async Task Space_that_the_device_changed_is_what_successors_must_have()
    {
        FakeDevice device = new();
        await ConnectAsync(device);
        string before = _frontend.Digest;
        int told = 0;
        _frontend.ConfigChanged += () => Interlocked.Increment(ref told);
        device.ChangeCapacity(55);
        await Eventually.TrueAsync(() => Volatile.Read(ref told) == 1, "the change is told");
        Assert.NotEqual(before, _frontend.Digest);
        FakeDevice grown = new();
        grown.ChangeCapacity(55);
        await ReplaceAsync(grown);
        grown.ChangeCapacity(56);
        await Eventually.TrueAsync(() => Volatile.Read(ref told) == 2, "the second one's change is told");
        await _backend!.DisposeAsync();
        _backend = new EndingBackend(new FakeDevice(), SocketPath);
        Assert.Equal("config", (await RefusalAsync()).Field);
    }

    [Fact]
    public async Task Nothing_takes_over_in_postcopy()
    {
        await ConnectAsync(new FakeDevice());
        _frontend.Current.State.IsInPostcopy = true;
        Assert.Equal("post-copy", (await RefusalAsync()).Field);
    }

    [Fact]
    public async Task Fewer_regions_of_shared_memory_are_refused()
    {
        await ConnectAsync(new FakeDevice());
        await _backend!.DisposeAsync();
        _backend = new EndingBackend(new SmallDevice(), SocketPath);
        Assert.Equal("shared memory", (await RefusalAsync()).Field);
    }

    [Fact]
    public void Writes_are_kept_as_runs_of_last_values()
    {
        ControlState state = new();
        state.NoteConfig(4, [1, 2, 3]);
        state.NoteConfig(20, [9]);
        state.NoteConfig(5, [7]);
        state.NoteConfig(7, [8]);
        Assert.Equal([4u, 20u], state.ConfigWrites.Select(run => run.Offset));
        Assert.Equal([1, 7, 3, 8], state.ConfigWrites[0].Bytes);
        state.NoteStatus(VirtioStatus.None);
        Assert.Empty(state.ConfigWrites);
    }

    [Fact]
    public async Task A_killed_program_is_told_its_status_and_its_cache_mode_again()
    {
        string[] arguments = ["block", $"--socket-path={SocketPath}", "--memory-size=1M", "--quiet"];
        OutboardProcess process = OutboardProcess.Start(arguments);
        try
        {
            await process.ListensAsync(SocketPath);
            ReconnectOptions options = Patient with { ConfigSizeBytes = BlockConfig.Bytes };
            _frontend = await ReconnectingFrontend.ConnectAsync(_source, null, options, Token);
            _isConnected = true;
            await StartQueuesAsync(1);
            await _frontend.Current.SetStatusAsync(Running, Token);
            await _frontend.Current.SetConfigAsync(32, new byte[] { 0 }, cancellation: Token);
            for (int kill = 0; kill < 4; kill++)
            {
                Task lost = _frontend.Lost;
                process.Signal("KILL");
                await process.DisposeAsync();
                await lost.WaitAsync(Eventually.Limit, Token);
                process = OutboardProcess.Start(arguments);
                await _frontend.ReconnectAsync(Token);
                Assert.Equal(Running, await _frontend.Current.GetStatusAsync(Token));
                Assert.Equal([0], await _frontend.Current.GetConfigAsync(32, 1, Token));
            }
        }
        finally
        {
            await process.DisposeAsync();
        }
    }

    private static ReconnectOptions Patient => new()
    {
        Limit = OutboardProcess.Limit,
        FirstDelay = TimeSpan.FromMilliseconds(1),
        LongestDelay = TimeSpan.FromMilliseconds(20),
        ConfigSizeBytes = FakeDevice.ConfigBytes,
    };

    private async Task ConnectAsync(FakeDevice device)
    {
        _backend = new EndingBackend(device, SocketPath);
        _frontend = await ReconnectingFrontend.ConnectAsync(_source, null, Patient, Token);
        _isConnected = true;
    }

    private async Task<IReadOnlyList<FrontendQueue>> StartQueuesAsync(int count)
    {
        await _frontend.ShareMemoryAsync(_memory, Token);
        return await _frontend.StartQueuesAsync(count, 16, _memory, Token);
    }

    private async Task ReplaceAsync(FakeDevice next)
    {
        await _backend!.DisposeAsync();
        _backend = new EndingBackend(next, SocketPath);
        await _frontend.ReconnectAsync(Token);
    }

    private async Task<BackendMismatchException> RefusalAsync() =>
        await Assert.ThrowsAsync<BackendMismatchException>(() => _frontend.ReconnectAsync(Token));

    private async Task ExpectServedAsync(FrontendQueue queue)
    {
        Submit(queue);
        await Eventually.TrueAsync(() => queue.Ring.TryCollect(out _, out _), "an answer");
    }

    /// <summary>The request stays in the ring.</summary>
    private async Task ExpectNotServedAsync(FrontendQueue queue)
    {
        Submit(queue);
        TimeSpan limit = TimeSpan.FromMilliseconds(100);
        Assert.False(await Eventually.IsTrueAsync(() => queue.Ring.TryCollect(out _, out _), limit));
    }

    private void Submit(FrontendQueue queue)
    {
        DriverBuffer buffer = _memory.Allocate(8);
        Assert.True(queue.Ring.TryAdd([buffer.Slice(0, 4)], [buffer.Slice(4, 4)], 1));
        queue.Submit();
    }

    /// <summary>A device with other regions.</summary>
    private sealed class SmallDevice : FakeDevice
    {
        public override IReadOnlyList<SharedRegion> SharedRegions => [Regions[0]];
    }
}
