// The reply that is being made: room for the header, then a payload, then attachments. One for each session, used again
// for each command.
using System.Runtime.InteropServices;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Server;

/// <summary>A reply in the making.</summary>
internal sealed class ReplyBuffer
{
    /// <summary>Enough for most; it grows to what the largest reply needs, which the protocol bounds.</summary>
    private const int FirstBytes = 8 << 10;

    private readonly List<Attachment> _attachments = [];
    private byte[] _bytes = new byte[FirstBytes];
    private int _length = MessageHeader.Bytes;

    /// <summary>What goes along; owned by the reply, disposed when it was sent or dropped.</summary>
    internal ReadOnlySpan<Attachment> Attachments => CollectionsMarshal.AsSpan(_attachments);

    /// <summary>Drops everything.</summary>
    internal void Clear()
    {
        foreach (Attachment attachment in _attachments)
        {
            attachment.Dispose();
        }

        _attachments.Clear();
        _length = MessageHeader.Bytes;
    }

    /// <summary>Appends a structure.</summary>
    internal void Write<T>(in T value)
        where T : unmanaged => Write(MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value)));

    /// <summary>Appends bytes.</summary>
    internal void Write(ReadOnlySpan<byte> bytes) => bytes.CopyTo(Append(bytes.Length));

    /// <summary>Appends zero bytes, to be filled in.</summary>
    internal Span<byte> Append(int count)
    {
        if (_bytes.Length - _length < count)
        {
            Array.Resize(ref _bytes, Math.Max(_length + count, _bytes.Length * 2));
        }

        Span<byte> added = _bytes.AsSpan(_length, count);
        added.Clear();
        _length += count;
        return added;
    }

    /// <summary>Takes back bytes at the end.</summary>
    internal void Trim(int count) => _length -= count;

    /// <summary>Adds an attachment.</summary>
    internal void Attach(Attachment attachment) => _attachments.Add(attachment);

    /// <summary>The whole message, as a reply to a command.</summary>
    internal ReadOnlyMemory<byte> Finish(in MessageHeader command)
    {
        SocketChannel.WriteHeader(
            _bytes, new MessageHeader(command.Id, command.Command, (uint)_length, MessageFlags.Reply, 0));
        return _bytes.AsMemory(0, _length);
    }
}
