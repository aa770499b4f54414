// A device whose queues somebody else's vhost-user back-end serves, for a transport that shows it to a driver: any
// back-end of the world becomes a PCI function. Guest memory, kicks and calls are handed on; no request passes here.
//
//   driver enables a queue -> memory -> in-flight region (before the first) -> the ring, once the driver is ready
//   memory changes         -> slots are added to rings that run; for anything else the rings are stopped meanwhile
//   the back-end dies      -> the next one is told everything again; requests in flight are in the region, or known
//                             from the used index where requests stay in order; otherwise the driver has to reset
//
// Everything that changes what a back-end is told has the turn. A request that fails because the back-end went away
// fails nothing: what was to be said is said to the next one.
// Not here: migration; a network device's control queue, and so its multi-queue; SET_STATUS.
using Microsoft.Extensions.Logging;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Pci;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend;

/// <summary>A device behind a vhost-user connection. Disposing ends the connection.</summary>
public sealed partial class RemoteDevice : DeviceHost
{
    private readonly ChannelSource _source;
    private readonly RemoteDeviceOptions _options;
    private readonly VhostUserFrontendOptions _frontendOptions;
    private readonly BackendIdentity _identity;
    private readonly RemoteDeviceShape _shape;
    private readonly ConfigSpace _config;
    private readonly ILogger _log;
    private readonly SemaphoreSlim _turn = new(1);
    private readonly CancellationTokenSource _ending = new();
    private readonly EventWatcher _calls = new("remote/calls");
    private readonly List<RemoteQueue> _queues = [];
    private readonly SortedDictionary<uint, byte[]> _configWrites = [];
    private readonly Task _watching;

    private VhostUserFrontend? _frontend;
    private GuestMemory _memory = GuestMemory.Empty;
    private PassedRegion[] _told = [];
    private InflightRegion? _inflight;
    private bool _hasToldInflight;
    private ulong _accepted;
    private volatile bool _mustReset;
    private int _lostOnes;

    private RemoteDevice(
        ChannelSource source, VhostUserFrontend frontend, BackendIdentity identity, RemoteDeviceShape shape,
        RemoteDeviceOptions options)
    {
        _source = source;
        _options = options;
        _identity = identity;
        _shape = shape;
        _log = options.Logger;
        _frontendOptions = OptionsOf(options) with { ProtocolFeatures = identity.ProtocolFeatures };
        _config = new ConfigSpace(shape.Config.Length);
        _config.SetBytes(new ConfigField(0, shape.Config.Length), shape.Config);
        Use(frontend);
        _watching = Task.Run(WatchAsync);
    }

    /// <inheritdoc/>
    public override VirtioDeviceId Id => _shape.Id;

    /// <inheritdoc/>
    public override int QueueCount => _shape.QueueCount;

    /// <inheritdoc/>
    public override ConfigSpace Config => _config;

    /// <inheritdoc/>
    public override ulong OfferedFeatures =>
        _shape.Features | VirtioFeatures.NotificationData | VirtioFeatures.RingReset;

    /// <inheritdoc/>
    public override bool PassesOn => true;

    /// <summary>Back-ends that went away so far.</summary>
    internal int LostBackends => Volatile.Read(ref _lostOnes);

    /// <summary>Whether a back-end is there.</summary>
    internal bool IsConnected => Volatile.Read(ref _frontend) is not null;

    /// <summary>Connects to a back-end, and asks what it is.</summary>
    /// <param name="source">Where back-ends are found; stays the caller's.</param>
    /// <param name="options">How it becomes a device.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="IOException">None is there in time, or it is no device that can be shown.</exception>
    /// <exception cref="ProtocolException">It does not answer as it should.</exception>
    public static async Task<RemoteDevice> ConnectAsync(
        ChannelSource source, RemoteDeviceOptions? options = null, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(source);
        options ??= new RemoteDeviceOptions();
        VhostUserChannel channel = await source.NextAsync(options.ConnectLimit, cancellation).ConfigureAwait(false);
        VhostUserFrontend frontend = new(channel, OptionsOf(options));
        try
        {
            await frontend.NegotiateAsync(cancellation).ConfigureAwait(false);
            RemoteDeviceShape shape =
                await RemoteDeviceShape.AskAsync(frontend, options, cancellation).ConfigureAwait(false);
            BackendIdentity identity = await IdentifyAsync(frontend, shape, cancellation).ConfigureAwait(false);
            return new RemoteDevice(source, frontend, identity, shape, options);
        }
        catch
        {
            await frontend.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <inheritdoc/>
    public override int MaxQueueSize(int queue) => _options.QueueSize;

    /// <inheritdoc/>
    public override async ValueTask AcceptFeaturesAsync(ulong features)
    {
        using Turn turn = await TakeTurnAsync().ConfigureAwait(false);
        _accepted = features;
        await TryAsync(TellFeaturesAsync).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public override async ValueTask WriteConfigAsync(uint offset, ReadOnlyMemory<byte> source)
    {
        if (!_shape.HasConfig || offset >= (uint)_config.SizeBytes || source.Length > _config.SizeBytes - (int)offset)
        {
            return;
        }

        using Turn turn = await TakeTurnAsync().ConfigureAwait(false);
        try
        {
            if (_frontend is { } frontend)
            {
                await frontend.SetConfigAsync(offset, source, cancellation: _ending.Token).ConfigureAwait(false);
                _configWrites[offset] = source.ToArray();

                // What a field shows may depend on what was written to another.
                await ReadConfigAsync(frontend).ConfigureAwait(false);
            }
        }
        catch (ProtocolException error)
        {
            _log.LogWarning("the driver's write to the configuration space failed: {Reason}", error.Message);
        }
    }

    /// <inheritdoc/>
    public override async ValueTask ResetAsync()
    {
        using Turn turn = await TakeTurnAsync().ConfigureAwait(false);
        _accepted = 0;
        _mustReset = false;
        _configWrites.Clear();
        _inflight?.Dispose();
        _inflight = null;
        _hasToldInflight = false;
        await TryAsync(frontend => frontend.Has(ProtocolFeatures.ResetDevice)
            ? frontend.ResetDeviceAsync(_ending.Token) : Task.CompletedTask).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public override async ValueTask<HostedQueue> StartQueueAsync(VringSetup setup, QueueLinks links)
    {
        ArgumentNullException.ThrowIfNull(setup);
        ArgumentNullException.ThrowIfNull(links);
        bool isPacked = (setup.Features & VirtioFeatures.RingPacked) != 0;
        if (!isPacked && !int.IsPow2(setup.Size))
        {
            throw new VringSetupException("size", $"{setup.Size} is no power of two");
        }

        using Turn turn = await TakeTurnAsync().ConfigureAwait(false);
        RemoteQueue queue = new(this, setup, links, _calls);
        _memory = setup.Memory;
        _queues.Add(queue);
        await TryAsync(frontend => ServeAsync(frontend, queue)).ConfigureAwait(false);
        return queue;
    }

    /// <inheritdoc/>
    public override async ValueTask ChangeMemoryAsync(GuestMemory memory, bool keepsOldRegions)
    {
        using Turn turn = await TakeTurnAsync().ConfigureAwait(false);
        _memory = memory;
        if (_queues.Exists(queue => queue.IsServed))
        {
            await TryAsync(TellMemoryAsync).ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    public override async ValueTask DisposeAsync()
    {
        await _ending.CancelAsync().ConfigureAwait(false);
        await _watching.ConfigureAwait(false);
        if (_frontend is { } frontend)
        {
            await frontend.DisposeAsync().ConfigureAwait(false);
        }

        _queues.ForEach(queue => queue.Dispose());
        _inflight?.Dispose();
        _calls.Dispose();
        _ending.Dispose();
        _turn.Dispose();
    }

    /// <summary>Queues whose interrupts reach the guest without this process.</summary>
    internal async ValueTask<int> CountDirectAsync()
    {
        using Turn turn = await TakeTurnAsync().ConfigureAwait(false);
        return _queues.Count(queue => queue is { IsServed: true, IsDirect: true });
    }

    /// <summary>The back-end met something in the ring that cannot be.</summary>
    internal void OnRingBroken(int index) => RequireReset($"queue {index}: the back-end calls the ring broken");

    internal async ValueTask EnableAsync(RemoteQueue queue)
    {
        using Turn turn = await TakeTurnAsync().ConfigureAwait(false);
        queue.IsEnabled = true;
        await TryAsync(frontend => ServeAsync(frontend, queue)).ConfigureAwait(false);
    }

    internal async ValueTask RouteAsync(RemoteQueue queue)
    {
        using Turn turn = await TakeTurnAsync().ConfigureAwait(false);
        if (queue.IsServed)
        {
            await TryAsync(frontend => queue.SetCallAsync(frontend, _ending.Token)).ConfigureAwait(false);
        }
    }

    internal async ValueTask<uint> StopAsync(RemoteQueue queue)
    {
        using Turn turn = await TakeTurnAsync().ConfigureAwait(false);
        _queues.Remove(queue);
        bool wasServed = queue.IsServed;
        bool isKnown = !wasServed
            || await TryAsync(frontend => queue.PauseAsync(frontend, _ending.Token)).ConfigureAwait(false);
        if (!isKnown)
        {
            Recover(queue);
        }

        queue.Dispose();
        return queue.Base;
    }

    private static VhostUserFrontendOptions OptionsOf(RemoteDeviceOptions options)
    {
        const ProtocolFeatures useful =
            ProtocolFeatures.MultiQueue | ProtocolFeatures.ReplyAck | ProtocolFeatures.BackendReq
            | ProtocolFeatures.Config | ProtocolFeatures.ResetDevice | ProtocolFeatures.ConfigureMemSlots
            | ProtocolFeatures.InflightShmFd;
        return new VhostUserFrontendOptions
        {
            ReplyTimeout = options.ReplyTimeout,
            ProtocolFeatures = useful & ~options.WithheldProtocolFeatures,
            Features = VirtioFeatures.Version1,
        };
    }

    private static async Task<BackendIdentity> IdentifyAsync(
        VhostUserFrontend frontend, RemoteDeviceShape shape, CancellationToken cancellation)
    {
        BackendIdentity identity =
            await BackendIdentity.ReadAsync(frontend, 0, cancellation).ConfigureAwait(false);
        byte[] config = await shape.ReadConfigAsync(frontend, cancellation).ConfigureAwait(false);
        return identity with { Features = frontend.OfferedFeatures, Config = config };
    }

    private async ValueTask<Turn> TakeTurnAsync()
    {
        await _turn.WaitAsync().ConfigureAwait(false);
        return new Turn(_turn);
    }

    /// <summary>
    /// Says something to the back-end, if there is one. That it goes away meanwhile is no failure; that it refuses is
    /// one, after which only a reset helps.
    /// </summary>
    /// <returns>Whether it was said and accepted.</returns>
    private async ValueTask<bool> TryAsync(Func<VhostUserFrontend, Task> say)
    {
        if (_frontend is not { } frontend)
        {
            return false;
        }

        try
        {
            await say(frontend).ConfigureAwait(false);
            return true;
        }
        catch (OperationCanceledException) when (_ending.IsCancellationRequested)
        {
            return false;
        }
        catch (ProtocolException error)
        {
            _log.LogWarning("the back-end: {Reason}", error.Message);
            if (!error.IsFatal)
            {
                RequireReset(error.Message);
            }

            return false;
        }
    }

    private void RequireReset(string reason)
    {
        _mustReset = true;
        OnResetNeeded(reason);
    }

    private readonly struct Turn(SemaphoreSlim turn) : IDisposable
    {
        public void Dispose() => turn.Release();
    }
}
