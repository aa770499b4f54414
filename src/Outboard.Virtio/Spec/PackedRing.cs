// Layouts and flags of the packed virtqueue, virtio-v1.3 "2.8 Packed Virtqueues". All fields little-endian.
//   descriptor    0 addr u64, 8 len u32, 12 id u16, 14 flags u16                    16 bytes, aligned to 16
//   event area    0 off_wrap u16 (bits 0-14 offset, 15 wrap counter), 2 flags u16    4 bytes, aligned to 4
using System.Runtime.InteropServices;

namespace Outboard.Virtio.Spec;

/// <summary>Layouts of the packed virtqueue.</summary>
public static class PackedRing
{
    /// <summary>Bytes of a descriptor.</summary>
    public const uint DescriptorBytes = 16;

    /// <summary>Offset of a descriptor's length.</summary>
    public const uint LengthOffset = 8;

    /// <summary>Offset of a descriptor's buffer id.</summary>
    public const uint IdOffset = 12;

    /// <summary>Offset of a descriptor's flags.</summary>
    public const uint FlagsOffset = 14;

    /// <summary>VIRTQ_DESC_F_AVAIL.</summary>
    public const ushort Available = 1 << 7;

    /// <summary>VIRTQ_DESC_F_USED.</summary>
    public const ushort Used = 1 << 15;

    /// <summary>Bytes of an event area.</summary>
    public const uint EventBytes = 4;

    /// <summary>Offset of an event area's flags.</summary>
    public const uint EventFlagsOffset = 2;

    /// <summary>RING_EVENT_FLAGS_ENABLE.</summary>
    public const ushort EventEnable = 0;

    /// <summary>RING_EVENT_FLAGS_DISABLE.</summary>
    public const ushort EventDisable = 1;

    /// <summary>RING_EVENT_FLAGS_DESC: at one descriptor, with EVENT_IDX.</summary>
    public const ushort EventDescriptor = 2;

    /// <summary>Length, id and flags of a descriptor, for one store at <see cref="LengthOffset"/>.</summary>
    public static ulong SecondHalf(uint length, ushort id, ushort flags) => BitConverter.IsLittleEndian
        ? length | ((ulong)id << 32) | ((ulong)flags << 48)
        : ((ulong)length << 32) | ((ulong)id << 16) | flags;

    /// <summary>Whether an event area asks for a notification.</summary>
    /// <param name="flags">The area's flags.</param>
    /// <param name="offsetAndWrap">The area's offset and wrap counter.</param>
    /// <param name="hasEventIndex">Whether EVENT_IDX was negotiated.</param>
    /// <param name="position">Where the notifying side stands after its last batch.</param>
    /// <param name="count">Descriptors in that batch.</param>
    /// <param name="size">Queue size.</param>
    public static bool WantsEvent(
        ushort flags, ushort offsetAndWrap, bool hasEventIndex, PackedPosition position, int count, int size)
    {
        if (flags != EventDescriptor || !hasEventIndex)
        {
            return flags != EventDisable;
        }

        PackedPosition wanted = new(offsetAndWrap);
        int offset = wanted.Wrap == position.Wrap ? wanted.Index : wanted.Index - size;
        return SplitRing.Passes((ushort)offset, position.Index, (ushort)(position.Index - count));
    }
}

/// <summary>A place in a packed ring: index and wrap counter, as bits 0-14 and 15 of 16.</summary>
public readonly record struct PackedPosition(ushort Index, bool Wrap)
{
    private const int WrapShift = 15;

    /// <summary>Unpacks 16 bits.</summary>
    public PackedPosition(ushort packed)
        : this((ushort)(packed & 0x7FFF), packed >> WrapShift != 0)
    {
    }

    /// <summary>Where both sides begin.</summary>
    public static PackedPosition Start => new(0, true);

    /// <summary>The beginning of both sides, as a vring base packs it.</summary>
    public static uint StartOfBoth => Start.Packed | ((uint)Start.Packed << 16);

    /// <summary>As 16 bits.</summary>
    public ushort Packed => (ushort)(Index | (Wrap ? 1 << WrapShift : 0));

    /// <summary>The flag bits of a descriptor that is available at this place.</summary>
    public ushort AvailableFlags => Wrap ? PackedRing.Available : PackedRing.Used;

    /// <summary>The flag bits of a descriptor that is used at this place.</summary>
    public ushort UsedFlags => (ushort)(Wrap ? PackedRing.Available | PackedRing.Used : 0);

    /// <summary>The place <paramref name="count"/> descriptors on.</summary>
    public PackedPosition Advance(int count, int size)
    {
        int index = Index + count;
        return index >= size ? new PackedPosition((ushort)(index - size), !Wrap) : new PackedPosition((ushort)index, Wrap);
    }

    /// <summary>Whether a descriptor with these flags is available at this place.</summary>
    public bool IsAvailable(ushort flags) => (flags & (PackedRing.Available | PackedRing.Used)) == AvailableFlags;

    /// <summary>
    /// Whether a descriptor with these flags was used at this place at some time: is still, or the driver has made it
    /// available again, one lap later.
    /// </summary>
    public bool WasUsed(ushort flags) => (flags & PackedRing.Used) != 0 == Wrap;

    /// <summary>Whether a descriptor with these flags is used at this place.</summary>
    public bool IsUsed(ushort flags) => (flags & (PackedRing.Available | PackedRing.Used)) == UsedFlags;
}

/// <summary>A descriptor, copied out of shared memory.</summary>
[StructLayout(LayoutKind.Sequential, Pack = 1)]
public readonly struct PackedDescriptor(ulong address, uint length, ushort id, ushort flags)
{
    /// <summary>Guest address of the buffer.</summary>
    public readonly ulong Address = address;

    /// <summary>Bytes.</summary>
    public readonly uint Length = length;

    /// <summary>Buffer id; the last descriptor's counts.</summary>
    public readonly ushort Id = id;

    /// <summary><see cref="SplitRing.Next"/>, Write, Indirect, and the two wrap bits.</summary>
    public readonly ushort Flags = flags;
}
