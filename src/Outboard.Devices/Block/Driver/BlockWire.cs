// Request layouts as the driver writes them, virtio-v1.3 "5.2.6 Device Operation". All fields little-endian.
//   header  0 type u32, 4 reserved u32, 8 sector u64                       16 bytes
//   range   0 sector u64, 8 num_sectors u32, 12 flags u32                  16 bytes, discard and write zeroes
using System.Runtime.InteropServices;

namespace Outboard.Devices.Block.Driver;

internal static class BlockWire
{
    internal const uint In = 0;
    internal const uint Out = 1;
    internal const uint Flush = 4;
    internal const uint GetId = 8;
    internal const uint Discard = 11;
    internal const uint WriteZeroes = 13;
    internal const uint RangeUnmap = 1;
}

[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly struct BlockHeader(uint type, ulong sector)
{
    internal readonly uint Type = type;
    internal readonly uint Reserved;
    internal readonly ulong Sector = sector;
}

[StructLayout(LayoutKind.Sequential, Pack = 1)]
internal readonly struct BlockRange(ulong sector, uint sectors, uint flags)
{
    internal readonly ulong Sector = sector;
    internal readonly uint Sectors = sectors;
    internal readonly uint Flags = flags;
}
