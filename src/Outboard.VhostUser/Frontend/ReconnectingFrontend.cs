// A front-end that outlives its back-ends. It keeps what a back-end must be told (memory, rings, the in-flight region),
// and tells it to each one that comes:
//
//   negotiate, as before -> compare (BackendIdentity) -> all control state -> a kick, since requests may be waiting
//
//   what                                       told again
//   features, protocol features                at negotiation: those in use, LOG_ALL after the log
//   channel for the back-end's requests        at negotiation
//   NET_SET_MTU                                1   first, as other front-ends do
//   memory: ADD_MEM_REG or SET_MEM_TABLE       2
//   SET_LOG_BASE, SET_LOG_FD, LOG_ALL          3   while logging is on
//   SET_INFLIGHT_FD                            4   the region that its predecessor wrote
//   SET_STATUS up to FEATURES_OK               5   and GET_STATUS: FEATURES_OK must stay
//   SET_CONFIG                                 6   the last value of each byte that the driver wrote
//   CREATE_CRYPTO_SESSION                      7   drivers know sessions by number: each must get the one it had
//   SUSPEND (behind LIFE_CYCLE)                8
//   each ring that runs: SET_VRING_ENDIAN,     9   from where the used side stands; one that was disabled is disabled
//     NUM, BASE, ADDR, ERR, CALL, KICK, ENABLE
//   SET_STATUS in full                         10
//   translations of an IOMMU                   when asked for; those of used rings with the ring
//   shared objects, mappings, doorbells        the new back-end says what it has; doorbells go over to the queues
//   not told: RARP, device state (they happen once), a display's socket (whoever holds its other end asks for another)
//
// A back-end that died in post-copy took pages of the guest with it: nothing may take over.
// What a reset undoes (SET_STATUS 0, RESET_DEVICE) is not told again: writes, sessions, rings.
// With an in-flight region the back-end submits again what its predecessor held, and the queues may be used all the
// time: their requests just take longer. Without one this side does it (DriverQueue.ResubmitInFlight), for which nobody
// else may use the queues: a request may then be carried out twice, though it is completed once.
// A connect may succeed on a socket whose owner is dying, so everything up to the last step is one attempt.
// The configuration space that counts is the last one that was read: when a back-end tells that it changed, it is read
// again; when that fails, a successor may have any.
using System.Diagnostics;
using Outboard.Memory;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.VhostUser.Frontend;

/// <summary>Drives a device whose back-end may die and come back.</summary>
/// <remarks>
/// Methods are called one at a time. When <see cref="Lost"/> completes, call <see cref="ReconnectAsync"/>.
/// </remarks>
public sealed partial class ReconnectingFrontend : IAsyncDisposable
{
    private readonly ChannelSource _source;
    private VhostUserFrontendOptions _options;
    private ReconnectOptions _reconnect;
    private BackendIdentity _identity;
    private volatile bool _isConfigUnknown;
    private readonly List<DriverMemory> _memories = [];
    private readonly List<FrontendQueue> _queues = [];
    private InflightRegion? _inflight;

    private ReconnectingFrontend(
        ChannelSource source,
        VhostUserFrontend frontend,
        BackendIdentity identity,
        VhostUserFrontendOptions options,
        ReconnectOptions reconnect)
    {
        _source = source;
        _identity = identity;
        _reconnect = reconnect;
        Current = frontend;

        // Successors are asked for what is in use, not for more.
        _options = options with
        {
            Features = identity.Features,
            ProtocolFeatures = identity.ProtocolFeatures,
            SharedObjects = options.SharedObjects ?? new SharedObjectTable(),
        };
        Follow(frontend);
    }

    /// <summary>
    /// Raised, on a pool thread, when the back-end tells that its configuration space changed, and when nobody knows
    /// whether that of a successor is another.
    /// </summary>
    public event Action? ConfigChanged;

    /// <summary>Raised, on a pool thread, when a back-end tells by a message that a ring is broken.</summary>
    public event Action<int>? RingBroken;

    /// <summary>As <see cref="VhostUserFrontend.AccessFailed"/>, of whichever back-end.</summary>
    public event Action<ulong, MemoryAccess>? AccessFailed;

    /// <summary>A digest of what is in use and each successor must have, its configuration space included.</summary>
    public string Digest => _identity.Digest;

    /// <summary>The connection to the present back-end. Replaced by <see cref="ReconnectAsync"/>.</summary>
    public VhostUserFrontend Current { get; private set; }

    /// <summary>The queues that were started.</summary>
    public IReadOnlyList<FrontendQueue> Queues => _queues;

    /// <summary>Whether the back-end records what it holds, so that queues may be used while it is away.</summary>
    public bool TracksInflight => _inflight is not null;

    /// <summary>Successors so far.</summary>
    public int Reconnections { get; private set; }

    /// <summary>Completes when the present back-end is gone.</summary>
    public Task Lost => Current.Disconnected;

    /// <summary>Connects to the first back-end and negotiates.</summary>
    /// <param name="source">Where back-ends are found; stays the caller's.</param>
    /// <param name="options">What to negotiate.</param>
    /// <param name="reconnect">How to get a back-end back; its limit counts for the first one, too.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="IOException">No back-end came within the limit.</exception>
    /// <exception cref="ProtocolException">The back-end does not answer as it should.</exception>
    public static async Task<ReconnectingFrontend> ConnectAsync(
        ChannelSource source,
        VhostUserFrontendOptions? options = null,
        ReconnectOptions? reconnect = null,
        CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(source);
        options ??= new VhostUserFrontendOptions();
        reconnect ??= new ReconnectOptions();
        ReconnectingFrontend? made = null;
        TimeSpan limit = reconnect.ConnectLimit ?? reconnect.Limit;
        await AttemptAsync(source, options, reconnect, limit, async frontend =>
        {
            int configBytes = reconnect.ConfigSizeBytes;
            BackendIdentity identity =
                await BackendIdentity.ReadAsync(frontend, configBytes, cancellation).ConfigureAwait(false);
            made = new ReconnectingFrontend(source, frontend, identity, options, reconnect);
        }, cancellation).ConfigureAwait(false);
        return made!;
    }

    /// <summary>Gives the back-end memory, and each one after it.</summary>
    public async Task ShareMemoryAsync(DriverMemory memory, CancellationToken cancellation = default)
    {
        await Current.ShareMemoryAsync(memory, cancellation).ConfigureAwait(false);
        _memories.Add(memory);
    }

    /// <summary>
    /// Starts queues 0 to <paramref name="count"/> - 1, with in-flight tracking if the back-end has it.
    /// </summary>
    /// <param name="count">Queues.</param>
    /// <param name="size">Descriptors of each.</param>
    /// <param name="memory">Where the rings are laid out; shared before.</param>
    /// <param name="cancellation">Gives up waiting for replies.</param>
    /// <returns>The queues, which this object disposes.</returns>
    /// <exception cref="InvalidOperationException">Queues were started before.</exception>
    public async Task<IReadOnlyList<FrontendQueue>> StartQueuesAsync(
        int count, int size, DriverMemory memory, CancellationToken cancellation = default)
    {
        if (_queues.Count > 0)
        {
            throw new InvalidOperationException("the queues have been started: the in-flight region is made for all");
        }

        if (_reconnect.TrackInflight && Current.Has(ProtocolFeatures.InflightShmFd))
        {
            _inflight = await Current.GetInflightFdAsync(count, size, cancellation).ConfigureAwait(false);
            await Current.SetInflightFdAsync(_inflight, cancellation).ConfigureAwait(false);
        }

        for (int i = 0; i < count; i++)
        {
            _queues.Add(await Current.StartQueueAsync(i, size, memory, cancellation).ConfigureAwait(false));
        }

        return _queues;
    }

    /// <summary>Waits for a successor of the back-end and hands everything to it.</summary>
    /// <remarks>
    /// Without <see cref="TracksInflight"/> nobody uses the queues meanwhile, and everything used has been collected.
    /// </remarks>
    /// <exception cref="BackendMismatchException">What came is not the same device.</exception>
    /// <exception cref="IOException">None came within the limit; the message has the last failure.</exception>
    public async Task ReconnectAsync(CancellationToken cancellation = default)
    {
        await Current.DisposeAsync().ConfigureAwait(false);
        ControlState state = Current.State;
        bool isLogging = Current.IsLogging;
        if (state.IsInPostcopy)
        {
            throw new BackendMismatchException("post-copy", "pages of the guest went with the back-end that had them");
        }

        await AttemptAsync(_source, _options, _reconnect, _reconnect.Limit, async frontend =>
        {
            await CheckAsync(frontend, state, cancellation).ConfigureAwait(false);
            Follow(frontend);
            await ReplayAsync(frontend, state, isLogging, cancellation).ConfigureAwait(false);
            Current = frontend;
        }, cancellation).ConfigureAwait(false);
        Reconnections++;
        if (_isConfigUnknown)
        {
            _isConfigUnknown = false;
            ConfigChanged?.Invoke();
        }
    }

    /// <summary>Closes the connection, the eventfds of the queues and the in-flight region.</summary>
    public async ValueTask DisposeAsync()
    {
        await Current.DisposeAsync().ConfigureAwait(false);
        _queues.ForEach(queue => queue.Dispose());
        _inflight?.Dispose();
    }

    /// <summary>Connects, negotiates and prepares, again and again until all of it succeeds.</summary>
    private static async Task AttemptAsync(
        ChannelSource source,
        VhostUserFrontendOptions options,
        ReconnectOptions reconnect,
        TimeSpan limit,
        Func<VhostUserFrontend, Task> prepare,
        CancellationToken cancellation)
    {
        BackOff delays = new(reconnect.FirstDelay, reconnect.LongestDelay);
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            try
            {
                TimeSpan left = limit - Stopwatch.GetElapsedTime(start);
                left = limit < TimeSpan.Zero ? Timeout.InfiniteTimeSpan : left < TimeSpan.Zero ? TimeSpan.Zero : left;
                VhostUserChannel channel = await source.NextAsync(left, cancellation).ConfigureAwait(false);
                await PrepareAsync(channel, options, prepare, cancellation).ConfigureAwait(false);
                return;
            }
            catch (Exception error) when (
                error is ProtocolException or (IOException and not BackendMismatchException))
            {
                TimeSpan delay = delays.Next();
                TimeSpan waited = Stopwatch.GetElapsedTime(start);
                if (limit >= TimeSpan.Zero && waited + delay >= limit)
                {
                    string message = $"{source.Description}: no back-end within {waited.TotalSeconds:F1} s";
                    throw new IOException($"{message}: {error.Message}", error);
                }

                await Task.Delay(delay, cancellation).ConfigureAwait(false);
            }
        }
    }

    private static async Task PrepareAsync(
        VhostUserChannel channel,
        VhostUserFrontendOptions options,
        Func<VhostUserFrontend, Task> prepare,
        CancellationToken cancellation)
    {
        VhostUserFrontend frontend = new(channel, options);
        try
        {
            await frontend.NegotiateAsync(cancellation).ConfigureAwait(false);
            await prepare(frontend).ConfigureAwait(false);
        }
        catch
        {
            await frontend.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }
}
