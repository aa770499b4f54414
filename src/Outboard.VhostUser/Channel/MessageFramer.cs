// Framing without I/O: bytes and attachments in, messages out.
//
// The framer says how many bytes it wants next, and never wants bytes beyond the message it is reading. That matters
// twice: descriptors belong to the first byte of a message, and the kernel hands them over with whatever read covers
// that byte; and a reader that never takes too much can never lose its place.
//
// Invariant, after every call:  0 <= filled <= wanted,  wanted = 12 (header) or 12 + size (payload),  size <= 4096.
using System.Runtime.InteropServices;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Channel;

/// <summary>Cuts a stream into messages.</summary>
public sealed class MessageFramer
{
    private readonly byte[] _buffer = new byte[MessageHeader.Bytes + MessageHeader.MaxPayloadBytes];
    private readonly List<Attachment> _attachments = [];
    private MessageHeader _header;
    private bool _headerTaken;
    private int _filled;
    private int _wanted = MessageHeader.Bytes;

    /// <summary>Where the next bytes go; its length is what is wanted.</summary>
    public Memory<byte> Next => _buffer.AsMemory(_filled, _wanted - _filled);

    /// <summary>Whether a message has been begun.</summary>
    public bool IsInMessage => _filled > 0;

    /// <summary>Takes note that bytes were written to <see cref="Next"/>.</summary>
    /// <param name="count">How many, at most its length.</param>
    /// <param name="attachments">What came with them; owned by the framer from now on, also when it throws.</param>
    /// <returns>The message that is complete with these bytes, or null.</returns>
    /// <exception cref="ProtocolException">The stream is broken: it must be closed.</exception>
    public VhostUserMessage? Advance(int count, IEnumerable<Attachment> attachments)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(count, _wanted - _filled);
        int before = _attachments.Count;
        _attachments.AddRange(attachments);
        if (_attachments.Count > before && _filled > 0)
        {
            throw Broken("descriptors", "came in the middle of a message");
        }

        _filled += count;
        if (!_headerTaken && _filled == MessageHeader.Bytes)
        {
            TakeHeader();
        }

        return _headerTaken && _filled == _wanted ? TakeMessage() : null;
    }

    /// <summary>Closes attachments of a message that never became complete.</summary>
    public void Abandon()
    {
        foreach (Attachment attachment in _attachments)
        {
            attachment.Dispose();
        }

        _attachments.Clear();
    }

    private void TakeHeader()
    {
        _header = MemoryMarshal.Read<MessageHeader>(_buffer);
        _headerTaken = true;
        if ((_header.Flags & MessageFlags.VersionMask) != MessageFlags.Version1)
        {
            throw Broken("flags", $"0x{(uint)_header.Flags:x}: the version is not 1");
        }

        if (_header.SizeBytes > MessageHeader.MaxPayloadBytes)
        {
            throw Broken(
                "size", $"{_header.SizeBytes} bytes of payload, at most {MessageHeader.MaxPayloadBytes} are accepted");
        }

        _wanted += (int)_header.SizeBytes;
    }

    private VhostUserMessage TakeMessage()
    {
        byte[] payload = _buffer.AsSpan(MessageHeader.Bytes, (int)_header.SizeBytes).ToArray();
        VhostUserMessage message =
            new(_header.Request, _header.Flags, payload, CollectionsMarshal.AsSpan(_attachments));
        _attachments.Clear();
        _filled = 0;
        _wanted = MessageHeader.Bytes;
        _headerTaken = false;
        return message;
    }

    private ProtocolException Broken(string field, string problem) =>
        new($"message {(_headerTaken ? _header.Request : 0)}", field, problem) { IsFatal = true };
}
