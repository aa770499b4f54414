// Where memory of this process lies for a device that knows no translation: /proc/self/pagemap, which only tells a
// process that may know (CAP_SYS_ADMIN). The memory must not move: huge pages of a memfd do not.
using System.Buffers.Binary;

namespace Outboard.Linux.Memory;

/// <summary>Physical addresses.</summary>
public static class PhysicalPlace
{
    private const ulong IsPresent = 1UL << 63;
    private const ulong FrameMask = (1UL << 55) - 1;

    /// <summary>The physical address of memory that is contiguous there.</summary>
    /// <exception cref="IOException">It is not contiguous, or this process may not know.</exception>
    public static ulong Of(IoSegment memory)
    {
        ulong page = (ulong)Environment.SystemPageSize;
        using FileStream map = new("/proc/self/pagemap", FileMode.Open, FileAccess.Read, FileShare.ReadWrite, 0);
        ulong start = 0;
        byte[] entry = new byte[sizeof(ulong)];
        for (ulong offset = 0; offset < (ulong)memory.Length; offset += page)
        {
            // A page that was never touched has no place.
            memory.Slice((long)offset, 1).Span[0] = 0;
            map.Seek((long)((memory.Address + offset) / page * sizeof(ulong)), SeekOrigin.Begin);
            map.ReadExactly(entry);
            ulong value = BinaryPrimitives.ReadUInt64LittleEndian(entry);
            ulong frame = (value & FrameMask) * page;
            if ((value & IsPresent) == 0 || frame == 0)
            {
                throw new IOException("physical addresses cannot be known: run as root (CAP_SYS_ADMIN)");
            }

            start = offset == 0 ? frame : start;
            if (frame != start + offset)
            {
                throw new IOException("memory is not contiguous for a device: give it huge pages");
            }
        }

        return start;
    }
}
