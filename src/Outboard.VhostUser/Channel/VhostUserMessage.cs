// One message: header, payload, attachments. Whoever receives a message disposes it, and with it every attachment that
// nobody took.
using System.Runtime.InteropServices;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Channel;

/// <summary>A message.</summary>
public sealed class VhostUserMessage : IDisposable
{
    private readonly Attachment[] _attachments;

    /// <summary>Makes a message.</summary>
    /// <param name="request">The request's number.</param>
    /// <param name="flags">Flags; the version is added.</param>
    /// <param name="payload">The payload.</param>
    /// <param name="attachments">The attachments, owned by the message from now on.</param>
    public VhostUserMessage(
        uint request, MessageFlags flags, ReadOnlyMemory<byte> payload, params ReadOnlySpan<Attachment> attachments)
    {
        Request = request;
        Flags = flags | MessageFlags.Version1;
        Payload = payload;
        _attachments = attachments.ToArray();
    }

    /// <summary>The request's number.</summary>
    public uint Request { get; }

    /// <summary>The flags, version included.</summary>
    public MessageFlags Flags { get; }

    /// <summary>The payload.</summary>
    public ReadOnlyMemory<byte> Payload { get; }

    /// <summary>The attachments, in order.</summary>
    public IReadOnlyList<Attachment> Attachments => _attachments;

    /// <summary>Whether the sender asked for a reply.</summary>
    public bool NeedsReply => (Flags & MessageFlags.NeedReply) != 0;

    /// <summary>The beginning of the payload as a structure. Its size was checked against the request table.</summary>
    public T Read<T>()
        where T : unmanaged => MemoryMarshal.Read<T>(Payload.Span);

    /// <summary>A payload of one structure, followed by more bytes.</summary>
    public static byte[] PayloadOf<T>(in T value, params ReadOnlySpan<byte> rest)
        where T : unmanaged
    {
        ReadOnlySpan<byte> head = MemoryMarshal.AsBytes(new ReadOnlySpan<T>(in value));
        byte[] payload = new byte[head.Length + rest.Length];
        head.CopyTo(payload);
        rest.CopyTo(payload.AsSpan(head.Length));
        return payload;
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        foreach (Attachment attachment in _attachments)
        {
            attachment.Dispose();
        }
    }
}
