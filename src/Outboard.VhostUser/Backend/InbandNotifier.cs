// Notifications as messages: BACKEND_VRING_CALL and BACKEND_VRING_ERR, for front-ends that simulate time. Each asks for
// an acknowledgement; while one is awaited, further signals become one more message. So nothing is lost, and a
// front-end that answers nothing makes this process remember one message for each ring.
using Outboard.Linux;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;

namespace Outboard.VhostUser.Backend;

/// <summary>Signals a ring by a message on the back-end's channel.</summary>
internal sealed class InbandNotifier : Notifier
{
    private readonly RepeatedExchange _exchange;

    internal InbandNotifier(BackendChannel channel, BackendRequest request, int ring)
    {
        byte[] payload = VhostUserMessage.PayloadOf(new VringStatePayload((uint)ring, 0));
        _exchange = new RepeatedExchange(async () =>
        {
            using VhostUserMessage reply = await channel.AskAsync(request, payload).ConfigureAwait(false);
        });
    }

    public override FileDescriptor? Waitable => null;

    public override void Signal() => _exchange.Request();

    public override void Dispose()
    {
    }
}
