// The device under load: a connection, memory, and for each queue a ring and a block driver.
// The memory outlives the connection: after a crash of the back-end the same rings are handed to its successor.
using System.Diagnostics;
using System.Net.Sockets;
using Outboard.Devices.Block.Driver;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Bench;

/// <summary>A connected block device with started queues.</summary>
internal sealed class LoadTarget : IAsyncDisposable
{
    private static readonly TimeSpan s_connectInterval = TimeSpan.FromMilliseconds(5);

    private readonly LoadSettings _settings;
    private VhostUserFrontend _frontend;

    private LoadTarget(LoadSettings settings, VhostUserFrontend frontend, BlockConfigView config)
    {
        _settings = settings;
        _frontend = frontend;
        Config = config;
        Memory = new DriverMemory(MemoryBytes(settings));
        Queues = new FrontendQueue[settings.QueueCount];
        Drivers = new BlockDriver[settings.QueueCount];
    }

    public BlockConfigView Config { get; }

    public DriverMemory Memory { get; }

    public FrontendQueue[] Queues { get; }

    public BlockDriver[] Drivers { get; }

    /// <summary>The features in force.</summary>
    public ulong Features => _frontend.Features;

    /// <summary>Bytes from the disk's start that the load uses.</summary>
    public long RangeBytes { get; private init; }

    /// <summary>Connects, and starts the queues.</summary>
    /// <param name="settings">The load.</param>
    /// <param name="limit">How long the back-end may take until it listens.</param>
    /// <param name="isHopeless">Tells that the back-end will never listen.</param>
    /// <exception cref="IOException">Nobody listens, or the load does not fit the device.</exception>
    public static async Task<LoadTarget> ConnectAsync(
        LoadSettings settings, TimeSpan limit = default, Func<bool>? isHopeless = null)
    {
        VhostUserFrontend frontend = await ConnectWithinAsync(settings, limit, isHopeless).ConfigureAwait(false);
        BlockConfigView config = await ReadConfigAsync(frontend).ConfigureAwait(false);
        Check(settings, frontend, config);
        LoadTarget target = new(settings, frontend, config)
        {
            RangeBytes = settings.RangeBytes == 0
                ? (long)config.CapacityBytes : Math.Min(settings.RangeBytes, (long)config.CapacityBytes),
        };
        await frontend.ShareMemoryAsync(target.Memory).ConfigureAwait(false);
        for (int i = 0; i < settings.QueueCount; i++)
        {
            FrontendQueue queue = await frontend
                .StartQueueAsync(i, settings.EffectiveQueueSize, target.Memory).ConfigureAwait(false);
            target.Queues[i] = queue;
            target.Drivers[i] = new BlockDriver(queue, settings.QueueDepth, (uint)settings.BlockSize);
        }

        return target;
    }

    /// <summary>
    /// Connects to the successor of a back-end that died, and hands it the rings: requests in flight are submitted
    /// again. Everything that the dead one used has been collected.
    /// </summary>
    /// <param name="limit">How long the successor may take until it listens.</param>
    public async Task ReconnectAsync(TimeSpan limit)
    {
        ulong features = _frontend.Features;
        await _frontend.DisposeAsync().ConfigureAwait(false);
        _frontend = await ConnectWithinAsync(_settings, limit, null).ConfigureAwait(false);
        BlockConfigView config = await ReadConfigAsync(_frontend).ConfigureAwait(false);
        if (_frontend.Features != features || config != Config)
        {
            throw new IOException(
                "the back-end that came back is another one: "
                + $"features 0x{_frontend.Features:x} instead of 0x{features:x}, "
                + $"{config.CapacityBytes} bytes instead of {Config.CapacityBytes}");
        }

        await _frontend.ShareMemoryAsync(Memory).ConfigureAwait(false);
        foreach (FrontendQueue queue in Queues)
        {
            await _frontend.ResumeQueueAsync(queue, queue.Ring.ResubmitInFlight()).ConfigureAwait(false);
        }
    }

    /// <summary>Stops the queues, so that nothing is lost, and closes the connection.</summary>
    public async Task StopAsync()
    {
        foreach (FrontendQueue queue in Queues)
        {
            await _frontend.StopQueueAsync(queue).ConfigureAwait(false);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _frontend.DisposeAsync().ConfigureAwait(false);
        foreach (FrontendQueue? queue in Queues)
        {
            queue?.Dispose();
        }

        Memory.Dispose();
    }

    private static async Task<VhostUserFrontend> ConnectWithinAsync(
        LoadSettings settings, TimeSpan limit, Func<bool>? isHopeless)
    {
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            try
            {
                return await ConnectFrontendAsync(settings).ConfigureAwait(false);
            }
            catch (IOException) when (Stopwatch.GetElapsedTime(start) < limit && isHopeless?.Invoke() != true)
            {
                await Task.Delay(s_connectInterval).ConfigureAwait(false);
            }
        }
    }

    private static async Task<VhostUserFrontend> ConnectFrontendAsync(LoadSettings settings)
    {
        VhostUserFrontendOptions defaults = new();
        VhostUserFrontendOptions options = defaults with
        {
            UseIndirect = settings.UseIndirect,
            UsePacked = settings.UsePacked,
            Features = settings.UseEventIndex ? defaults.Features : defaults.Features & ~VirtioFeatures.EventIndex,
            ProtocolFeatures = settings.UseMemoryTable
                ? defaults.ProtocolFeatures & ~ProtocolFeatures.ConfigureMemSlots : defaults.ProtocolFeatures,
        };
        try
        {
            return await VhostUserFrontend.ConnectAsync(settings.SocketPath, options).ConfigureAwait(false);
        }
        catch (SocketException error)
        {
            string reason = File.Exists(settings.SocketPath) ? "nobody listens there" : "there is no such socket";
            throw new IOException($"{settings.SocketPath}: {reason}; start a vhost-user-blk back-end first", error);
        }
        catch (ProtocolException error)
        {
            throw new IOException($"{settings.SocketPath}: {error.Message}", error);
        }
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
