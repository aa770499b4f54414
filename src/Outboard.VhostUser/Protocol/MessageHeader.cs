// The header of every message, vhost-user "Header".
using System.Runtime.InteropServices;

namespace Outboard.VhostUser.Protocol;

/// <summary>Flags of a message.</summary>
[Flags]
public enum MessageFlags : uint
{
    /// <summary>Bits 0 and 1 hold the version.</summary>
    VersionMask = 3,

    /// <summary>The only version there is.</summary>
    Version1 = 1,

    /// <summary>Bit 2: this is a reply.</summary>
    Reply = 4,

    /// <summary>Bit 3: the sender wants a reply (with REPLY_ACK).</summary>
    NeedReply = 8,
}

/// <summary>0 request u32, 4 flags u32, 8 size u32 (of the payload); 12 bytes in the host's byte order.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 4)]
public readonly record struct MessageHeader(uint Request, MessageFlags Flags, uint SizeBytes)
{
    /// <summary>Bytes of a header.</summary>
    public const int Bytes = 12;

    /// <summary>
    /// Largest payload that is accepted. The largest message of the protocol has 2056 bytes; peers accept up to 4096.
    /// </summary>
    public const int MaxPayloadBytes = 4096;
}
