// Setting rings up, starting, enabling and stopping them.
using Microsoft.Extensions.Logging;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

internal sealed partial class BackendSession
{
    private Reply SetVringNum(VhostUserMessage message)
    {
        VringStatePayload state = message.Read<VringStatePayload>();
        Vring vring = StoppedVring("SET_VRING_NUM", state.Index);
        int limit = _device.MaxQueueSize(vring.Index);
        if (state.Num == 0 || state.Num > (uint)limit || (!IsPacked && (state.Num & (state.Num - 1)) != 0))
        {
            throw new ProtocolException(
                "SET_VRING_NUM",
                "num",
                $"{state.Num} is no {(IsPacked ? "number" : "power of two")} from 1 to {limit}, the device's largest");
        }

        vring.Size = (int)state.Num;
        return Reply.Done;
    }

    /// <summary>On a running ring only the logging of its writes may change.</summary>
    private async ValueTask<Reply> SetVringAddrAsync(VhostUserMessage message)
    {
        VringAddressPayload address = message.Read<VringAddressPayload>();
        Vring vring = VringAt("SET_VRING_ADDR", address.Index);
        VringUserAddresses addresses = new(address.Descriptor, address.Available, address.Used);
        if (vring.Running is not null)
        {
            if (vring.Addresses != addresses)
            {
                throw new ProtocolException("SET_VRING_ADDR", "addresses", $"queue {vring.Index} is running");
            }

            SetLogAddress(vring, address);
            await UpdateLogAsync(vring).ConfigureAwait(false);
            return Reply.Done;
        }

        RequireAligned(address.Descriptor, 16, "descriptor");
        RequireAligned(address.Available, 2, "available");
        RequireAligned(address.Used, 4, "used");
        _ = Translate(addresses);
        SetLogAddress(vring, address);
        vring.Addresses = addresses;
        return Reply.Done;
    }

    /// <summary>Front-ends fill the log address in also when the ring is not to be logged.</summary>
    private void SetLogAddress(Vring vring, VringAddressPayload address)
    {
        ulong? before = vring.LogAddress;
        vring.LogAddress = (address.Flags & VringAddressPayload.LogFlag) != 0 ? address.Log : null;
        try
        {
            if (_dirtyLog is { } log && WantsLog)
            {
                RequireLogCoversRing("SET_VRING_ADDR", "log", log, vring);
            }
        }
        catch (ProtocolException)
        {
            vring.LogAddress = before;
            throw;
        }
    }

    private Reply SetVringBase(VhostUserMessage message)
    {
        VringStatePayload state = message.Read<VringStatePayload>();
        Vring vring = StoppedVring("SET_VRING_BASE", state.Index);
        if (!IsPacked && state.Num > ushort.MaxValue)
        {
            throw new ProtocolException("SET_VRING_BASE", "num", $"0x{state.Num:x} has more than 16 bits");
        }

        vring.Base = state.Num;
        return Reply.Done;
    }

    /// <summary>
    /// Stops the ring, also one that never ran. Answered when nothing is in flight any more; or, when only
    /// GET_VRING_BASE_INFLIGHT was negotiated, with requests left in the in-flight region. A front-end that knows
    /// GET_VRING_BASE_SKIP_DRAIN has a message for that, and means by this one that they are waited for.
    /// </summary>
    private ValueTask<Reply> GetVringBaseAsync(VhostUserMessage message)
    {
        const ProtocolFeatures both = ProtocolFeatures.GetVringBaseInflight | ProtocolFeatures.GetVringBaseSkipDrain;
        bool suspends = (_protocolFeatures & both) == ProtocolFeatures.GetVringBaseInflight;
        return GetVringBaseAsync("GET_VRING_BASE", message, suspends);
    }

    /// <summary>Stops the ring now: what is in flight stays in the in-flight region. Without one it drains.</summary>
    private ValueTask<Reply> GetVringBaseSkipDrainAsync(VhostUserMessage message) =>
        GetVringBaseAsync("GET_VRING_BASE_SKIP_DRAIN", message, suspends: true);

    private async ValueTask<Reply> GetVringBaseAsync(string request, VhostUserMessage message, bool suspends)
    {
        VringStatePayload state = message.Read<VringStatePayload>();
        Vring vring = VringAt(request, state.Index);
        RunningQueue? running = vring.Running;
        await StopAsync(vring, suspends ? SuspendOf(vring) : QueueStop.Drain).ConfigureAwait(false);
        if (running is { LeftInFlight: > 0 and var count })
        {
            _log.LogInformation(
                "queue {Queue} is stopped; {Count} requests stay in the in-flight region", vring.Index, count);
        }

        vring.DropNotifiers();
        HandOverWhenGone();
        return Reply.VringState(state.Index, BaseOf(vring));
    }

    /// <summary>Requests can be left in flight only where they are recorded.</summary>
    private QueueStop SuspendOf(Vring vring) =>
        InflightOf(vring.Index) is null ? QueueStop.Drain : QueueStop.Suspend;

    /// <summary>
    /// Hands the ring to a worker, which starts it at the first kick. Without a descriptor it is polled.
    /// </summary>
    private async ValueTask<Reply> SetVringKickAsync(VhostUserMessage message)
    {
        (Vring vring, Notifier? notifier) = TakeNotifier("SET_VRING_KICK", message);
        bool wasStarted = false;
        if (vring.Running is { } running)
        {
            // A new kick descriptor for a running ring: hand the ring over anew, from where it stands.
            await StopAsync(vring, SuspendOf(vring), keepsCall: true).ConfigureAwait(false);
            wasStarted = running.IsStarted;
        }

        vring.Kick?.Dispose();
        vring.Kick = notifier;
        vring.HasKick = true;
        await TryStartAsync(vring, "SET_VRING_KICK", wasStarted).ConfigureAwait(false);
        return Reply.Done;
    }

    private async ValueTask<Reply> SetVringCallAsync(VhostUserMessage message)
    {
        (Vring vring, Notifier? notifier) = TakeNotifier("SET_VRING_CALL", message);
        if (vring.Running is { } running)
        {
            await running.ReplaceCallAsync(notifier ?? InbandCall(vring.Index)).ConfigureAwait(false);
        }
        else
        {
            vring.Call?.Dispose();
            vring.Call = notifier;
        }

        return Reply.Done;
    }

    private Reply SetVringErr(VhostUserMessage message)
    {
        (Vring vring, Notifier? notifier) = TakeNotifier("SET_VRING_ERR", message);
        vring.ReplaceError(notifier ?? InbandError(vring.Index));
        return Reply.Done;
    }

    private async ValueTask<Reply> SetVringEnableAsync(VhostUserMessage message)
    {
        VringStatePayload state = message.Read<VringStatePayload>();
        Vring vring = VringAt("SET_VRING_ENABLE", state.Index);
        if (state.Num > 1)
        {
            throw new ProtocolException("SET_VRING_ENABLE", "num", $"{state.Num} is neither 0 nor 1");
        }

        await EnableAsync(vring, state.Num == 1, starts: true).ConfigureAwait(false);
        if (vring is { IsEnabled: true, Running: null })
        {
            // The kick came before size or addresses.
            await TryStartAsync(vring, "SET_VRING_ENABLE").ConfigureAwait(false);
        }

        return Reply.Done;
    }

    private async Task EnableAsync(Vring vring, bool enabled, bool starts)
    {
        vring.IsEnabled = enabled;
        vring.StartsEnabled = enabled && starts;
        if (vring.Running is { } running)
        {
            if (enabled && starts)
            {
                await running.StartAsync().ConfigureAwait(false);
            }

            await running.EnableAsync(enabled && MayServe).ConfigureAwait(false);
        }
    }

    private async Task TryStartAsync(Vring vring, string request, bool wasStarted = false)
    {
        if (!vring.IsComplete && !(HasInband && vring is { Size: > 0, Addresses: not null }))
        {
            return;
        }

        VringSetup setup = new()
        {
            Index = vring.Index,
            Size = vring.Size,
            Addresses = Translate(vring.Addresses!.Value),
            Base = BaseOf(vring),
            Features = _features,
            Memory = _memory,
            Iommu = _iommu,
            Inflight = InflightOf(vring.Index),
            Log = LogOf(vring),
        };
        QueueLinks links = new()
        {
            Kick = vring.Kick,
            Call = vring.Call ?? InbandCall(vring.Index),
            IsKickedByMessage = HasInband && vring.Kick is null,
            IsStarted = vring.StartsEnabled || wasStarted,
            IsEnabled = vring.IsEnabled && MayServe,
            Faulted = OnFaulted,
            Untranslated = OnUntranslated,
            AccessFailed = OnAccessFailed,
            Failed = OnFailed,
        };
        try
        {
            await _device.TakeOverAsync().ConfigureAwait(false);
            QueueWorker worker = _workers.For(_firstWorker + vring.Index);
            vring.IsBroken = false;
            vring.Running = await _device.StartQueue(setup, links, worker).ConfigureAwait(false);
            vring.Kick = null;
            vring.Call = null;
        }
        catch (VringSetupException error)
        {
            throw new ProtocolException(request, error.Field, error.Message, error);
        }
        catch (IOException error)
        {
            throw new ProtocolException(request, "descriptors", error.Message, error);
        }
    }

    /// <summary>Stops a ring if it runs, and notes where it stands.</summary>
    private static async Task StopAsync(Vring vring, QueueStop how, bool keepsCall = false)
    {
        if (vring.Running is { } running)
        {
            vring.Running = null;
            vring.Call = keepsCall ? await running.TakeCallAsync().ConfigureAwait(false) : null;
            vring.Base = await running.StopAsync(how).ConfigureAwait(false);
            vring.HasKick = false;
        }
    }

    private async Task StopAllAsync(Func<Vring, QueueStop> how)
    {
        foreach (Vring vring in _vrings)
        {
            await StopAsync(vring, how(vring)).ConfigureAwait(false);
        }
    }

    /// <summary>Where a ring goes on; the beginning when the front-end has not said.</summary>
    private uint BaseOf(Vring vring) => vring.Base ?? (IsPacked ? PackedPosition.StartOfBoth : 0);

    private bool IsPacked => (_features & VirtioFeatures.RingPacked) != 0;

    private Vring VringAt(string request, uint index) => index < (uint)_vrings.Length
        ? _vrings[index]
        : throw new ProtocolException(request, "index", $"{index}: the device has {_vrings.Length} queues");

    private Vring StoppedVring(string request, uint index)
    {
        Vring vring = VringAt(request, index);
        return vring.Running is null
            ? vring
            : throw new ProtocolException(
                request, "index", $"queue {index} is running: stop it by GET_VRING_BASE first");
    }

    /// <summary>The ring and the notifier of SET_VRING_KICK, CALL or ERR; null for "no descriptor".</summary>
    private (Vring Vring, Notifier? Notifier) TakeNotifier(string request, VhostUserMessage message)
    {
        VringDescriptorPayload payload = message.Read<VringDescriptorPayload>();
        Vring vring = VringAt(request, (uint)payload.Index);
        if (payload.HasDescriptor != (message.Attachments.Count == 1))
        {
            throw new ProtocolException(
                request, "descriptors",
                    $"{message.Attachments.Count} came, bit 8 of 0x{payload.Value:x} tells otherwise");
        }

        try
        {
            return (vring, payload.HasDescriptor ? message.Attachments[0].ToNotifier() : null);
        }
        catch (IOException error)
        {
            throw new ProtocolException(request, "descriptors", error.Message, error);
        }
    }

    private static void RequireAligned(ulong address, ulong bytes, string field)
    {
        if (address % bytes != 0)
        {
            throw new ProtocolException("SET_VRING_ADDR", field, $"0x{address:x} is not aligned to {bytes}");
        }
    }

    /// <summary>The ring's addresses as its queue takes them: guest physical, or I/O virtual behind an IOMMU.</summary>
    private VringAddresses Translate(VringUserAddresses addresses) => _iommu is not null
        ? new(addresses.Descriptors, addresses.Available, addresses.Used)
        : new(
            TranslateUserAddress(addresses.Descriptors, "descriptor"),
            TranslateUserAddress(addresses.Available, "available"),
            TranslateUserAddress(addresses.Used, "used"));

    private ulong TranslateUserAddress(ulong address, string field) =>
        _memory.TryTranslateUserAddress(address, out ulong guestAddress)
            ? guestAddress
            : throw new ProtocolException("SET_VRING_ADDR", field, $"0x{address:x} is in no memory region");
}
