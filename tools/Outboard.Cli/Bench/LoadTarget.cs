// The device under load: a connection, memory, and for each queue a ring and a block driver.
// The memory outlives the connection: after a crash of the back-end the same rings are handed to its successor.
using System.Diagnostics;
using Outboard.Devices.Block.Driver;
using Outboard.Linux;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Bench;

/// <summary>A connected block device with started queues.</summary>
internal sealed class LoadTarget : IAsyncDisposable
{
    private static readonly TimeSpan s_connectInterval = TimeSpan.FromMilliseconds(5);
    private static readonly TimeSpan s_longestInterval = TimeSpan.FromMilliseconds(50);

    private readonly ChannelSource _source;
    private readonly ReconnectingFrontend _frontend;

    private LoadTarget(
        LoadSettings settings, ChannelSource source, ReconnectingFrontend frontend, BlockConfigView config)
    {
        _source = source;
        _frontend = frontend;
        Config = config;
        Memory = new DriverMemory(MemoryBytes(settings));
        Drivers = new BlockDriver[settings.QueueCount];
    }

    public BlockConfigView Config { get; }

    public DriverMemory Memory { get; }

    public IReadOnlyList<FrontendQueue> Queues => _frontend.Queues;

    public BlockDriver[] Drivers { get; }

    /// <summary>The features in force.</summary>
    public ulong Features => _frontend.Current.Features;

    /// <summary>Whether the back-end records what it holds: then the rings may be used while it is away.</summary>
    public bool TracksInflight => _frontend.TracksInflight;

    /// <summary>Completes when the back-end is gone.</summary>
    public Task Lost => _frontend.Lost;

    /// <summary>Back-ends that came after another one.</summary>
    public int Reconnections => _frontend.Reconnections;

    /// <summary>Bytes from the disk's start that the load uses.</summary>
    public long RangeBytes { get; private init; }

    /// <summary>Connects, and starts the queues.</summary>
    /// <param name="settings">The load.</param>
    /// <param name="limit">How long the back-end may take until it is there.</param>
    /// <param name="isHopeless">Tells that the back-end will never be there.</param>
    /// <exception cref="IOException">Nobody is there, or the load does not fit the device.</exception>
    public static async Task<LoadTarget> ConnectAsync(
        LoadSettings settings, TimeSpan limit = default, Func<bool>? isHopeless = null)
    {
        ChannelSource source = settings.Listens
            ? ChannelSource.Listen(settings.SocketPath)
            : ChannelSource.Connect(settings.SocketPath, new BackOff(s_connectInterval, s_longestInterval));
        long began = Stopwatch.GetTimestamp();
        try
        {
            while (true)
            {
                ReconnectingFrontend frontend =
                    await ConnectFrontendAsync(settings, source, limit, isHopeless).ConfigureAwait(false);
                try
                {
                    return await StartAsync(settings, source, frontend).ConfigureAwait(false);
                }
                catch (Exception error) when (error is ProtocolException or LinuxException)
                {
                    // It went away before the load began: the next one is as good, if there is time to wait for it.
                    await frontend.DisposeAsync().ConfigureAwait(false);
                    if (Stopwatch.GetElapsedTime(began) >= settings.ReconnectLimit)
                    {
                        throw new IOException($"{settings.SocketPath}: {error.Message}", error);
                    }

                    await Task.Delay(s_longestInterval).ConfigureAwait(false);
                }
                catch
                {
                    await frontend.DisposeAsync().ConfigureAwait(false);
                    throw;
                }
            }
        }
        catch
        {
            source.Dispose();
            throw;
        }
    }

    /// <summary>
    /// Waits for the successor of a back-end that died, and hands it the rings. Without <see cref="TracksInflight"/>
    /// nobody uses the rings meanwhile, and everything that the dead one used has been collected.
    /// </summary>
    public Task ReconnectAsync(CancellationToken cancellation = default) => _frontend.ReconnectAsync(cancellation);

    /// <summary>Stops the queues, so that nothing is lost, and closes the connection.</summary>
    public async Task StopAsync()
    {
        foreach (FrontendQueue queue in Queues)
        {
            await _frontend.Current.StopQueueAsync(queue).ConfigureAwait(false);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _frontend.DisposeAsync().ConfigureAwait(false);
        _source.Dispose();
        Memory.Dispose();
    }

    private static async Task<LoadTarget> StartAsync(
        LoadSettings settings, ChannelSource source, ReconnectingFrontend frontend)
    {
        BlockConfigView config = await ReadConfigAsync(frontend.Current).ConfigureAwait(false);
        Check(settings, frontend.Current, config);
        LoadTarget target = new(settings, source, frontend, config)
        {
            RangeBytes = settings.RangeBytes == 0
                ? (long)config.CapacityBytes : Math.Min(settings.RangeBytes, (long)config.CapacityBytes),
        };
        try
        {
            await frontend.ShareMemoryAsync(target.Memory).ConfigureAwait(false);
            await frontend.StartQueuesAsync(settings.QueueCount, settings.EffectiveQueueSize, target.Memory)
                .ConfigureAwait(false);
        }
        catch
        {
            target.Memory.Dispose();
            throw;
        }

        for (int i = 0; i < settings.QueueCount; i++)
        {
            target.Drivers[i] = new BlockDriver(frontend.Queues[i], settings.QueueDepth, (uint)settings.BlockSize);
        }

        return target;
    }

    /// <summary>The first connection. Who gives no time for it wants to know at once why there is none.</summary>
    private static async Task<ReconnectingFrontend> ConnectFrontendAsync(
        LoadSettings settings, ChannelSource source, TimeSpan limit, Func<bool>? isHopeless)
    {
        using CancellationTokenSource hopeless = new();
        using Timer? watch = isHopeless is null ? null : new Timer(
            _ => CancelIf(isHopeless(), hopeless), null, s_longestInterval, s_longestInterval);
        limit = limit > settings.ReconnectLimit ? limit : settings.ReconnectLimit;
        ReconnectOptions reconnect = new()
        {
            Limit = settings.ReconnectLimit,
            ConnectLimit = settings.Listens ? Timeout.InfiniteTimeSpan : limit,
            FirstDelay = s_connectInterval,
            LongestDelay = s_longestInterval,
            ConfigSizeBytes = BlockConfig.Bytes,
            TrackInflight = settings.TrackInflight,
        };
        try
        {
            return await ReconnectingFrontend.ConnectAsync(
                source, Options(settings), reconnect, hopeless.Token).ConfigureAwait(false);
        }
        catch (OperationCanceledException error)
        {
            throw new IOException($"{settings.SocketPath}: the back-end ended before it was there", error);
        }
        catch (IOException error) when (limit == TimeSpan.Zero && error.InnerException is LinuxException)
        {
            string reason = File.Exists(settings.SocketPath) ? "nobody listens there" : "there is no such socket";
            throw new IOException($"{settings.SocketPath}: {reason}; start a vhost-user-blk back-end first", error);
        }
    }

    private static void CancelIf(bool condition, CancellationTokenSource source)
    {
        if (condition)
        {
            source.Cancel();
        }
    }

    private static VhostUserFrontendOptions Options(LoadSettings settings)
    {
        VhostUserFrontendOptions defaults = new();
        return defaults with
        {
            UseIndirect = settings.UseIndirect,
            UsePacked = settings.UsePacked,
            UseInOrder = settings.UseInOrder,
            Features = settings.UseEventIndex ? defaults.Features : defaults.Features & ~VirtioFeatures.EventIndex,
            ProtocolFeatures = settings.UseMemoryTable
                ? defaults.ProtocolFeatures & ~ProtocolFeatures.ConfigureMemSlots : defaults.ProtocolFeatures,
        };
    }

    private static async Task<BlockConfigView> ReadConfigAsync(VhostUserFrontend frontend)
    {
        if (!frontend.Has(ProtocolFeatures.Config))
        {
            throw new IOException("the back-end does not tell its configuration (no CONFIG): it is no block device");
        }

        byte[] bytes = await frontend.GetConfigAsync(0, BlockConfig.Bytes).ConfigureAwait(false);
        return BlockConfigView.Decode(bytes, frontend.Features);
    }

    private static void Check(LoadSettings settings, VhostUserFrontend frontend, BlockConfigView config)
    {
        int queues = Math.Max(config.QueueCount, 1);
        if (settings.QueueCount > queues)
        {
            throw new IOException($"--queues={settings.QueueCount}: the back-end has {queues}");
        }

        if (settings.BlockSize % config.BlockSize != 0)
        {
            throw new IOException($"--block-size={settings.BlockSize}: the disk's block size is {config.BlockSize}");
        }

        if (config.IsReadOnly && (settings.Verify || settings.ReadPercent < 100))
        {
            throw new IOException("the disk is read-only: use --read-percent=100 without --verify");
        }

        if (settings.UsePacked && (frontend.Features & VirtioFeatures.RingPacked) == 0)
        {
            throw new IOException("--packed: the back-end does not offer packed virtqueues");
        }

        if (settings.UseInOrder && (frontend.Features & VirtioFeatures.InOrder) == 0)
        {
            throw new IOException("--in-order: the back-end does not offer it; start it with --in-order, too");
        }

        if (settings.UseIndirect && (frontend.Features & VirtioFeatures.IndirectDescriptors) == 0)
        {
            throw new IOException("--indirect: the back-end does not offer indirect descriptors");
        }
    }

    private static ulong MemoryBytes(LoadSettings settings)
    {
        // Descriptor, available and used entry, and an indirect table of up to 16 entries for each.
        const ulong bytesPerDescriptor = 32 + (16 * 16);
        const ulong slack = 1 << 20;
        ulong queue = ((ulong)settings.EffectiveQueueSize * bytesPerDescriptor)
            + BlockDriver.MemoryBytes(settings.QueueDepth, (uint)settings.BlockSize) + 4096;
        return ((ulong)settings.QueueCount * queue) + slack;
    }
}
