// What a back-end is told, and what becomes of a device whose back-end goes away and comes back.
using System.Net.Sockets;
using Microsoft.Extensions.Logging;
using Outboard.Linux;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend;

public sealed partial class RemoteDevice
{
    private static readonly TimeSpan s_longestDelay = TimeSpan.FromSeconds(1);

    /// <summary>Queues that the back-end has; further ones are a front-end's, and nobody serves them.</summary>
    private int ServedQueues(VhostUserFrontend frontend) =>
        frontend.QueueCount > 0 ? Math.Min(frontend.QueueCount, QueueCount) : QueueCount;

    private Task TellFeaturesAsync(VhostUserFrontend frontend) => frontend.SetFeaturesAsync(
        (_accepted & _shape.Features & frontend.OfferedFeatures)
        | (frontend.OfferedFeatures & VirtioFeatures.ProtocolFeatures), _ending.Token);

    private async Task ServeAsync(VhostUserFrontend frontend, RemoteQueue queue)
    {
        if (_mustReset || queue.IsServed || !queue.IsEnabled || queue.Index >= ServedQueues(frontend))
        {
            return;
        }

        await TellMemoryAsync(frontend).ConfigureAwait(false);
        await TellInflightAsync(frontend).ConfigureAwait(false);
        await queue.SetUpAsync(frontend, _ending.Token).ConfigureAwait(false);
    }

    /// <summary>
    /// Brings the back-end's memory up to date. Rings run on while slots are added; for anything else they are stopped,
    /// since some back-ends look their rings up only when they start.
    /// </summary>
    private async Task TellMemoryAsync(VhostUserFrontend frontend)
    {
        bool hasSlots = frontend.Has(ProtocolFeatures.ConfigureMemSlots);
        int limit = hasSlots ? (int)Math.Min(_identity.MemorySlots, int.MaxValue) : MemoryTablePayload.MaxRegions;
        PassedRegion[] wanted = PassedRegion.Of(_memory, limit, out int leftOut);
        PassedRegion[] removed = [.. _told.Where(old => !Array.Exists(wanted, old.IsSame))];
        PassedRegion[] added = [.. wanted.Where(region => !Array.Exists(_told, region.IsSame))];
        if (removed.Length == 0 && added.Length == 0)
        {
            return;
        }

        if (leftOut > 0)
        {
            _log.LogWarning(
                "guest memory has {Count} pieces, and the back-end takes {Limit}: the smallest are left out",
                wanted.Length + leftOut, limit);
        }

        RemoteQueue[] stopped =
            removed.Length > 0 || !hasSlots ? [.. _queues.Where(queue => queue.IsServed)] : [];
        foreach (RemoteQueue queue in stopped)
        {
            await queue.PauseAsync(frontend, _ending.Token).ConfigureAwait(false);
        }

        if (!hasSlots)
        {
            await frontend.SetMemTableAsync(wanted, _ending.Token).ConfigureAwait(false);
        }
        else
        {
            foreach (PassedRegion region in removed)
            {
                await frontend.RemMemRegAsync(region, _ending.Token).ConfigureAwait(false);
            }

            foreach (PassedRegion region in added)
            {
                await frontend.AddMemRegAsync(region, _ending.Token).ConfigureAwait(false);
            }
        }

        _told = wanted;
        foreach (RemoteQueue queue in stopped)
        {
            await queue.SetUpAsync(frontend, _ending.Token).ConfigureAwait(false);
        }
    }

    /// <summary>Gives the back-end its record of what is in flight, before the first ring starts.</summary>
    private async Task TellInflightAsync(VhostUserFrontend frontend)
    {
        if (_hasToldInflight || !frontend.Has(ProtocolFeatures.InflightShmFd))
        {
            return;
        }

        _inflight ??= await frontend.GetInflightFdAsync(
            ServedQueues(frontend), _options.QueueSize, _ending.Token).ConfigureAwait(false);
        await frontend.SetInflightFdAsync(_inflight, _ending.Token).ConfigureAwait(false);
        _hasToldInflight = true;
    }

    private async Task ReadConfigAsync(VhostUserFrontend frontend)
    {
        byte[] now = await _shape.ReadConfigAsync(frontend, _ending.Token).ConfigureAwait(false);
        byte[] before = new byte[now.Length];
        _config.Read(0, before);
        if (!now.AsSpan().SequenceEqual(before))
        {
            _config.SetBytes(new ConfigField(0, now.Length), now);
        }
    }

    /// <summary>On a pool thread; the back-end may be waiting until this returns.</summary>
    private void OnBackendConfigChanged() => _ = Task.Run(async () =>
    {
        using Turn turn = await TakeTurnAsync().ConfigureAwait(false);
        try
        {
            if (_frontend is { } frontend)
            {
                await ReadConfigAsync(frontend).ConfigureAwait(false);
            }
        }
        catch (Exception error) when (
            error is ProtocolException or OperationCanceledException or ObjectDisposedException)
        {
            _log.LogWarning("the configuration space cannot be read: {Reason}", error.Message);
        }

        OnConfigChanged();
    });

    private void Use(VhostUserFrontend frontend)
    {
        frontend.ConfigChanged += OnBackendConfigChanged;
        _told = [];
        _hasToldInflight = false;
        Volatile.Write(ref _frontend, frontend);
    }

    private async Task WatchAsync()
    {
        try
        {
            while (true)
            {
                await _frontend!.Disconnected.WaitAsync(_ending.Token).ConfigureAwait(false);
                await LoseAsync().ConfigureAwait(false);
                await ReconnectAsync().ConfigureAwait(false);
            }
        }
        catch (OperationCanceledException) when (_ending.IsCancellationRequested)
        {
            // The device is being disposed.
        }
    }

    private async Task LoseAsync()
    {
        using Turn turn = await TakeTurnAsync().ConfigureAwait(false);
        VhostUserFrontend lost = _frontend!;
        lost.ConfigChanged -= OnBackendConfigChanged;
        Volatile.Write(ref _frontend, null);
        Interlocked.Increment(ref _lostOnes);
        _log.LogWarning("the back-end is gone; waiting for the next one at {Source}", _source.Description);
        foreach (RemoteQueue queue in _queues.Where(queue => queue.IsServed))
        {
            Recover(queue);
        }

        await lost.DisposeAsync().ConfigureAwait(false);
    }

    private void Recover(RemoteQueue queue)
    {
        // Network back-ends complete in order, whether they say so or not; every VMM relies on that.
        bool isInOrder = Id == VirtioDeviceId.Network || (_accepted & VirtioFeatures.InOrder) != 0;
        if (!queue.Recover(_memory, _inflight is not null, isInOrder))
        {
            RequireReset($"queue {queue.Index}: its back-end is gone, and nobody knows which requests it held");
        }
    }

    private async Task ReconnectAsync()
    {
        BackOff delays = new(TimeSpan.FromMilliseconds(10), s_longestDelay);
        while (true)
        {
            try
            {
                VhostUserChannel channel =
                    await _source.NextAsync(Timeout.InfiniteTimeSpan, _ending.Token).ConfigureAwait(false);
                await WelcomeAsync(channel).ConfigureAwait(false);
                _log.LogInformation("a back-end is there again");
                return;
            }
            catch (Exception error) when (error is ProtocolException or IOException or SocketException)
            {
                _log.LogWarning("no back-end yet: {Reason}", error.Message);
                await Task.Delay(delays.Next(), _ending.Token).ConfigureAwait(false);
            }
        }
    }

    /// <summary>Tells a new back-end what its predecessor knew.</summary>
    private async Task WelcomeAsync(VhostUserChannel channel)
    {
        VhostUserFrontend frontend = new(channel, _frontendOptions);
        try
        {
            await frontend.NegotiateAsync(_ending.Token).ConfigureAwait(false);
            using Turn turn = await TakeTurnAsync().ConfigureAwait(false);
            await RequireSameAsync(frontend).ConfigureAwait(false);
            Use(frontend);
            try
            {
                await ReplayAsync(frontend).ConfigureAwait(false);
            }
            catch
            {
                frontend.ConfigChanged -= OnBackendConfigChanged;
                Volatile.Write(ref _frontend, null);
                throw;
            }
        }
        catch
        {
            await frontend.DisposeAsync().ConfigureAwait(false);
            throw;
        }
    }

    private async Task ReplayAsync(VhostUserFrontend frontend)
    {
        if (_accepted != 0)
        {
            await TellFeaturesAsync(frontend).ConfigureAwait(false);
        }

        foreach (RemoteQueue queue in _queues)
        {
            await ServeAsync(frontend, queue).ConfigureAwait(false);
        }
    }

    /// <summary>A driver relies on what it has seen, and on what it wrote to the configuration space.</summary>
    private async Task RequireSameAsync(VhostUserFrontend frontend)
    {
        foreach ((uint offset, byte[] bytes) in _configWrites)
        {
            await frontend.SetConfigAsync(offset, bytes, cancellation: _ending.Token).ConfigureAwait(false);
        }

        byte[] shown = new byte[_config.SizeBytes];
        _config.Read(0, shown);
        BackendIdentity known = _identity with { Config = shown };
        known.Check(await IdentifyAsync(frontend, _shape, _ending.Token).ConfigureAwait(false));
    }
}
