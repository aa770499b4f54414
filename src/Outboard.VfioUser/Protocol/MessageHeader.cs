// The header of every message, vfio-user "Header".
using System.Runtime.InteropServices;

namespace Outboard.VfioUser.Protocol;

/// <summary>Flags of a message.</summary>
[Flags]
public enum MessageFlags : uint
{
    /// <summary>A command that wants a reply.</summary>
    None = 0,

    /// <summary>Bits 0 to 3 hold the type.</summary>
    TypeMask = 0xf,

    /// <summary>The type of a reply.</summary>
    Reply = 1,

    /// <summary>Bit 4: the sender wants no reply.</summary>
    NoReply = 1 << 4,

    /// <summary>Bit 5: the reply tells of a failure.</summary>
    Error = 1 << 5,
}

/// <summary>
/// 0 message id u16, 2 command u16, 4 size u32 (header included), 8 flags u32, 12 error u32; 16 bytes in the host's
/// byte order.
/// </summary>
[StructLayout(LayoutKind.Sequential)]
public readonly record struct MessageHeader(
    ushort Id, VfioUserCommand Command, uint SizeBytes, MessageFlags Flags, uint Error)
{
    /// <summary>Bytes of a header.</summary>
    public const int Bytes = 16;

    /// <summary>
    /// Largest payload that is accepted: the largest transfer that we offer, and the 32 bytes that the longest head of
    /// a message has.
    /// </summary>
    public const int MaxPayloadBytes = VersionCapabilities.MaxTransferBytes + 32;

    /// <summary>Whether this is a reply.</summary>
    public bool IsReply => (Flags & MessageFlags.TypeMask) == MessageFlags.Reply;

    /// <summary>Whether this is a command.</summary>
    public bool IsCommand => (Flags & MessageFlags.TypeMask) == MessageFlags.None;

    /// <summary>Whether the sender wants a reply.</summary>
    public bool WantsReply => (Flags & MessageFlags.NoReply) == 0;
}
