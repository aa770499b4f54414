// Framing without I/O: bytes and descriptors in, messages out.
//
// The framer says how many bytes it wants next, and never wants bytes beyond the message it is reading: descriptors
// come with the bytes of their own message, and a reader that never takes too much can never lose its place.
// Descriptors belong to the message whose bytes they came with, whichever of them.
//
// Invariant, after every call:  0 <= filled < wanted; wanted is 16 (header), or the payload's length.
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Channel;

/// <summary>Cuts a stream into messages.</summary>
public sealed class MessageFramer
{
    /// <summary>Most descriptors that are held for one message: as many as the kernel passes at once.</summary>
    public const int MaxDescriptors = 253;

    private readonly MessagePool _pool = new();
    private readonly byte[] _header = new byte[MessageHeader.Bytes];
    private VfioUserMessage? _message;
    private Memory<byte> _payload;
    private bool _inPayload;
    private int _filled;

    /// <summary>Where the next bytes go; its length is what is wanted.</summary>
    public Memory<byte> Next => (_inPayload ? _payload : _header)[_filled..];

    /// <summary>Whether a message has been begun.</summary>
    public bool IsInMessage => _inPayload || _filled > 0;

    /// <summary>Takes note that bytes were written to <see cref="Next"/>.</summary>
    /// <param name="count">How many, at most its length.</param>
    /// <param name="descriptors">What came with them; taken over and removed from the list.</param>
    /// <returns>The message that is complete with these bytes, or null.</returns>
    public VfioUserMessage? Advance(int count, List<FileDescriptor> descriptors)
    {
        ArgumentNullException.ThrowIfNull(descriptors);
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, Next.Length);
        _message ??= _pool.Rent();
        foreach (FileDescriptor descriptor in descriptors)
        {
            _message.Add(new Attachment(descriptor));
        }

        descriptors.Clear();
        _filled += count;
        if (_message.Attachments.Count > MaxDescriptors)
        {
            _message.Header = _inPayload ? _message.Header : default;
            _message.Defect = MessageDefect.TooManyDescriptors;
            return TakeMessage();
        }

        if (!_inPayload && _filled == MessageHeader.Bytes)
        {
            TakeHeader(_message);
        }

        return _inPayload && _filled == _payload.Length ? TakeMessage() : null;
    }

    /// <summary>Drops a message that never became complete.</summary>
    public void Abandon()
    {
        _message?.Dispose();
        _message = null;
    }

    private void TakeHeader(VfioUserMessage message)
    {
        MessageHeader header = MemoryMarshal.Read<MessageHeader>(_header);
        message.Header = header;
        message.Defect = header.SizeBytes < MessageHeader.Bytes ? MessageDefect.TooShort
            : header.SizeBytes - MessageHeader.Bytes > MessageHeader.MaxPayloadBytes ? MessageDefect.TooLong
            : MessageDefect.None;
        bool hasBody = message.Defect == MessageDefect.None;
        _payload = message.SetLength(hasBody ? (int)header.SizeBytes - MessageHeader.Bytes : 0);
        _inPayload = true;
        _filled = 0;
    }

    private VfioUserMessage? TakeMessage()
    {
        VfioUserMessage? message = _message;
        _message = null;
        _payload = default;
        _inPayload = false;
        _filled = 0;
        return message;
    }
}
