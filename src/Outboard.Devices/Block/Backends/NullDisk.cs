// A disk without storage: writes vanish, reads leave the guest's buffers as they are. For measuring everything else.
using Outboard.Linux;
using Outboard.Virtio;

namespace Outboard.Devices.Block.Backends;

/// <summary>A disk that stores nothing.</summary>
public sealed class NullDisk(long sizeBytes) : Disk
{
    /// <inheritdoc/>
    public override long SizeBytes => sizeBytes;

    /// <inheritdoc/>
    public override string Description => $"null, {sizeBytes} bytes";

    /// <inheritdoc/>
    public override DiskQueue OpenQueue(IoContext context, IDiskQueueOwner owner, int depth) => new Queue();

    /// <inheritdoc/>
    public override void Dispose()
    {
    }

    private sealed class Queue : DiskQueue
    {
        public override int Start(uint request, in DiskOperation operation, ReadOnlySpan<IoSegment> segments) => 0;
    }
}
