// A relayed device whose back-end dies and comes back. The next one is compared with the first (BackendIdentity: kind,
// features in use, queues, configuration space), told all control state again, and given the record of requests in
// flight, in which it finds what its predecessor held: ReconnectingFrontend does that, and its head has the list.
//
//   back-end gone --> calls wait, requests stay in the rings --> next one: the same?  --yes--> told all; calls go on
//                                                                                   --no---> Lost, with the field
//
// A driver sees a pause: what it asked for takes as long as the back-end is away, up to the limit. Queues go on taking
// requests meanwhile, as far as there is room, and a back-end that keeps a journal carries each out once.
// Calls and the reconnection take turns; a call that the end of a connection interrupted is made again from its
// beginning: each of them is such that what was done of it the first time makes no difference.
// A back-end without in-flight tracking is not replaced: nobody would know which of its requests were carried out.
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Frontend.Relay;

public sealed partial class RelayedDevice
{
    /// <summary>Until the end of a connection has been noticed everywhere.</summary>
    private static readonly TimeSpan s_retry = TimeSpan.FromMilliseconds(10);

    private readonly CancellationTokenSource _ending = new();

    /// <summary>Raised, on a pool thread, when a back-end was lost that may come back.</summary>
    public event Action? Away;

    /// <summary>Raised, on a pool thread, when the next back-end has taken over.</summary>
    public event Action? Returned;

    /// <summary>Why the back-end is gone for good, once <see cref="Lost"/> is complete; null when it just went away.
    /// </summary>
    public string? LostReason { get; private set; }

    /// <summary>
    /// Connects to a back-end that offers LIFE_CYCLE, and to the next one whenever one is gone.
    /// </summary>
    /// <param name="source">Where back-ends are found; stays the caller's.</param>
    /// <param name="reconnect">How to get one back. Its configuration space is compared in any case.</param>
    /// <param name="options">How to talk to it; LIFE_CYCLE is added.</param>
    /// <param name="cancellation">Gives up.</param>
    /// <exception cref="IOException">No back-end came within the limit.</exception>
    /// <exception cref="ProtocolException">It does not offer LIFE_CYCLE, or does not answer as it should.</exception>
    public static async Task<RelayedDevice> ConnectAsync(
        ChannelSource source, ReconnectOptions reconnect, VhostUserFrontendOptions? options = null,
        CancellationToken cancellation = default)
    {
        options ??= new VhostUserFrontendOptions();
        ReconnectingFrontend link = await ReconnectingFrontend.ConnectAsync(
            source, options with { ProtocolFeatures = options.ProtocolFeatures | ProtocolFeatures.LifeCycle },
            reconnect, cancellation).ConfigureAwait(false);
        try
        {
            return await DescribeAsync(link.Current, link, cancellation).ConfigureAwait(false);
        }
        catch
        {
            await link.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Waits for the end of each back-end, and for the next one.</summary>
    private async Task WatchAsync()
    {
        do
        {
            await Frontend.Disconnected.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
        while (!_ending.IsCancellationRequested && _link is not null && await TryReconnectAsync(_link)
            .ConfigureAwait(false));

        foreach (RelayQueue? relay in _relays)
        {
            relay?.Lose();
        }
    }

    private async Task<bool> TryReconnectAsync(ReconnectingFrontend link)
    {
        Away?.Invoke();
        await _turn.WaitAsync().ConfigureAwait(false);
        try
        {
            if (!link.TracksInflight && link.Queues.Count > 0)
            {
                LostReason = "it kept no record of requests in flight, so none can take its place";
                return false;
            }

            await link.ReconnectAsync(_ending.Token).ConfigureAwait(false);
        }
        catch (Exception error) when (error is IOException or ProtocolException or OperationCanceledException)
        {
            LostReason = error.Message;
            return false;
        }
        finally
        {
            _turn.Release();
        }

        Returned?.Invoke();
        return true;
    }

    /// <summary>Asks the back-end for something; when it goes away meanwhile, the next one.</summary>
    /// <exception cref="IOException">There is none any more.</exception>
    private async Task CallAsync(Func<VhostUserFrontend, Task> call)
    {
        while (true)
        {
            await _turn.WaitAsync().ConfigureAwait(false);
            try
            {
                if (_link is null || !Frontend.Disconnected.IsCompleted)
                {
                    await call(Frontend).ConfigureAwait(false);
                    return;
                }
            }
            catch (Exception error) when (
                _link is not null && error is IOException or ProtocolException { IsFatal: true })
            {
                // The connection ended, or is about to be seen as ended.
            }
            finally
            {
                _turn.Release();
            }

            if (Lost.IsCompleted)
            {
                throw new IOException($"it is gone: {LostReason}");
            }

            await Task.Delay(s_retry).ConfigureAwait(false);
        }
    }
}
