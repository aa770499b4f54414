// One thread's access to a file: the page cache is read and written at once, without waiting; what would wait goes to
// the thread's I/O engine.
//
//   Start -> Step: move what can be moved now; if all is done, return
//                  otherwise queue one engine operation for the rest  -> Pending
//   OnFileCompletion -> note progress -> Step again, until all is done  -> OnDiskCompletion
//
// A request is a loop of steps because each may move less than asked: short transfers, bounce buffers for memory that
// O_DIRECT does not take, zeroes written in pieces where the storage cannot make them. When the engine is full a
// request waits in line (the backlog) and tries again in a later turn.
//
// Buffered writes: where the file system knows no write without waiting (ext4), the write is made at once all the same.
// It copies into the page cache (about 4 us for 4 KiB), and waits only when the kernel slows all writers down; handing
// it to the kernel's own threads costs several times that, for every write.
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Memory;
using Outboard.Virtio;

namespace Outboard.Devices.Block.Backends;

internal sealed class FileDiskQueue : DiskQueue
{
    /// <summary>The most pieces that one system call takes (IOV_MAX).</summary>
    private const int MaxSegments = 1024;

    private readonly BlockFile _file;
    private readonly IoContext _context;
    private readonly IDiskQueueOwner _owner;
    private readonly Progress[] _requests;
    private readonly Queue<uint> _waiting;
    private readonly IoSegment[] _rest = new IoSegment[MaxSegments];
    private readonly BouncePool _bounces;
    private bool _usesEngine;

    internal FileDiskQueue(FileDisk disk, IoContext context, IDiskQueueOwner owner, int depth)
    {
        _file = disk.File;
        _context = context;
        _owner = owner;
        _requests = new Progress[depth];
        _waiting = new Queue<uint>(depth);
        _bounces = new BouncePool();
    }

    public override int Start(uint request, in DiskOperation operation, ReadOnlySpan<IoSegment> segments)
    {
        if (segments.Length > MaxSegments)
        {
            return -Errno.InvalidArgument;
        }

        if (!_file.IsDirect && !operation.IsDurable && _waiting.Count == 0)
        {
            int now = TryNow(in operation, segments);
            if (now == operation.Length)
            {
                return 0;
            }

            _requests[request] = new Progress { Operation = operation, Done = Math.Max(now, 0) };
        }
        else
        {
            _requests[request] = new Progress { Operation = operation };
        }

        return Step(request, segments);
    }

    public override void OnFileCompletion(uint request, int result)
    {
        ReadOnlySpan<IoSegment> segments = _owner.Segments(request);
        int outcome = Advance(ref _requests[request], segments, result);
        if (outcome == Pending)
        {
            outcome = Step(request, segments);
        }

        if (outcome != Pending)
        {
            Finish(request, outcome);
        }
    }

    public override bool HasBacklog => _waiting.Count > 0;

    public override void Retry()
    {
        for (int left = _waiting.Count; left > 0 && _context.Files.FreeSlots > 0; left--)
        {
            uint next = _waiting.Dequeue();
            _ = Step(next, _owner.Segments(next));
        }
    }

    public override void Dispose()
    {
        if (_usesEngine)
        {
            // The engine must not keep the file open (and locked) when the disk is closed. Other queues of this thread
            // may have operations on it that are queued: those are handed over first.
            _context.Files.Submit();
            _context.Files.Release(_file);
        }

        for (int i = 0; i < _requests.Length; i++)
        {
            // Of requests that stay in flight when a queue is suspended.
            ReturnBounce(ref _requests[i]);
        }

        _bounces.Dispose();
        base.Dispose();
    }

    /// <summary>What needs no waiting. Returns bytes moved, or a negative error number for "not now".</summary>
    private int TryNow(in DiskOperation operation, ReadOnlySpan<IoSegment> segments) => operation.Kind switch
    {
        DiskOperationKind.Read => _file.TryReadNow(segments, operation.Offset),
        DiskOperationKind.Write when _file.SupportsWriteNow => _file.TryWriteNow(segments, operation.Offset),
        DiskOperationKind.Write => _file.Write(segments, operation.Offset),
        _ => -Errno.TryAgain,
    };

    /// <summary>Queues the next engine operation of a request.</summary>
    private int Step(uint request, ReadOnlySpan<IoSegment> segments)
    {
        ref Progress progress = ref _requests[request];
        _usesEngine = true;
        bool queued = progress.Operation.Kind switch
        {
            DiskOperationKind.Read or DiskOperationKind.Write => TryMove(request, ref progress, segments),
            DiskOperationKind.Flush => _context.Files.TryDataSync(_file, Tag(request)),
            _ => TryClear(request, ref progress),
        };
        if (!queued)
        {
            _waiting.Enqueue(request);
        }

        return Pending;
    }

    private bool TryMove(uint request, ref Progress progress, ReadOnlySpan<IoSegment> segments)
    {
        ref readonly DiskOperation operation = ref progress.Operation;
        long offset = operation.Offset + progress.Done;
        bool isRead = operation.Kind == DiskOperationKind.Read;
        ReadOnlySpan<IoSegment> rest = progress.Done == 0 ? segments : Skip(segments, progress.Done);
        if (_file.IsDirect && !IsAligned(rest))
        {
            if (progress.Bounce is null && !_bounces.TryRent(operation.Length - progress.Done, out progress.Bounce))
            {
                return false;
            }

            IoSegment bounce = progress.Bounce!.Segment;
            bounce = bounce.Slice(0, Math.Min(bounce.Length, operation.Length - progress.Done));
            if (!isRead)
            {
                Scatter.CopyTo(segments, progress.Done, bounce.Span);
            }

            ReadOnlySpan<IoSegment> one = new(in bounce);
            return isRead
                ? _context.Files.TryRead(_file, one, offset, Tag(request))
                : _context.Files.TryWrite(_file, one, offset, Tag(request), operation.IsDurable);
        }

        // What is left of a request that began unaligned may be aligned: then the bounce buffer has no part in it.
        ReturnBounce(ref progress);
        return isRead
            ? _context.Files.TryRead(_file, rest, offset, Tag(request))
            : _context.Files.TryWrite(_file, rest, offset, Tag(request), operation.IsDurable);
    }

    /// <summary>Discard and write zeroes: by the storage if it can, by writing zeroes otherwise.</summary>
    private bool TryClear(uint request, ref Progress progress)
    {
        ref readonly DiskOperation operation = ref progress.Operation;
        if (!progress.WritesZeroes)
        {
            AllocateMode mode = operation.Kind == DiskOperationKind.Discard || operation.MayUnmap
                ? AllocateMode.PunchHole
                : AllocateMode.ZeroRange;
            return _context.Files.TryAllocate(
                _file, mode | AllocateMode.KeepSize, operation.Offset, operation.Length, Tag(request));
        }

        IoSegment zeroes = _bounces.Zeroes;
        zeroes = zeroes.Slice(0, Math.Min(zeroes.Length, operation.Length - progress.Done));
        ReadOnlySpan<IoSegment> one = new(in zeroes);
        return _context.Files.TryWrite(
            _file, one, operation.Offset + progress.Done, Tag(request), operation.IsDurable);
    }

    /// <summary>Takes an engine operation's result into account.</summary>
    /// <returns>
    /// 0 when the request is done, a negative error number, or <see cref="DiskQueue.Pending"/> for one more step.
    /// </returns>
    private static int Advance(ref Progress progress, ReadOnlySpan<IoSegment> segments, int result)
    {
        ref readonly DiskOperation operation = ref progress.Operation;
        if (result is -Errno.Interrupted or -Errno.TryAgain)
        {
            return Pending;
        }

        switch (operation.Kind)
        {
            case DiskOperationKind.Flush:
                return result;
            case DiskOperationKind.Discard when !progress.WritesZeroes && result == -Errno.NotSupported:
                // Discarding is a hint; a storage that cannot keeps its blocks.
                return 0;
            case DiskOperationKind.WriteZeroes when !progress.WritesZeroes && result == -Errno.NotSupported:
                progress.WritesZeroes = true;
                return Pending;
            case DiskOperationKind.Discard or DiskOperationKind.WriteZeroes when !progress.WritesZeroes:
                if (result < 0 || !operation.IsDurable)
                {
                    return result;
                }

                progress.Operation = new DiskOperation(DiskOperationKind.Flush, 0, 0);
                return Pending;
        }

        if (result <= 0)
        {
            // Nothing moved: the file ended before the disk did (somebody truncated it), or storage failed.
            return result == 0 ? -Errno.InputOutput : result;
        }

        if (progress.Bounce is not null && operation.Kind == DiskOperationKind.Read)
        {
            Scatter.CopyFrom(segments, progress.Done, progress.Bounce.Segment.Slice(0, result).Span);
        }

        progress.Done += result;
        return progress.Done >= operation.Length ? 0 : Pending;
    }

    private void Finish(uint request, int outcome)
    {
        ReturnBounce(ref _requests[request]);
        _owner.OnDiskCompletion(request, outcome);
    }

    private void ReturnBounce(ref Progress progress)
    {
        if (progress.Bounce is not null)
        {
            _bounces.Return(progress.Bounce);
            progress.Bounce = null;
        }
    }

    /// <summary>The segments without their first bytes, in a scratch array.</summary>
    private ReadOnlySpan<IoSegment> Skip(ReadOnlySpan<IoSegment> segments, long bytes)
    {
        int count = 0;
        foreach (ref readonly IoSegment segment in segments)
        {
            if (bytes >= segment.Length)
            {
                bytes -= segment.Length;
                continue;
            }

            _rest[count++] = segment.Slice(bytes, segment.Length - bytes);
            bytes = 0;
        }

        return _rest.AsSpan(0, count);
    }

    private bool IsAligned(ReadOnlySpan<IoSegment> segments)
    {
        nuint mask = (nuint)_file.DirectMemoryAlignment - 1;
        nuint lengthMask = (nuint)_file.DirectOffsetAlignment - 1;
        foreach (ref readonly IoSegment segment in segments)
        {
            if ((segment.Address & mask) != 0 || ((nuint)segment.Length & lengthMask) != 0)
            {
                return false;
            }
        }

        return true;
    }

    private ulong Tag(uint request) => _context.TagPrefix | request;

    private struct Progress
    {
        internal DiskOperation Operation;
        internal long Done;
        internal AlignedBounce? Bounce;
        internal bool WritesZeroes;
    }
}
