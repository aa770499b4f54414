// The device's configuration space, and the channel on which this side tells that it changed.
using Microsoft.Extensions.Logging;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

internal sealed partial class BackendSession
{
    private readonly BackendChannel _backendChannel = new();

    /// <summary>
    /// Answers any range; bytes beyond the device's space are zero, as front-ends ask with sizes of their own.
    /// </summary>
    private Reply GetConfig(VhostUserMessage message)
    {
        ConfigPayload head = message.Read<ConfigPayload>();
        if (head.SizeBytes != message.Payload.Length - ConfigPayload.Bytes)
        {
            // An error is an empty payload: vhost-user "VHOST_USER_GET_CONFIG".
            _log.LogWarning(
                "GET_CONFIG: size: {Size} in a payload of {Bytes} bytes", head.SizeBytes, message.Payload.Length);
            return Reply.Payload([]);
        }

        byte[] payload = new byte[message.Payload.Length];
        message.Payload.Span[..ConfigPayload.Bytes].CopyTo(payload);
        _device.ReadConfig(head.Offset, payload.AsSpan(ConfigPayload.Bytes));
        return Reply.Payload(payload);
    }

    private Reply SetConfig(VhostUserMessage message)
    {
        ConfigPayload head = message.Read<ConfigPayload>();
        if (head.SizeBytes != message.Payload.Length - ConfigPayload.Bytes)
        {
            throw new ProtocolException(
                "SET_CONFIG", "size", $"{head.SizeBytes} in a payload of {message.Payload.Length} bytes");
        }

        if (head.Flags > ConfigPayload.Migration)
        {
            throw new ProtocolException("SET_CONFIG", "flags", $"0x{head.Flags:x}");
        }

        ReadOnlySpan<byte> bytes = message.Payload.Span[ConfigPayload.Bytes..];
        return _device.WriteConfig(head.Offset, bytes, head.Flags == ConfigPayload.Migration)
            ? Reply.Done
            : throw new ProtocolException(
                "SET_CONFIG", "offset", $"{bytes.Length} bytes at {head.Offset} may not be written");
    }

    private async ValueTask<Reply> SetBackendReqFdAsync(VhostUserMessage message)
    {
        if (message.Attachments.Count != 1)
        {
            throw new ProtocolException("SET_BACKEND_REQ_FD", "descriptors", "none came");
        }

        try
        {
            await _backendChannel.ReplaceAsync(message.Attachments[0].ToChannel()).ConfigureAwait(false);
            BeginSharedObjects();
            return Reply.Done;
        }
        catch (IOException error)
        {
            throw new ProtocolException("SET_BACKEND_REQ_FD", "descriptors", error.Message, error);
        }
    }

    /// <summary>
    /// Asks the front-end for something. From any thread, but never awaited by the control loop: the front-end may
    /// answer only after the request that this loop is carrying out.
    /// </summary>
    /// <returns>The reply's attachments with its status; disposed by the caller. Null when no reply is due, since
    /// acknowledgements were not negotiated and the request has no reply of its own.</returns>
    /// <exception cref="IOException">Nobody will answer.</exception>
    private async Task<VhostUserMessage?> AskFrontendAsync(
        BackendRequest request, byte[] payload, params Attachment[] attachments)
    {
        bool isAnswered = RequestTable.Backend((uint)request) is { HasOwnReply: true }
            || (_protocolFeatures & ProtocolFeatures.ReplyAck) != 0;
        if (isAnswered)
        {
            return await _backendChannel.AskAsync(request, payload, attachments).ConfigureAwait(false);
        }

        _backendChannel.Post(request, payload, attachments);
        return null;
    }

    /// <summary>May be called on any thread, and waits for nobody.</summary>
    private void OnConfigChanged()
    {
        if (_isSuspended)
        {
            _owesConfigChange = true;
            return;
        }

        if ((_protocolFeatures & (ProtocolFeatures.Config | ProtocolFeatures.BackendReq))
            == (ProtocolFeatures.Config | ProtocolFeatures.BackendReq))
        {
            _backendChannel.Post(BackendRequest.ConfigChangeMsg, []);
        }
    }
}
