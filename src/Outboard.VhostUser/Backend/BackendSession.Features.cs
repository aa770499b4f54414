// Negotiation, ownership, status and reset.
using Microsoft.Extensions.Logging;
using Outboard.Virtio;
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

internal sealed partial class BackendSession
{
    private Reply GetFeatures() => Reply.Value(_offeredFeatures);

    /// <summary>
    /// May come several times, also while rings run. Without protocol features every ring is enabled.
    /// </summary>
    private async ValueTask<Reply> SetFeaturesAsync(VhostUserMessage message)
    {
        ulong features = message.Read<ulong>();
        RequireFeaturesOpen(features);
        ulong unknown = features & ~(_offeredFeatures | ToleratedFeatures);
        _featuresRefused = unknown != 0;
        if (_featuresRefused)
        {
            _status &= ~VirtioStatus.FeaturesOk;
            throw new ProtocolException("SET_FEATURES", "features", $"0x{unknown:x} was not offered");
        }

        await AcceptAsync(features & _offeredFeatures).ConfigureAwait(false);
        if ((features & VirtioFeatures.ProtocolFeatures) == 0)
        {
            foreach (Vring vring in _vrings)
            {
                await EnableAsync(vring, enabled: true, starts: false).ConfigureAwait(false);
            }
        }

        return Reply.Done;
    }

    /// <summary>The log may be switched while rings run; the device is told of other changes only.</summary>
    private async Task AcceptAsync(ulong features)
    {
        ulong changed = _features ^ features;
        if ((features & changed & VirtioFeatures.LogAll) != 0 && _dirtyLog is { } log)
        {
            RequireLogCovers("SET_FEATURES", "features", log, _memory);
        }

        _features = features;
        if (_log.IsEnabled(LogLevel.Debug))
        {
            string names = string.Join(' ', FeatureNames.All(features, _device.Id));
            _log.LogDebug("features in use: {Features}", names);
        }

        ResetIommu();
        if (changed != VirtioFeatures.LogAll)
        {
            _device.AcceptFeatures(_features & ~(VirtioFeatures.ProtocolFeatures | VirtioFeatures.LogAll));
        }

        if ((changed & VirtioFeatures.LogAll) != 0)
        {
            await UpdateLogsAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Marks the start of a session; some front-ends send it late or twice, so it changes nothing.</summary>
    private static Reply SetOwner() => Reply.Done;

    /// <summary>
    /// Deprecated: disables all rings, as the specification advises, and keeps the connection's state.
    /// </summary>
    private async ValueTask<Reply> ResetOwnerAsync()
    {
        foreach (Vring vring in _vrings)
        {
            await EnableAsync(vring, enabled: false, starts: false).ConfigureAwait(false);
        }

        return Reply.Done;
    }

    private Reply GetProtocolFeatures() => Reply.Value((ulong)_offeredProtocolFeatures);

    private Reply SetProtocolFeatures(VhostUserMessage message)
    {
        ProtocolFeatures features = (ProtocolFeatures)message.Read<ulong>();
        ProtocolFeatures unknown = features & ~_offeredProtocolFeatures;
        if (unknown != 0)
        {
            string names = string.Join('|', PayloadTable.NamesOf(unknown));
            throw new ProtocolException("SET_PROTOCOL_FEATURES", "features", $"{names} was not offered");
        }

        RequireInbandFeatures(features);
        RequireLifeCycleFeatures(features);

        // The acknowledgement of this very message already follows what it negotiates.
        _protocolFeatures = features;
        UseInbandErrors();
        return Reply.Done;
    }

    private Reply GetQueueNum() => Reply.Value((ulong)_device.QueueCount);

    /// <summary>
    /// Zero resets the device: rings that run are stopped, their requests forgotten. QEMU sends it after it stopped the
    /// rings by GET_VRING_BASE, too, when its guest is only paused; so with all rings stopped nothing is reset, and
    /// what was suspended stays recorded.
    /// </summary>
    private async ValueTask<Reply> SetStatusAsync(VhostUserMessage message)
    {
        ulong status = message.Read<ulong>();
        if (status > byte.MaxValue)
        {
            throw new ProtocolException("SET_STATUS", "status", $"0x{status:x} has more than 8 bits");
        }

        if (HasLifeCycle)
        {
            return await StepAsync((VirtioStatus)status).ConfigureAwait(false);
        }

        // FEATURES_OK does not stick after refused features: virtio-v1.3 "2.2.2 Device Requirements: Feature Bits".
        _status = (VirtioStatus)status & ~(_featuresRefused ? VirtioStatus.FeaturesOk : VirtioStatus.None);
        if (status == 0)
        {
            if (_vrings.Any(vring => vring.Running is not null))
            {
                await ResetRingsAsync().ConfigureAwait(false);
            }

            _needsReset = false;
            _featuresRefused = false;
        }

        return Reply.Done;
    }

    /// <summary>The device says so; the driver hears of it by a change of the configuration.</summary>
    private void OnNeedsReset()
    {
        _needsReset = true;
        OnConfigChanged();
    }

    private Reply GetStatus() =>
        Reply.Value((ulong)(_needsReset ? _status | VirtioStatus.DeviceNeedsReset : _status));

    /// <summary>Initial device state; memory, owner and protocol features stay.</summary>
    private async ValueTask<Reply> ResetDeviceAsync()
    {
        await ResetRingsAsync().ConfigureAwait(false);
        foreach (Vring vring in _vrings)
        {
            vring.IsEnabled = false;
            vring.StartsEnabled = false;
        }

        _status = VirtioStatus.None;
        _featuresRefused = false;
        _needsReset = false;
        _isSuspended = false;
        _owesConfigChange = false;
        return Reply.Done;
    }

    /// <summary>Rings and device as at the beginning; whether a ring is enabled is none of virtio's business.</summary>
    private async Task ResetRingsAsync()
    {
        await StopAllAsync(_ => QueueStop.Discard).ConfigureAwait(false);
        await EndTransferAsync().ConfigureAwait(false);
        foreach (Vring vring in _vrings)
        {
            vring.DropNotifiers();
            vring.Base = null;
        }

        // The record belongs to rings that are no more; front-ends send another one.
        _inflight?.Dispose();
        _inflight = null;
        _device.Reset();
        _device.ForgetSharedMappings();
    }
}
