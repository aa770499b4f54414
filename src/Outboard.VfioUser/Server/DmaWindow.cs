// One window of guest memory that a client announced: where it is, what may be done, and by which way it is reached.
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Memory;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Server;

/// <summary>A window: mapped memory, a file, or (with neither) messages.</summary>
internal sealed class DmaWindow(ulong address, ulong sizeBytes, DmaMapFlags flags) : IDisposable
{
    internal ulong Address => address;

    internal ulong SizeBytes => sizeBytes;

    internal ulong Last => address + sizeBytes - 1;

    internal bool CanRead => (flags & DmaMapFlags.Read) != 0;

    internal bool CanWrite => (flags & DmaMapFlags.Write) != 0;

    /// <summary>The mapped memory.</summary>
    internal MemoryRegion? Region { get; init; }

    /// <summary>The file, and where the window begins in it.</summary>
    internal (BlockFile File, ulong Offset)? File { get; init; }

    /// <summary>Whether it is reached without messages.</summary>
    internal bool IsDirect => Region is not null || File is not null;

    public void Dispose()
    {
        Region?.Dispose();
        File?.File.Dispose();
    }

    /// <summary>Reads, directly.</summary>
    internal int Read(ulong offset, Span<byte> destination)
    {
        if (Region is { } region)
        {
            region.Segment.Slice((long)offset, destination.Length).Span.CopyTo(destination);
            return 0;
        }

        (BlockFile file, ulong start) = File!.Value;
        return Complete(file.Read(destination, (long)(start + offset)), destination.Length);
    }

    /// <summary>Writes, directly.</summary>
    internal int Write(ulong offset, ReadOnlySpan<byte> source)
    {
        if (Region is { } region)
        {
            source.CopyTo(region.Segment.Slice((long)offset, source.Length).Span);
            return 0;
        }

        (BlockFile file, ulong start) = File!.Value;
        return Complete(file.Write(source, (long)(start + offset)), source.Length);
    }

    private static int Complete(int result, int wanted) =>
        result == wanted ? 0 : result < 0 ? -result : Errno.InputOutput;
}
