// A device behind a vhost-user socket as a VirtioDevice like any other: identity, features, queue sizes, the whole
// configuration space, status, reset and state come from its back-end by LIFE_CYCLE, so it can be served again over
// any transport (vfio-user, vhost-user, in this process) without a line that knows it.
//
//   driver -- transport -- RelayedDevice -- vhost-user, LIFE_CYCLE -- back-end -- device
//
// Requests are relayed by copying (RelayQueue): the guest's memory stays with whoever serves this object, and the
// back-end sees a memory of ours only. So it does not matter how guest memory came here (or whether it can be passed
// on at all), a migration's log, an IOMMU and in-flight tracking work as for any device, and a back-end that is not
// trusted reaches no guest. The price is one copy each way.
//
// The back-end's life cycle follows the driver's: features accepted here are agreed upon there (FEATURES_OK, or no
// queue starts), a queue that starts here starts there, a reset here is a reset there. Once a queue has started there
// it stays, also while it is stopped here.
// A back-end that dies may come back: see RelayedDevice.Reconnect.
// Not here: passing guest memory on without a copy (RemoteDevice does that, for PCI functions); legacy drivers; shared
// memory regions, network announcements, crypto sessions.
using Outboard.Linux.Sockets;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;
using Outboard.Virtio.State;

namespace Outboard.VhostUser.Frontend.Relay;

/// <summary>A device behind a vhost-user socket, to be served again.</summary>
public sealed partial class RelayedDevice : VirtioDevice, IAsyncDisposable
{
    private const VirtioStatus Agreed = VirtioStatus.Acknowledge | VirtioStatus.Driver | VirtioStatus.FeaturesOk;

    /// <summary>What rings between here and the back-end use, when it has it, whatever the driver's do.</summary>
    private const ulong RelayFeatures = VirtioFeatures.Version1 | VirtioFeatures.EventIndex
        | VirtioFeatures.IndirectDescriptors | VirtioFeatures.ProtocolFeatures;

    /// <summary>Largest configuration space: devices of the specification have a few hundred bytes.</summary>
    private const int MaxConfigBytes = 64 << 10;

    /// <summary>Most queues, as a PCI function can have.</summary>
    private const int MaxQueues = 1024;

    /// <summary>Largest state of a device that is moved.</summary>
    private const ulong MaxStateBytes = 64 << 20;

    private const string SizeRecord = "size";
    private const string StateRecord = "far ";

    private readonly VhostUserFrontend _first;
    private readonly ReconnectingFrontend? _link;
    private readonly ulong _offeredFeatures;
    private readonly RelayQueue?[] _relays;
    private readonly SemaphoreSlim _turn = new(1);
    private string? _refusal;
    private bool _isAgreed;
    private ulong _agreedFeatures;
    private bool _runs;

    private RelayedDevice(
        VhostUserFrontend frontend, ReconnectingFrontend? link, in IdentityPayload identity, int[] limits,
        byte[] config)
        : base((VirtioDeviceId)identity.DeviceId, limits, new ConfigSpace(config.Length))
    {
        _first = frontend;
        _link = link;
        _offeredFeatures = frontend.OfferedFeatures & ~VirtioFeatures.Reserved;
        Identity = identity;
        _relays = new RelayQueue?[limits.Length];
        Config.SetBytes(new ConfigField(0, config.Length), config);
        if (link is null)
        {
            frontend.ConfigChanged += OnRemoteConfigChanged;
        }
        else
        {
            link.CompareConfig(config);
            link.ConfigChanged += OnRemoteConfigChanged;
        }

        Lost = WatchAsync();
    }

    /// <summary>What the first back-end said the device is.</summary>
    public IdentityPayload Identity { get; }

    /// <summary>
    /// Completes when the back-end is gone for good. Requests that it has stay unanswered; queues can be stopped, not
    /// started.
    /// </summary>
    public Task Lost { get; }

    /// <inheritdoc/>
    public override ulong DeviceFeatures => _offeredFeatures;

    /// <summary>The present back-end.</summary>
    private VhostUserFrontend Frontend => _link?.Current ?? _first;

    /// <summary>Connects to a back-end that offers LIFE_CYCLE.</summary>
    /// <param name="socketPath">Its socket.</param>
    /// <param name="options">How to talk to it; LIFE_CYCLE is added.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="System.Net.Sockets.SocketException">Nobody listens there.</exception>
    /// <exception cref="ProtocolException">It does not offer LIFE_CYCLE, or does not answer as it should.</exception>
    public static async Task<RelayedDevice> ConnectAsync(
        string socketPath, VhostUserFrontendOptions? options = null, CancellationToken cancellation = default)
    {
        UnixSocket socket = await UnixSocket.ConnectAsync(socketPath, cancellation).ConfigureAwait(false);
        return await ConnectAsync(new SocketChannel(socket), options, cancellation).ConfigureAwait(false);
    }

    /// <summary>As above, over a channel, of which ownership is taken.</summary>
    public static async Task<RelayedDevice> ConnectAsync(
        VhostUserChannel channel, VhostUserFrontendOptions? options = null, CancellationToken cancellation = default)
    {
        options ??= new VhostUserFrontendOptions();
        VhostUserFrontend frontend = new(
            channel, options with { ProtocolFeatures = options.ProtocolFeatures | ProtocolFeatures.LifeCycle });
        try
        {
            await frontend.NegotiateAsync(cancellation).ConfigureAwait(false);
            return await DescribeAsync(frontend, null, cancellation).ConfigureAwait(false);
        }
        catch
        {
            await frontend.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Closes the connection. No queue runs.</summary>
    public async ValueTask DisposeAsync()
    {
        await _ending.CancelAsync().ConfigureAwait(false);
        await _first.DisposeAsync().ConfigureAwait(false);
        await Frontend.DisposeAsync().ConfigureAwait(false);
        await Lost.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        if (_link is not null)
        {
            _link.ForgetQueues();
            await _link.DisposeAsync().ConfigureAwait(false);
        }

        DropRelays();
        _turn.Dispose();
        _ending.Dispose();
    }

    /// <inheritdoc/>
    /// <exception cref="VringSetupException">
    /// Also when the back-end refuses the driver's features, or is gone.
    /// </exception>
    public override async Task<RunningQueue> StartQueue(VringSetup setup, QueueLinks links, QueueWorker worker)
    {
        ArgumentNullException.ThrowIfNull(setup);
        ArgumentOutOfRangeException.ThrowIfNegative(setup.Index);
        ArgumentOutOfRangeException.ThrowIfGreaterThanOrEqual(setup.Index, QueueCount);
        try
        {
            await CallAsync(frontend => StartRelayAsync(frontend, setup.Index)).ConfigureAwait(false);
        }
        catch (Exception error) when (error is ProtocolException or IOException)
        {
            throw new VringSetupException("remote", $"the back-end: {error.Message}");
        }

        return await base.StartQueue(setup, links, worker).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    /// <remarks>Waits for the back-end's answer.</remarks>
    public override bool WriteConfig(uint offset, ReadOnlySpan<byte> source, bool isMigration = false)
    {
        byte[] bytes = source.ToArray();
        if (offset > Config.SizeBytes || bytes.Length > Config.SizeBytes - offset)
        {
            return false;
        }

        try
        {
            Await(CallAsync(async frontend =>
            {
                await (isMigration
                    ? frontend.SetConfigAsync(offset, bytes, isMigration)
                    : frontend.WriteConfigAsync(offset, bytes)).ConfigureAwait(false);
                await RefreshConfigAsync(frontend).ConfigureAwait(false);
            }));
            return true;
        }
        catch (Exception error) when (error is ProtocolException or IOException)
        {
            return false;
        }
    }

    /// <inheritdoc/>
    /// <remarks>Waits for the back-end's answer; when that is gone, only this side is reset.</remarks>
    public override void Reset()
    {
        base.Reset();
        _refusal = null;
        if (!_isAgreed)
        {
            return;
        }

        _isAgreed = false;
        _runs = false;
        try
        {
            Await(CallAsync(ResetRemoteAsync));
        }
        catch (Exception error) when (error is ProtocolException or IOException)
        {
            // There is nothing left that could be reset.
        }

        DropRelays();
    }

    /// <inheritdoc/>
    protected override QueueHandler CreateHandler(QueueContext context) =>
        new RelayHandler(_relays[context.Queue.Index]!, context);

    /// <inheritdoc/>
    protected override void OnFeaturesAccepted(ulong features)
    {
        if (_isAgreed && (_runs || features == _agreedFeatures))
        {
            // Told again; what the driver wrote meanwhile stays. A change while queues run would need a reset first.
            return;
        }

        try
        {
            Await(CallAsync(frontend => AgreeAsync(frontend, features)));
            _agreedFeatures = features;
            _refusal = null;
        }
        catch (Exception error) when (error is ProtocolException or IOException)
        {
            _refusal = error.Message;
        }
    }

    /// <inheritdoc/>
    protected override void OnSave(DeviceStateWriter writer)
    {
        try
        {
            byte[] state = [];
            Await(CallAsync(
                async frontend => state = await frontend.SaveDeviceStateAsync().ConfigureAwait(false)));
            writer.Write(SizeRecord, (ulong)state.Length);
            writer.Write(StateRecord, state);
        }
        catch (Exception error) when (error is ProtocolException or IOException)
        {
            throw new DeviceStateException($"the back-end: {error.Message}");
        }
    }

    /// <inheritdoc/>
    protected override Action OnLoad(DeviceStateReader reader)
    {
        int size = (int)reader.ReadNumber(SizeRecord, MaxStateBytes);
        byte[] state = reader.TryRead(StateRecord, size, out ReadOnlyMemory<byte> bytes)
            ? bytes.ToArray() : throw new DeviceStateException("the back-end's state is missing");
        return () =>
        {
            try
            {
                Await(CallAsync(async frontend =>
                {
                    await frontend.LoadDeviceStateAsync(state).ConfigureAwait(false);
                    await RefreshConfigAsync(frontend).ConfigureAwait(false);
                }));
            }
            catch (Exception error) when (error is ProtocolException or IOException)
            {
                throw new DeviceStateException($"the back-end: {error.Message}");
            }
        };
    }

    private static async Task<RelayedDevice> DescribeAsync(
        VhostUserFrontend frontend, ReconnectingFrontend? link, CancellationToken cancellation)
    {
        if (!frontend.Has(ProtocolFeatures.LifeCycle | ProtocolFeatures.ConfigureMemSlots))
        {
            throw new ProtocolException(
                "GET_PROTOCOL_FEATURES", "features",
                "the back-end does not offer LIFE_CYCLE with CONFIGURE_MEM_SLOTS: start it with --life-cycle");
        }

        IdentityPayload identity = await frontend.GetIdentityAsync(cancellation).ConfigureAwait(false);
        if (identity.QueueCount is 0 or > MaxQueues || identity.ConfigBytes > MaxConfigBytes)
        {
            throw new ProtocolException(
                "GET_IDENTITY", "reply",
                $"{identity.QueueCount} queues, {identity.ConfigBytes} bytes of configuration");
        }

        int[] limits = new int[identity.QueueCount];
        for (int i = 0; i < limits.Length; i++)
        {
            limits[i] = await frontend.GetQueueLimitAsync(i, cancellation).ConfigureAwait(false);
        }

        int size = (int)identity.ConfigBytes;
        byte[] config = await frontend.ReadWholeConfigAsync(size, cancellation).ConfigureAwait(false);
        return new RelayedDevice(frontend, link, in identity, limits, config);
    }

    private static void Await(Task task) => task.GetAwaiter().GetResult();

    /// <summary>No queue runs here, and none over there: the next back-end is not told of them.</summary>
    private void DropRelays()
    {
        _link?.ForgetQueues();
        Array.ForEach(_relays, relay => relay?.Dispose());
        Array.Clear(_relays);
    }

    /// <summary>From reset to FEATURES_OK.</summary>
    private async Task AgreeAsync(VhostUserFrontend frontend, ulong features)
    {
        _isAgreed = false;
        await ResetRemoteAsync(frontend).ConfigureAwait(false);
        if ((features & VirtioFeatures.Version1) == 0)
        {
            throw new ProtocolException("SET_FEATURES", "features", "legacy drivers are not relayed (no VERSION_1)");
        }

        ulong wanted = (features & ~VirtioFeatures.Reserved) | (RelayFeatures & frontend.OfferedFeatures);
        await frontend.SetStatusAsync(VirtioStatus.Acknowledge).ConfigureAwait(false);
        await frontend.SetStatusAsync(VirtioStatus.Acknowledge | VirtioStatus.Driver).ConfigureAwait(false);
        await frontend.SetFeaturesAsync(wanted).ConfigureAwait(false);
        await frontend.SetStatusAsync(Agreed).ConfigureAwait(false);
        VirtioStatus taken = await frontend.GetStatusAsync().ConfigureAwait(false);
        if (taken != Agreed)
        {
            throw new ProtocolException("SET_STATUS", "status", $"0x{(uint)taken:x}: the features are refused");
        }

        if (_link is not null)
        {
            await _link.AgreeAsync(QueueCount, RelayQueue.MostDescriptors, _ending.Token).ConfigureAwait(false);
        }

        _isAgreed = true;
    }

    private async Task ResetRemoteAsync(VhostUserFrontend frontend)
    {
        await frontend.SetStatusAsync(VirtioStatus.None).ConfigureAwait(false);
        foreach (RelayQueue? relay in _relays)
        {
            if (relay is not null)
            {
                await frontend.RemMemRegAsync(relay.Memory).ConfigureAwait(false);
            }
        }

        DropRelays();
        await RefreshConfigAsync(frontend).ConfigureAwait(false);
    }

    private async Task StartRelayAsync(VhostUserFrontend frontend, int index)
    {
        if (!_isAgreed || Lost.IsCompleted)
        {
            throw new ProtocolException(
                "SET_STATUS", "status", Lost.IsCompleted ? "it is gone" : _refusal ?? "no features were accepted");
        }

        if (_relays[index] is null)
        {
            RelayQueue relay = new(index, MaxQueueSize(index), frontend.Features);
            try
            {
                await frontend.ShareMemoryAsync(relay.Memory).ConfigureAwait(false);
                await frontend.ResumeQueueAsync(relay.Queue, relay.Queue.Ring.InitialBase).ConfigureAwait(false);
                _relays[index] = relay;
                _link?.Keep(relay.Memory, relay.Queue);
            }
            catch
            {
                relay.Dispose();
                throw;
            }
        }

        if (!_runs)
        {
            await frontend.SetStatusAsync(Agreed | VirtioStatus.DriverOk).ConfigureAwait(false);
            _runs = true;
        }
    }

    private async Task RefreshConfigAsync(VhostUserFrontend frontend)
    {
        byte[] config = await frontend.ReadWholeConfigAsync(Config.SizeBytes).ConfigureAwait(false);
        Config.SetBytes(new ConfigField(0, config.Length), config);
    }

    private void OnRemoteConfigChanged() => _ = FollowConfigAsync();

    private async Task FollowConfigAsync()
    {
        try
        {
            // In turn: what was read later is not overwritten by what was read before.
            await CallAsync(RefreshConfigAsync).ConfigureAwait(false);
            NotifyConfigChanged();
        }
        catch (Exception error) when (error is ProtocolException or IOException or ObjectDisposedException)
        {
            // The back-end is gone: nothing more is told.
        }
    }
}
