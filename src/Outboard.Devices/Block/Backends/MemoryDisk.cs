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

    /// <summary>Creates a disk of zero bytes.</summary>
    public MemoryDisk(long sizeBytes)
    {
        SizeBytes = sizeBytes;
        FileDescriptor descriptor = MemFd.Create("outboard-memory-disk", (ulong)sizeBytes);
        _mapping = MemoryMapping.Map(descriptor, 0, (ulong)sizeBytes);
        _file = BlockFile.FromDescriptor(descriptor, "memory");
    }

    /// <inheritdoc/>
    public override long SizeBytes { get; }

    /// <inheritdoc/>
    public override string Description => $"memory, {SizeBytes} bytes";

    /// <inheritdoc/>
    public override DiskQueue OpenQueue(QueueContext context, IDiskQueueOwner owner, int depth) => new Queue(this);

    /// <inheritdoc/>
    public override void Dispose()
    {
        _mapping.Dispose();
        _file.Dispose();
    }

    private sealed class Queue(MemoryDisk disk) : DiskQueue
    {
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
                Span<byte> stored = disk._mapping.Segment.Slice(offset, segment.Length).Span;
                if (toDisk)
                {
                    segment.Span.CopyTo(stored);
                }
                else
                {
                    stored.CopyTo(segment.Span);
                }

                offset += segment.Length;
            }
        }
    }
}
