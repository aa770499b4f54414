// Kicks, calls and errors as messages (INBAND_NOTIFICATIONS), and the byte order of legacy rings (CROSS_ENDIAN). Both
// are offered only when the options ask for it: QEMU accepts the first without having it; and a ring of the other byte
// order is refused, which a front-end learns earlier, and better, from a feature that is not there.
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;

namespace Outboard.VhostUser.Backend;

internal sealed partial class BackendSession
{
    private const ProtocolFeatures OfferedOnRequest =
        ProtocolFeatures.InbandNotifications | ProtocolFeatures.CrossEndian | ProtocolFeatures.LifeCycle;

    /// <summary>Without these, notifications have no channel, or no acknowledgement.</summary>
    private const ProtocolFeatures NeededByInband = ProtocolFeatures.BackendReq | ProtocolFeatures.ReplyAck;

    private bool HasInband => (_protocolFeatures & ProtocolFeatures.InbandNotifications) != 0;

    /// <summary>Features that depend on the device and on what was asked for.</summary>
    private static ProtocolFeatures OptionalFeatures(VirtioDevice device, VhostUserBackendOptions options) =>
        (options.AdditionalProtocolFeatures & OfferedOnRequest)
        | (device is ICryptoSessions ? ProtocolFeatures.CryptoSession : 0)
        | (device is ISharedObjectDevice ? ProtocolFeatures.SharedObject : 0);

    /// <summary>vhost-user "In-band notifications": the connection ends, since no notification could be sent.</summary>
    private static void RequireInbandFeatures(ProtocolFeatures features)
    {
        ProtocolFeatures missing = NeededByInband & ~features;
        if ((features & ProtocolFeatures.InbandNotifications) != 0 && missing != 0)
        {
            string names = string.Join('|', PayloadTable.NamesOf(missing));
            throw new ProtocolException(
                "SET_PROTOCOL_FEATURES", "features", $"INBAND_NOTIFICATIONS without {names}") { IsFatal = true };
        }
    }

    /// <summary>
    /// A kick as a message. It starts a ring as a descriptor's does, and is done when the ring knows it.
    /// </summary>
    private async ValueTask<Reply> VringKickAsync(VhostUserMessage message)
    {
        VringStatePayload state = message.Read<VringStatePayload>();
        Vring vring = VringAt("VRING_KICK", state.Index);
        if (state.Num != 0)
        {
            throw new ProtocolException("VRING_KICK", "num", $"{state.Num} where 0 is due");
        }

        if (vring.Running is null)
        {
            await TryStartAsync(vring, "VRING_KICK", wasStarted: true).ConfigureAwait(false);
        }

        if (vring.Running is not { } running)
        {
            throw new ProtocolException("VRING_KICK", "index", $"queue {vring.Index} is not set up");
        }

        await running.StartAsync().ConfigureAwait(false);
        return Reply.Done;
    }

    /// <summary>How the driver is called without a descriptor; null when it polls.</summary>
    private InbandNotifier? InbandCall(int ring) =>
        HasInband ? new InbandNotifier(_backendChannel, BackendRequest.VringCall, ring) : null;

    /// <summary>How the front-end hears of a broken ring without a descriptor; null when it does not.</summary>
    private InbandNotifier? InbandError(int ring) =>
        HasInband ? new InbandNotifier(_backendChannel, BackendRequest.VringErr, ring) : null;

    /// <summary>Until a descriptor comes: front-ends send none, and no message for it either.</summary>
    private void UseInbandErrors()
    {
        if (HasInband)
        {
            foreach (Vring vring in _vrings)
            {
                vring.ReplaceError(InbandError(vring.Index));
            }
        }
    }

    /// <summary>Little-endian is what every ring here is; also a legacy one, whose host is little-endian.</summary>
    private Reply SetVringEndian(VhostUserMessage message)
    {
        VringStatePayload state = message.Read<VringStatePayload>();
        Vring vring = StoppedVring("SET_VRING_ENDIAN", state.Index);
        return state.Num switch
        {
            0 => Reply.Done,
            1 => throw new ProtocolException(
                "SET_VRING_ENDIAN", "num",
                $"queue {vring.Index} is to be big-endian: only little-endian rings are served"),
            _ => throw new ProtocolException("SET_VRING_ENDIAN", "num", $"{state.Num} is neither 0 nor 1"),
        };
    }
}
