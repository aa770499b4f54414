// A message as it lies in a buffer of the device's queues: 0 request le32, 4 flags le32, 8 size le32, 12 payload. The
// numbers are little-endian wherever the host is not; payloads are those of vhost-user, with every number
// little-endian. Both sides of this library run on little-endian machines only, and say so (RequireLittleEndian).
using System.Buffers.Binary;
using Outboard.VhostUser.Protocol;

namespace Outboard.VirtioVhostUser.Protocol;

/// <summary>A message in a queue.</summary>
/// <param name="Request">The request's number.</param>
/// <param name="Flags">Its flags, version included.</param>
/// <param name="Payload">Its payload.</param>
public readonly record struct DriverFrame(uint Request, MessageFlags Flags, ReadOnlyMemory<byte> Payload)
{
    /// <summary>Whether it is a reply.</summary>
    public bool IsReply => (Flags & MessageFlags.Reply) != 0;

    /// <summary>Whether an acknowledgement is asked for.</summary>
    public bool NeedsReply => (Flags & MessageFlags.NeedReply) != 0;

    /// <summary>Refuses to run where payloads would have to be converted.</summary>
    /// <exception cref="PlatformNotSupportedException">The host is big-endian.</exception>
    public static void RequireLittleEndian()
    {
        if (!BitConverter.IsLittleEndian)
        {
            throw new PlatformNotSupportedException(
                "virtio-vhost-user: payloads are not converted for big-endian hosts: use a little-endian one");
        }
    }

    /// <summary>Takes a message out of a buffer; the payload is copied.</summary>
    /// <returns>What is wrong with it; null when it was taken.</returns>
    public static string? TryDecode(ReadOnlySpan<byte> bytes, out DriverFrame frame)
    {
        frame = default;
        if (bytes.Length < MessageHeader.Bytes)
        {
            return $"a buffer of {bytes.Length} bytes holds no message";
        }

        uint size = BinaryPrimitives.ReadUInt32LittleEndian(bytes[8..]);
        if (size != (uint)(bytes.Length - MessageHeader.Bytes))
        {
            return $"a message of {size} bytes in a buffer of {bytes.Length}";
        }

        MessageFlags flags = (MessageFlags)BinaryPrimitives.ReadUInt32LittleEndian(bytes[4..]);
        if ((flags & MessageFlags.VersionMask) != MessageFlags.Version1)
        {
            return $"flags 0x{(uint)flags:x}: the version is not 1";
        }

        frame = new DriverFrame(
            BinaryPrimitives.ReadUInt32LittleEndian(bytes), flags, bytes[MessageHeader.Bytes..].ToArray());
        return null;
    }

    /// <summary>The message as bytes.</summary>
    public byte[] Encode()
    {
        byte[] bytes = new byte[MessageHeader.Bytes + Payload.Length];
        BinaryPrimitives.WriteUInt32LittleEndian(bytes, Request);
        BinaryPrimitives.WriteUInt32LittleEndian(bytes.AsSpan(4), (uint)(Flags | MessageFlags.Version1));
        BinaryPrimitives.WriteInt32LittleEndian(bytes.AsSpan(8), Payload.Length);
        Payload.Span.CopyTo(bytes.AsSpan(MessageHeader.Bytes));
        return bytes;
    }
}
