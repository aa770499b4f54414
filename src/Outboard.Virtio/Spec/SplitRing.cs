// Layouts and flags of the split virtqueue, virtio-v1.3 "2.7 Split Virtqueues". All fields little-endian.
//   descriptor  0 addr u64, 8 len u32, 12 flags u16, 14 next u16                            16 bytes, aligned to 16
//   available   0 flags u16, 2 idx u16, 4 ring[size] u16, 4 + 2 * size used_event u16        aligned to 2
//   used        0 flags u16, 2 idx u16, 4 ring[size] { id u32, len u32 }, 4 + 8 * size avail_event u16   aligned to 4
using System.Runtime.InteropServices;

namespace Outboard.Virtio.Spec;

/// <summary>Layouts of the split virtqueue.</summary>
public static class SplitRing
{
    /// <summary>Largest queue size.</summary>
    public const int MaxSize = 32768;

    /// <summary>Bytes of a descriptor.</summary>
    public const uint DescriptorBytes = 16;

    /// <summary>VIRTQ_DESC_F_NEXT.</summary>
    public const ushort Next = 1;

    /// <summary>VIRTQ_DESC_F_WRITE.</summary>
    public const ushort Write = 2;

    /// <summary>VIRTQ_DESC_F_INDIRECT.</summary>
    public const ushort Indirect = 4;

    /// <summary>VIRTQ_USED_F_NO_NOTIFY.</summary>
    public const ushort NoNotify = 1;

    /// <summary>VIRTQ_AVAIL_F_NO_INTERRUPT.</summary>
    public const ushort NoInterrupt = 1;

    /// <summary>Offset of flags in the available and the used ring.</summary>
    public const uint FlagsOffset = 0;

    /// <summary>Offset of idx in the available and the used ring.</summary>
    public const uint IndexOffset = 2;

    /// <summary>Offset of the ring of entries in the available and the used ring.</summary>
    public const uint EntriesOffset = 4;

    /// <summary>Bytes of the descriptor table.</summary>
    public static uint TableBytes(int size) => (uint)size * DescriptorBytes;

    /// <summary>Bytes of the available ring with its used_event.</summary>
    public static uint AvailableBytes(int size) => 6 + (2 * (uint)size);

    /// <summary>Bytes of the used ring with its avail_event.</summary>
    public static uint UsedBytes(int size) => 6 + (8 * (uint)size);

    /// <summary>Offset of used_event in the available ring.</summary>
    public static uint UsedEventOffset(int size) => 4 + (2 * (uint)size);

    /// <summary>Offset of avail_event in the used ring.</summary>
    public static uint AvailableEventOffset(int size) => 4 + (8 * (uint)size);

    /// <summary>Whether moving an index from <paramref name="old"/> to <paramref name="now"/> passes
    /// <paramref name="wanted"/>: virtio-v1.3 "2.7.7.2 Device Requirements: Used Buffer Notification Suppression".
    /// </summary>
    public static bool Passes(ushort wanted, ushort now, ushort old) =>
        (ushort)(now - wanted - 1) < (ushort)(now - old);
}

/// <summary>A descriptor, copied out of shared memory.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
public readonly struct SplitDescriptor(ulong address, uint length, ushort flags, ushort next)
{
    /// <summary>Guest address of the buffer.</summary>
    public readonly ulong Address = address;

    /// <summary>Bytes.</summary>
    public readonly uint Length = length;

    /// <summary>
    /// <see cref="SplitRing.Next"/>, <see cref="SplitRing.Write"/>, <see cref="SplitRing.Indirect"/>.
    /// </summary>
    public readonly ushort Flags = flags;

    /// <summary>The next descriptor's index, with <see cref="SplitRing.Next"/>.</summary>
    public readonly ushort Next = next;
}

/// <summary>An entry of the used ring.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
public readonly struct SplitUsedElement(uint id, uint length)
{
    /// <summary>Index of the chain's head descriptor.</summary>
    public readonly uint Id = id;

    /// <summary>Bytes that the device wrote.</summary>
    public readonly uint Length = length;
}
