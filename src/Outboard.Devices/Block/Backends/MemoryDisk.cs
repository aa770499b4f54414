// A disk in memory: a memfd, mapped once. Untouched and discarded ranges take no memory.
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Linux.Memory;
using Outboard.Virtio;

namespace Outboard.Devices.Block.Backends;

/// <summary>A disk in memory; its contents end with it.</summary>
public sealed class MemoryDisk : Disk
{
    private readonly BlockFile _file;
    private readonly MemoryMapping _mapping;

    /// <summary>Creates a disk of zeroes.</summary>
    /// <param name="sizeBytes">A multiple of 512, not 0.</param>
    public MemoryDisk(long sizeBytes)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(sizeBytes);
        ArgumentOutOfRangeException.ThrowIfNotEqual(sizeBytes % 512, 0, nameof(sizeBytes));
        SizeBytes = sizeBytes;
        _file = BlockFile.FromDescriptor(MemFd.Create("outboard-memory-disk", (ulong)sizeBytes), "memory");
        try
        {
            _mapping = MemoryMapping.Map(_file.Descriptor, 0, (ulong)sizeBytes);
        }
        catch
        {
            _file.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override long SizeBytes { get; }

    /// <inheritdoc/>
    public override string Description => $"memory, {SizeBytes} bytes";

    /// <inheritdoc/>
    public override DiskQueue OpenQueue(IoContext context, IDiskQueueOwner owner, int depth) => new Queue(this);

    /// <inheritdoc/>
    public override void Dispose()
    {
        _mapping.Dispose();
        _file.Dispose();
    }

    private sealed class Queue(MemoryDisk disk) : DiskQueue
    {
        private const long MaxCopyBytes = 1 << 30;

        public override int Start(uint request, in DiskOperation operation, ReadOnlySpan<IoSegment> segments)
        {
            switch (operation.Kind)
            {
                case DiskOperationKind.Read:
                    Copy(segments, operation.Offset, toDisk: false);
                    return 0;
                case DiskOperationKind.Write:
                    Copy(segments, operation.Offset, toDisk: true);
                    return 0;
                case DiskOperationKind.Discard or DiskOperationKind.WriteZeroes:
                    return disk._file.Discard(operation.Offset, operation.Length);
                default:
                    return 0;
            }
        }

        private void Copy(ReadOnlySpan<IoSegment> segments, long offset, bool toDisk)
        {
            foreach (ref readonly IoSegment segment in segments)
            {
                // In parts: a descriptor may be longer than a span.
                for (long done = 0; done < segment.Length; done += MaxCopyBytes)
                {
                    long part = Math.Min(segment.Length - done, MaxCopyBytes);
                    Span<byte> stored = disk._mapping.Segment.Slice(offset + done, part).Span;
                    Span<byte> guest = segment.Slice(done, part).Span;
                    if (toDisk)
                    {
                        guest.CopyTo(stored);
                    }
                    else
                    {
                        stored.CopyTo(guest);
                    }
                }

                offset += segment.Length;
            }
        }
    }
}
