// Registers are written by accesses of any width at any place: a field counts when it is written as a whole.
using System.Buffers.Binary;

namespace Outboard.Virtio.Pci;

/// <summary>Fields of a write. The write begins at an offset, and so does the field, of the same registers.</summary>
internal static class WrittenField
{
    internal static bool TryGet16(int offset, ReadOnlySpan<byte> source, int field, out ushort value)
    {
        bool covers = Covers(offset, source, field, sizeof(ushort));
        value = covers ? BinaryPrimitives.ReadUInt16LittleEndian(source[(field - offset)..]) : (ushort)0;
        return covers;
    }

    internal static bool TryGet32(int offset, ReadOnlySpan<byte> source, int field, out uint value)
    {
        bool covers = Covers(offset, source, field, sizeof(uint));
        value = covers ? BinaryPrimitives.ReadUInt32LittleEndian(source[(field - offset)..]) : 0;
        return covers;
    }

    private static bool Covers(int offset, ReadOnlySpan<byte> source, int field, int bytes) =>
        offset <= field && field + bytes <= offset + source.Length;
}
