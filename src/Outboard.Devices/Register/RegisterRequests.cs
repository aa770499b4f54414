// What a driver of the two demonstration devices sends and gets, on one queue. All numbers are little-endian.
//   counter   request  empty, for 1 | 0 amount u64
//   register  request  0 expected u64 | 8 desired u64
//   reply     0 value u64: the counter's new one; the register's old one | 8 status u8
// A request of another length is malformed: nothing changes. Bytes behind the reply are left as they are.
using System.Buffers.Binary;

namespace Outboard.Devices.Register;

/// <summary>What became of a request to a counter or a register.</summary>
public enum RegisterStatus
{
    /// <summary>Added or swapped.</summary>
    Done,

    /// <summary>Not swapped: the register did not have the expected value.</summary>
    Differs,

    /// <summary>The request has a length that means nothing.</summary>
    Malformed,
}

/// <summary>Layouts of the requests.</summary>
public static class RegisterRequests
{
    /// <summary>Bytes of a reply.</summary>
    public const int ReplyBytes = 9;

    /// <summary>Bytes of a counter's request, if it is not empty.</summary>
    public const int CounterBytes = 8;

    /// <summary>Bytes of a register's request.</summary>
    public const int RegisterBytes = 16;

    /// <summary>Offset of the status in a reply.</summary>
    public const int StatusOffset = 8;

    /// <summary>Bytes of the longest request.</summary>
    internal const int LongestBytes = RegisterBytes;

    /// <summary>Writes a reply.</summary>
    internal static ReadOnlySpan<byte> MakeReply(RegisterStatus status, ulong value, Span<byte> reply)
    {
        BinaryPrimitives.WriteUInt64LittleEndian(reply, value);
        reply[StatusOffset] = (byte)status;
        return reply;
    }
}
