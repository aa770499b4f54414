// One virtqueue of a block device: takes requests, checks them, hands them to the disk, writes their status.
//
//   Drain -> Begin: header copied, status byte found, range checked -> DiskQueue.Start
//         -> Finish, at once or from OnDiskCompletion: status byte, used length
//
// Every request gets a status; a host error is VIRTIO_BLK_S_IOERR. Nothing here allocates for a request.
using Outboard.Devices.Block.Backends;
using Outboard.Linux;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Block;

internal sealed class BlockQueue : QueueHandler, IDiskQueueOwner
{
    private readonly BlockDevice _device;
    private readonly Virtqueue _queue;
    private readonly BlockRequest[] _requests;
    private readonly DiskQueue _disk;

    internal BlockQueue(BlockDevice device, Disk disk, QueueContext context)
    {
        _device = device;
        _queue = context.Queue;
        _requests = new BlockRequest[_queue.Size];
        _disk = disk.OpenQueue(context, this, _queue.Size);
    }

    public override bool HasBacklog => _disk.HasBacklog;

    public override int Drain(int limit)
    {
        int taken = 0;
        while (taken < limit && _queue.TryTake(out DescriptorChain chain))
        {
            taken++;
            Begin(in chain);
        }

        return taken;
    }

    public override void Retry() => _disk.Retry();

    public override void OnFileCompletion(uint tag, int result) => _disk.OnFileCompletion(tag, result);

    public ReadOnlySpan<IoSegment> Segments(uint request)
    {
        ref readonly BlockRequest entry = ref _requests[request];
        return entry.IsWritten ? entry.Pending.Writable.Segments : entry.Pending.Readable.Segments;
    }

    public void OnDiskCompletion(uint request, int result) => Finish(ref _requests[request], result);

    public override void Dispose()
    {
        _disk.Dispose();
        base.Dispose();
    }

    private void Begin(scoped in DescriptorChain chain)
    {
        if (!chain.TryTakeTrailer(1, out IoSegment status))
        {
            // Without room for a status the driver cannot be told anything.
            chain.Complete(0);
            return;
        }

        bool hasHeader = chain.TryTakeHeader(out BlockRequestHeader header);
        bool isRead = hasHeader && header.Type == BlockRequestType.In;
        ref BlockRequest request = ref _requests[chain.Slot];
        request = new BlockRequest(chain.Detach(), status, isRead ? chain.Writable.Length : 0);
        if (!hasHeader)
        {
            Finish(ref request, BlockStatus.IoError);
            return;
        }

        switch (header.Type)
        {
            case BlockRequestType.In:
                Transfer(ref request, in chain, header.Sector, DiskOperationKind.Read, chain.Writable.Segments);
                break;
            case BlockRequestType.Out when !_device.IsReadOnly:
                Transfer(ref request, in chain, header.Sector, DiskOperationKind.Write, chain.Readable.Segments);
                break;
            case BlockRequestType.Flush:
                Start(ref request, in chain, new DiskOperation(DiskOperationKind.Flush, 0, 0), []);
                break;
            case BlockRequestType.GetId:
                GetId(ref request, in chain);
                break;
            case BlockRequestType.Discard or BlockRequestType.WriteZeroes when !_device.IsReadOnly:
                Clear(ref request, in chain, header.Type == BlockRequestType.WriteZeroes);
                break;
            case BlockRequestType.Out or BlockRequestType.Discard or BlockRequestType.WriteZeroes:
                Finish(ref request, BlockStatus.IoError);
                break;
            default:
                Finish(ref request, BlockStatus.Unsupported);
                break;
        }
    }

    private void Transfer(
        ref BlockRequest request,
        scoped in DescriptorChain chain,
        ulong sector,
        DiskOperationKind kind,
        ReadOnlySpan<IoSegment> segments)
    {
        long length = kind == DiskOperationKind.Read ? request.DataBytes : chain.Readable.Length;
        if (!_device.IsInRange(sector, length, out long offset))
        {
            Finish(ref request, BlockStatus.IoError);
        }
        else if (length == 0)
        {
            Finish(ref request, BlockStatus.Ok);
        }
        else
        {
            bool durable = kind == DiskOperationKind.Write && !_device.IsWriteBack;
            Start(ref request, in chain, new DiskOperation(kind, offset, length, durable), segments);
        }
    }

    /// <summary>Discard and write zeroes: one range, as the configuration says.</summary>
    private void Clear(ref BlockRequest request, scoped in DescriptorChain chain, bool zeroes)
    {
        if (chain.Readable.Length != BlockRange.Bytes || !chain.TryTakeHeader(out BlockRange range))
        {
            Finish(ref request, BlockStatus.IoError);
            return;
        }

        if ((range.Flags & ~(zeroes ? BlockRange.Unmap : 0)) != 0)
        {
            Finish(ref request, BlockStatus.Unsupported);
            return;
        }

        long length = (long)range.SectorCount * BlockConfig.SectorBytes;
        if (!BlockDevice.IsRangeSize(range.SectorCount) || !_device.IsInRange(range.Sector, length, out long offset))
        {
            Finish(ref request, BlockStatus.IoError);
        }
        else if (length == 0)
        {
            Finish(ref request, BlockStatus.Ok);
        }
        else
        {
            DiskOperation operation = new(
                zeroes ? DiskOperationKind.WriteZeroes : DiskOperationKind.Discard,
                offset,
                length,
                IsDurable: zeroes && !_device.IsWriteBack,
                MayUnmap: (range.Flags & BlockRange.Unmap) != 0);
            Start(ref request, in chain, operation, []);
        }
    }

    private void GetId(ref BlockRequest request, scoped in DescriptorChain chain)
    {
        Span<byte> id = stackalloc byte[BlockConfig.IdBytes];
        id.Clear();
        _device.Serial.CopyTo(id);
        request.DataBytes = (uint)chain.Writable.CopyFrom(0, id);
        Finish(ref request, BlockStatus.Ok);
    }

    private void Start(
        ref BlockRequest request,
        scoped in DescriptorChain chain,
        in DiskOperation operation,
        ReadOnlySpan<IoSegment> segments)
    {
        int result = _disk.Start((uint)chain.Slot, in operation, segments);
        if (result != DiskQueue.Pending)
        {
            Finish(ref request, result);
        }
    }

    private static void Finish(ref BlockRequest request, int result) => Finish(ref request, result switch
    {
        >= 0 => BlockStatus.Ok,
        -Errno.NotSupported => BlockStatus.Unsupported,
        _ => BlockStatus.IoError,
    });

    private static void Finish(ref BlockRequest request, BlockStatus status)
    {
        request.Status.Span[0] = (byte)status;
        request.Pending.Complete((uint)request.DataBytes + 1);
    }

    /// <summary>A request in flight.</summary>
    private struct BlockRequest(PendingRequest pending, IoSegment status, long dataBytes)
    {
        /// <summary>What the driver gets back.</summary>
        internal readonly PendingRequest Pending = pending;

        /// <summary>The status byte in guest memory.</summary>
        internal readonly IoSegment Status = status;

        /// <summary>Bytes written before the status.</summary>
        internal long DataBytes = dataBytes;

        /// <summary>Whether the device writes the data.</summary>
        internal readonly bool IsWritten => DataBytes != 0;
    }
}
