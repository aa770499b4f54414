// What a successor is compared with, and told: see the table in ReconnectingFrontend.cs, whose numbers stand here.
using Outboard.Memory;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend;

public sealed partial class ReconnectingFrontend
{
    private const VirtioStatus UpToFeatures = VirtioStatus.Acknowledge | VirtioStatus.Driver | VirtioStatus.FeaturesOk;

    /// <summary>For a user that starts queues by itself: what each successor is given beside what it is told.</summary>
    internal void Keep(DriverMemory memory, FrontendQueue queue)
    {
        _memories.Add(memory);
        _queues.Add(queue);
    }

    /// <summary>The device was reset: no memory, no queues. They stay their maker's.</summary>
    internal void ForgetQueues()
    {
        _memories.Clear();
        _queues.Clear();
    }

    /// <summary>
    /// The driver agreed upon features anew: successors are asked for these, and given a record of requests in flight
    /// that is new as well. No ring has been started since.
    /// </summary>
    internal async Task AgreeAsync(int queues, int size, CancellationToken cancellation)
    {
        _identity = _identity with { Features = Current.Features };
        _options = _options with { Features = Current.Features };
        if (Current.Has(ProtocolFeatures.InflightShmFd))
        {
            // A successor that comes in the midst of this is given none: it is asked for a new one.
            _inflight?.Dispose();
            _inflight = null;
            _inflight = await Current.GetInflightFdAsync(queues, size, cancellation).ConfigureAwait(false);
            await Current.SetInflightFdAsync(_inflight, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Has each successor's configuration space compared, all of it.</summary>
    internal void CompareConfig(byte[] config)
    {
        _reconnect = _reconnect with { ConfigSizeBytes = config.Length };
        _identity = _identity with { Config = config };
    }

    private void Follow(VhostUserFrontend frontend)
    {
        frontend.ConfigChanged += () => _ = FollowConfigAsync(frontend);
        frontend.RingBroken += ring => RingBroken?.Invoke(ring);
        frontend.AccessFailed += (address, access) => AccessFailed?.Invoke(address, access);
    }

    /// <summary>The space changed: what the driver is about to read is what each successor must have.</summary>
    private async Task FollowConfigAsync(VhostUserFrontend frontend)
    {
        try
        {
            _isConfigUnknown = _reconnect.ConfigSizeBytes > 0;
            byte[] config = await BackendIdentity.ReadConfigAsync(frontend, _reconnect.ConfigSizeBytes, default)
                .ConfigureAwait(false);
            _identity = _identity with { Config = config };
            _isConfigUnknown = false;
        }
        catch (Exception error) when (error is ProtocolException or IOException or ObjectDisposedException)
        {
            // The back-end is gone; nobody knows what it had.
        }

        ConfigChanged?.Invoke();
    }

    private async Task CheckAsync(VhostUserFrontend frontend, ControlState state, CancellationToken cancellation)
    {
        BackendIdentity successor = await BackendIdentity
            .ReadAsync(frontend, _reconnect.ConfigSizeBytes, cancellation).ConfigureAwait(false);
        if (_isConfigUnknown)
        {
            _identity = _identity with { Config = successor.Config };
        }

        _identity.Without(state.ConfigWrites).Check(successor.Without(state.ConfigWrites));
    }

    private async Task ReplayAsync(
        VhostUserFrontend frontend, ControlState state, bool isLogging, CancellationToken cancellation)
    {
        if (state.Mtu != 0)
        {
            await frontend.NetSetMtuAsync(state.Mtu, cancellation).ConfigureAwait(false); // 1
        }

        await ReplayMemoryAsync(frontend, cancellation).ConfigureAwait(false); // 2
        if (isLogging && state.Log is { } log)
        {
            await ReplayLogAsync(frontend, log, state.LogMarked, cancellation).ConfigureAwait(false); // 3
        }

        if (_inflight is not null)
        {
            await frontend.SetInflightFdAsync(_inflight, cancellation).ConfigureAwait(false); // 4
        }

        await ReplayStatusAsync(frontend, state.Status & UpToFeatures, cancellation).ConfigureAwait(false); // 5
        foreach ((uint offset, byte[] bytes) in state.ConfigWrites)
        {
            await frontend.SetConfigAsync(offset, bytes, false, cancellation).ConfigureAwait(false); // 6
        }

        await ReplaySessionsAsync(frontend, state, cancellation).ConfigureAwait(false); // 7
        if (state.IsSuspended)
        {
            await frontend.SuspendAsync(cancellation).ConfigureAwait(false); // 8
        }

        foreach (FrontendQueue queue in _queues)
        {
            await ReplayRingAsync(frontend, queue, state.Ring(queue.Ring.Index), cancellation)
                .ConfigureAwait(false); // 9
        }

        await ReplayStatusAsync(frontend, state.Status, cancellation).ConfigureAwait(false); // 10
    }

    private async Task ReplayMemoryAsync(VhostUserFrontend frontend, CancellationToken cancellation)
    {
        if (frontend.Has(ProtocolFeatures.ConfigureMemSlots))
        {
            foreach (DriverMemory memory in _memories)
            {
                await frontend.AddMemRegAsync(memory, cancellation).ConfigureAwait(false);
            }
        }
        else if (_memories.Count > 0)
        {
            await frontend.SetMemTableAsync(_memories, cancellation).ConfigureAwait(false);
        }
    }

    private static async Task ReplayLogAsync(
        VhostUserFrontend frontend,
        FrontendLog log,
        Linux.Events.EventFd? marked,
        CancellationToken cancellation)
    {
        await frontend.SetLogBaseAsync(log, cancellation).ConfigureAwait(false);
        if (marked is not null)
        {
            await frontend.SetLogFdAsync(marked, cancellation).ConfigureAwait(false);
        }

        await frontend.SetFeaturesAsync(frontend.Features | VirtioFeatures.LogAll, cancellation).ConfigureAwait(false);
    }

    private static async Task ReplayStatusAsync(
        VhostUserFrontend frontend, VirtioStatus? status, CancellationToken cancellation)
    {
        if (status is not { } told || told == VirtioStatus.None || !frontend.Has(ProtocolFeatures.Status))
        {
            return;
        }

        await frontend.SetStatusAsync(told, cancellation).ConfigureAwait(false);
        VirtioStatus taken = await frontend.GetStatusAsync(cancellation).ConfigureAwait(false);
        if ((told & ~taken & VirtioStatus.FeaturesOk) != 0)
        {
            throw new BackendMismatchException(
                "status", $"0x{(uint)told:x} was told, 0x{(uint)taken:x} is there: it refuses the features");
        }
    }

    private static async Task ReplaySessionsAsync(
        VhostUserFrontend frontend, ControlState state, CancellationToken cancellation)
    {
        foreach ((ulong number, CryptoSessionParameters parameters) in state.Sessions)
        {
            ulong given = await frontend.CreateCryptoSessionAsync(parameters, cancellation).ConfigureAwait(false);
            if (given != number)
            {
                throw new BackendMismatchException("crypto session", $"{number} became {given}");
            }
        }
    }

    private async Task ReplayRingAsync(
        VhostUserFrontend frontend,
        FrontendQueue queue,
        ControlState.RingState ring,
        CancellationToken cancellation)
    {
        int index = queue.Ring.Index;
        if (ring.IsBigEndian is { } isBigEndian)
        {
            await frontend.SetVringEndianAsync(index, isBigEndian, cancellation).ConfigureAwait(false);
        }

        if (ring.Errors is { } errors)
        {
            await frontend.SetVringErrAsync(index, errors, cancellation).ConfigureAwait(false);
        }

        if (!ring.IsStarted)
        {
            return;
        }

        uint ringBase = _inflight is null ? queue.Ring.ResubmitInFlight() : queue.Ring.UsedBase;
        await frontend.ResumeQueueAsync(queue, ringBase, cancellation).ConfigureAwait(false);
        if (ring.IsDisabled)
        {
            await frontend.SetVringEnableAsync(index, false, cancellation).ConfigureAwait(false);
        }
    }
}
