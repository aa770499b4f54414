// Entries of the queues. Submission, 64 bytes: 0 opcode u8, 1 flags u8 (0-1 fused, 6-7 PRP or SGL), 2 command id u16,
// 4 namespace u32, 8 reserved, 16 metadata pointer u64, 24 data pointer (two PRPs, or one SGL descriptor), 40 six words
// of the command's own.
// Completion, 16 bytes: 0 result u32, 4 reserved, 8 submission queue head u16, 10 submission queue u16, 12 command id
// u16, 14 phase (bit 0) and status (bits 1-15) u16.
using System.Runtime.InteropServices;

namespace Outboard.Devices.Nvme.Spec;

/// <summary>A submission queue entry.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct NvmeCommand
{
    internal const int Bytes = 64;
    internal const byte FuseMask = 3;

    internal byte Opcode;
    internal byte Flags;
    internal ushort Id;
    internal uint Namespace;
    internal uint Word2;
    internal uint Word3;
    internal ulong Metadata;
    internal ulong Pointer1;
    internal ulong Pointer2;
    internal uint Word10;
    internal uint Word11;
    internal uint Word12;
    internal uint Word13;
    internal uint Word14;
    internal uint Word15;

    /// <summary>0: PRPs; 1 and 2: an SGL; 3 is reserved.</summary>
    internal readonly int PointerKind => Flags >> 6;

    internal readonly bool IsFused => (Flags & FuseMask) != 0;

    /// <summary>First logical block, of the commands that have one.</summary>
    internal readonly ulong FirstBlock => Word10 | ((ulong)Word11 << 32);

    /// <summary>Logical blocks, of the commands that have a count from 0 in the lower half of word 12.</summary>
    internal readonly uint BlockCount => (Word12 & 0xffff) + 1;
}

/// <summary>A completion queue entry.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct NvmeCompletion
{
    internal const int Bytes = 16;

    internal uint Result;
    internal uint Reserved;
    internal ushort QueueHead;
    internal ushort Queue;
    internal ushort Id;
    internal ushort PhaseAndStatus;

    internal readonly bool Phase => (PhaseAndStatus & 1) != 0;

    internal readonly NvmeStatus Status => (NvmeStatus)((PhaseAndStatus >> 1) & NvmeStatusRules.CodeMask);
}

/// <summary>A descriptor of a scatter gather list: 0 address u64, 8 length u32, 15 type and subtype.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct SglDescriptor
{
    internal const int Bytes = 16;
    internal const byte DataBlock = 0x00;
    internal const byte Segment = 0x20;
    internal const byte LastSegment = 0x30;

    internal ulong Address;
    internal uint Length;
    internal uint ReservedAndType;

    internal readonly byte Type => (byte)(ReservedAndType >> 24);
}

/// <summary>A range of dataset management: 0 context attributes u32, 4 blocks u32, 8 first block u64.</summary>
[StructLayout(LayoutKind.Sequential)]
internal struct DatasetRange
{
    internal const int Bytes = 16;

    internal uint Attributes;
    internal uint BlockCount;
    internal ulong FirstBlock;
}
