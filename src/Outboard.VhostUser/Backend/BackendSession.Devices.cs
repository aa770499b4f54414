// Requests that only devices of some kinds serve: crypto sessions, shared objects, a display. The device knows none of
// these messages: it has the sessions, the objects, the display.
using System.Buffers.Binary;
using Outboard.Memory;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;

namespace Outboard.VhostUser.Backend;

internal sealed partial class BackendSession
{
    private SharedObjectChannel? _objects;

    /// <summary>The reply is the request with the session's number; -1 when there is none.</summary>
    private Reply CreateCryptoSession(VhostUserMessage message)
    {
        ICryptoSessions device = (ICryptoSessions)_device;
        CryptoSessionParameters parameters = CryptoSessionPayload.Read(message.Payload.Span);
        long session = device.CreateSession(parameters) is { } number and <= long.MaxValue ? (long)number : -1;

        // Neither keys nor addresses of the front-end go back: whoever sees the reply has no use for them.
        byte[] payload = new byte[CryptoSessionPayload.Bytes];
        message.Payload.Span[..sizeof(ulong)].CopyTo(payload);
        BinaryPrimitives.WriteInt64LittleEndian(payload.AsSpan(CryptoSessionPayload.SessionOffset), session);
        return Reply.Payload(payload);
    }

    private Reply CloseCryptoSession(VhostUserMessage message)
    {
        ulong session = message.Read<ulong>();
        return ((ICryptoSessions)_device).CloseSession(session)
            ? Reply.Done
            : throw new ProtocolException("CLOSE_CRYPTO_SESSION", "session", $"{session}: there is none");
    }

    /// <summary>
    /// An object that this device exports, as memory. QEMU up to 11.0 forgets to say which one: there is none then.
    /// </summary>
    private Reply GetSharedObject(VhostUserMessage message)
    {
        if (message.Payload.IsEmpty)
        {
            return Reply.Payload([]);
        }

        Guid name = new(message.Payload.Span, bigEndian: true);
        using SharedMemory? memory = ((ISharedObjectDevice)_device).Export(name);
        return memory is null ? Reply.Payload([]) : Reply.Payload([], _channel.Attach(memory));
    }

    private Reply GpuSetSocket(VhostUserMessage message)
    {
        if (_device is not IDisplayDevice device)
        {
            throw new ProtocolException("GPU_SET_SOCKET", "request", $"a device of type {_device.Id} draws nothing");
        }

        if (message.Attachments.Count != 1)
        {
            throw new ProtocolException("GPU_SET_SOCKET", "descriptors", "none came");
        }

        try
        {
            device.UseDisplay(message.Attachments[0].ToDisplay());
            return Reply.Done;
        }
        catch (IOException error)
        {
            throw new ProtocolException("GPU_SET_SOCKET", "descriptors", error.Message, error);
        }
    }

    private void BeginSharedObjects()
    {
        if (_device is ISharedObjectDevice device && (_protocolFeatures & ProtocolFeatures.SharedObject) != 0)
        {
            _objects = new SharedObjectChannel(_backendChannel);
            device.UseDirectory(_objects);
        }
    }

    private void EndSharedObjects()
    {
        if (_objects is not null)
        {
            _objects = null;
            ((ISharedObjectDevice)_device).UseDirectory(null);
        }
    }
}
