// LIFE_CYCLE: the whole life cycle of a VIRTIO device over this protocol, for a front-end that is ours, too. Private,
// and offered only when the options ask for it. It adds what the protocol lacks, and makes the device status count:
//
//   0 -> ACKNOWLEDGE -> DRIVER -> SET_FEATURES -> FEATURES_OK -> configuration, rings -> DRIVER_OK -> 0
//
//   * a driver adds bits; it takes none back but all of them: 0 is a full reset, wherever it comes
//   * FEATURES_OK stays only behind ACKNOWLEDGE and DRIVER, with features that were accepted and have VERSION_1;
//     afterwards features do not change (but LOG_ALL, which is none of the driver's)
//   * DRIVER_OK without FEATURES_OK is refused; rings are served from DRIVER_OK on, kicks of before are not lost
//   * SUSPEND: when it is answered nothing is in flight, no guest memory is written, nobody is notified, until RESUME
//     or a reset; what would have been told meanwhile is told then
//
// Every device has it, and knows nothing of it.
using Outboard.Virtio;
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

internal sealed partial class BackendSession
{
    private const ProtocolFeatures NeededByLifeCycle =
        ProtocolFeatures.Status | ProtocolFeatures.ReplyAck | ProtocolFeatures.Config;

    private const VirtioStatus DriverBits =
        VirtioStatus.Acknowledge | VirtioStatus.Driver | VirtioStatus.FeaturesOk | VirtioStatus.DriverOk
        | VirtioStatus.Failed;

    /// <summary>Drawn once for this process: its devices' state goes with it.</summary>
    private static readonly ulong s_epoch = (ulong)Random.Shared.NextInt64(1, long.MaxValue);

    private volatile bool _isSuspended;
    private volatile bool _owesConfigChange;

    private bool HasLifeCycle => (_protocolFeatures & ProtocolFeatures.LifeCycle) != 0;

    /// <summary>Whether rings may be served at present, as far as the device as a whole is concerned.</summary>
    private bool MayServe => !HasLifeCycle || (!_isSuspended && (_status & VirtioStatus.DriverOk) != 0);

    private static void RequireLifeCycleFeatures(ProtocolFeatures features)
    {
        ProtocolFeatures missing = NeededByLifeCycle & ~features;
        if ((features & ProtocolFeatures.LifeCycle) != 0 && missing != 0)
        {
            string names = string.Join('|', PayloadTable.NamesOf(missing));
            throw new ProtocolException("SET_PROTOCOL_FEATURES", "features", $"LIFE_CYCLE without {names}");
        }
    }

    private Reply GetIdentity() => Reply.Payload(VhostUserMessage.PayloadOf(new IdentityPayload(
        (uint)_device.Id, 0, (uint)_device.QueueCount, (uint)_device.Config.SizeBytes, s_epoch)));

    private Reply GetQueueLimit(VhostUserMessage message)
    {
        Vring vring = VringAt("GET_QUEUE_LIMIT", message.Read<VringStatePayload>().Index);
        return Reply.VringState((uint)vring.Index, (uint)_device.MaxQueueSize(vring.Index));
    }

    /// <summary>Any address that memory may have.</summary>
    private static Reply GetIovaRange() =>
        Reply.Payload(VhostUserMessage.PayloadOf(new IovaRangePayload(0, ulong.MaxValue)));

    private async ValueTask<Reply> GetQueueStateAsync(VhostUserMessage message)
    {
        Vring vring = VringAt("GET_QUEUE_STATE", message.Read<VringStatePayload>().Index);
        uint at = vring.Running is { } running
            ? await running.GetBaseAsync().ConfigureAwait(false) : BaseOf(vring);
        QueueStateFlags flags = (vring.Running is null ? 0 : QueueStateFlags.Started)
            | (vring.IsEnabled ? QueueStateFlags.Enabled : 0)
            | (vring is { Running: not null, IsBroken: true } ? QueueStateFlags.Broken : 0);
        return Reply.Payload(VhostUserMessage.PayloadOf(
            new QueueStatePayload((uint)vring.Index, flags, at, (uint)vring.Size)));
    }

    /// <summary>A part of the configuration space, and its generation: both of the same moment.</summary>
    private Reply ReadConfig(VhostUserMessage message)
    {
        ConfigPartPayload head = ReadConfigHead("READ_CONFIG", message);
        byte[] bytes = new byte[head.SizeBytes];
        uint generation = _device.Config.ReadWithGeneration(head.Offset, bytes);
        return Reply.Payload(VhostUserMessage.PayloadOf(head with { Generation = generation }, bytes));
    }

    private Reply WriteConfig(VhostUserMessage message)
    {
        ConfigPartPayload head = ReadConfigHead("WRITE_CONFIG", message);
        return _device.WriteConfig(head.Offset, message.Payload.Span[ConfigPartPayload.Bytes..])
            ? Reply.Done
            : throw new ProtocolException(
                "WRITE_CONFIG", "offset", $"{head.SizeBytes} bytes at {head.Offset} may not be written");
    }

    private ConfigPartPayload ReadConfigHead(string request, VhostUserMessage message)
    {
        ConfigPartPayload head = message.Read<ConfigPartPayload>();
        uint size = (uint)_device.Config.SizeBytes;
        if (head.SizeBytes != message.Payload.Length - ConfigPartPayload.Bytes)
        {
            throw new ProtocolException(
                request, "size", $"{head.SizeBytes} in a payload of {message.Payload.Length} bytes");
        }

        return head.Offset <= size && head.SizeBytes <= size - head.Offset
            ? head
            : throw new ProtocolException(
                request, "offset", $"{head.SizeBytes} bytes at {head.Offset} of a space of {size}");
    }

    private async ValueTask<Reply> SuspendAsync()
    {
        if ((_status & VirtioStatus.FeaturesOk) == 0)
        {
            throw new ProtocolException("SUSPEND", "status", $"0x{(uint)_status:x}: there is nothing to suspend");
        }

        _isSuspended = true;
        await EnableAsItMayBeAsync().ConfigureAwait(false);
        foreach (Vring vring in _vrings)
        {
            if (vring.Running is { } running)
            {
                // The same memory once more: taken when nothing is in flight, and everything was told.
                await running.AdoptAsync(_memory, keepsOldRegions: false).ConfigureAwait(false);
            }
        }

        return Reply.Done;
    }

    private async ValueTask<Reply> ResumeAsync()
    {
        if (!_isSuspended)
        {
            throw new ProtocolException("RESUME", "status", "the device is not suspended");
        }

        await EndSuspensionAsync().ConfigureAwait(false);
        return Reply.Done;
    }

    private async Task EndSuspensionAsync()
    {
        _isSuspended = false;
        await EnableAsItMayBeAsync().ConfigureAwait(false);
        if (_owesConfigChange)
        {
            _owesConfigChange = false;
            OnConfigChanged();
        }
    }

    private async Task EnableAsItMayBeAsync()
    {
        foreach (Vring vring in _vrings)
        {
            if (vring.Running is { } running)
            {
                await running.EnableAsync(vring.IsEnabled && MayServe).ConfigureAwait(false);
            }
        }
    }

    private void RequireFeaturesOpen(ulong features)
    {
        const ulong free = VirtioFeatures.LogAll;
        if (HasLifeCycle && (_status & VirtioStatus.FeaturesOk) != 0 && ((_features ^ features) & ~free) != 0)
        {
            throw new ProtocolException("SET_FEATURES", "features", "they were agreed upon: reset the device first");
        }
    }

    /// <summary>A step of the driver.</summary>
    private async ValueTask<Reply> StepAsync(VirtioStatus status)
    {
        VirtioStatus taken = _status & DriverBits & ~status;
        if (status == VirtioStatus.None)
        {
            await ResetDeviceAsync().ConfigureAwait(false);
            _features = 0;
            return Reply.Done;
        }

        if (taken != 0 || (status & ~DriverBits & ~VirtioStatus.DeviceNeedsReset) != 0)
        {
            throw new ProtocolException(
                "SET_STATUS", "status",
                $"0x{(uint)status:x} after 0x{(uint)_status:x}: bits are added, or all taken back");
        }

        const VirtioStatus before = VirtioStatus.Acknowledge | VirtioStatus.Driver;
        bool areAgreed = (status & before) == before && !_featuresRefused
            && (_features & VirtioFeatures.Version1) != 0;
        VirtioStatus step = status & DriverBits & ~(areAgreed ? VirtioStatus.None : VirtioStatus.FeaturesOk);
        if ((step & VirtioStatus.DriverOk) != 0 && (step & VirtioStatus.FeaturesOk) == 0)
        {
            throw new ProtocolException("SET_STATUS", "status", $"0x{(uint)status:x}: DRIVER_OK before FEATURES_OK");
        }

        bool begins = (step & ~_status & VirtioStatus.DriverOk) != 0;
        _status = step;
        if (begins)
        {
            await EnableAsItMayBeAsync().ConfigureAwait(false);
        }

        return Reply.Done;
    }
}
