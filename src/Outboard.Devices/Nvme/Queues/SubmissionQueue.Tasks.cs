// Commands in several steps: compare, dataset management, a flush of all namespaces; and every read and write whose
// data does not lie in mapped memory: it goes through a buffer, by the transport's messages.
//
// All of it runs on the worker's thread: waiting for the disk is continued where the disk's completion is seen, waiting
// for messages comes back by NvmeWorker.ReturnAsync.
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme.Spec;
using Outboard.Linux;

namespace Outboard.Devices.Nvme.Queues;

internal sealed partial class SubmissionQueue
{
    private readonly Stack<IoTask> _idle = new();
    private readonly Queue<IoTask> _waiting = new();

    /// <summary>Tasks that run or wait for a buffer.</summary>
    private int _tasks;

    /// <summary>Starts tasks that wait for a buffer, as far as there are some.</summary>
    /// <returns>Whether one was started.</returns>
    internal bool StartWaiting()
    {
        bool any = false;
        while (!IsDiscarding && _waiting.Count > 0 && _worker.TryRent(out TransferBuffer? buffer))
        {
            IoTask task = _waiting.Dequeue();
            task.Buffer = buffer;
            task.Observe(RunAsync(task));
            any = true;
        }

        return any;
    }

    private NvmeStatus StartTask(int index, scoped in NvmeCommand command, DiskChannel? channel)
    {
        if (!_idle.TryPop(out IoTask? task))
        {
            task = new IoTask();
        }

        task.Command = command;
        task.Index = index;
        task.Channel = channel;
        _slots[index].Task = task;
        _tasks++;
        _waiting.Enqueue(task);
        StartWaiting();
        return NvmeStatus.Pending;
    }

    /// <summary>The queue is reset: whatever waits is told so.</summary>
    private void CancelTasks()
    {
        while (_waiting.TryDequeue(out IoTask? task))
        {
            End(task, NvmeStatus.AbortedByQueueDeletion);
        }

        for (int i = 0; i < _slots.Length && _tasks > 0; i++)
        {
            _slots[i].Task?.OnDisk(-Errno.Canceled);
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask RunAsync(IoTask task)
    {
        NvmeStatus status = NvmeStatus.InternalError;
        try
        {
            status = (NvmeIoOpcode)task.Command.Opcode switch
            {
                NvmeIoOpcode.Flush => await FlushAllAsync(task).ConfigureAwait(false),
                NvmeIoOpcode.DatasetManagement => await ManageAsync(task).ConfigureAwait(false),
                NvmeIoOpcode.Compare => await CompareAsync(task).ConfigureAwait(false),
                NvmeIoOpcode.Write => await WriteAsync(task).ConfigureAwait(false),
                _ => await ReadAsync(task).ConfigureAwait(false),
            };
        }
        finally
        {
            // Also after a bug of ours, which stops this thread's queues: a reset waits for tasks.
            End(task, status);
        }
    }

    private void End(IoTask task, NvmeStatus status)
    {
        if (task.Buffer is { } buffer)
        {
            task.Buffer = null;
            _worker.Return(buffer);
        }

        _tasks--;
        Finish(task.Index, status);
        _idle.Push(task);
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<NvmeStatus> FlushAllAsync(IoTask task)
    {
        NvmeStatus status = NvmeStatus.Success;
        foreach (DiskChannel channel in _channels)
        {
            NvmeStatus one = await RunAsync(
                task, channel, new DiskOperation(DiskOperationKind.Flush, 0, 0), default).ConfigureAwait(false);
            status = one == NvmeStatus.Success ? status : one;
        }

        return status;
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<NvmeStatus> ManageAsync(IoTask task)
    {
        const uint deallocate = 1 << 2;
        DiskChannel channel = task.Channel!;
        NvmeNamespace place = channel.Namespace;
        int count = (int)(task.Command.Word10 & 0xff) + 1;
        NvmeStatus status =
            await ReadGuestAsync(task, (uint)(count * DatasetRange.Bytes)).ConfigureAwait(false);
        if (status != NvmeStatus.Success || (task.Command.Word11 & deallocate) == 0)
        {
            // The other attributes are hints.
            return status;
        }

        if (place.IsReadOnly)
        {
            return NvmeStatus.WriteProtected;
        }

        for (int i = 0; i < count; i++)
        {
            DatasetRange range = RangeAt(task.Buffer!, i);
            if (!place.IsInRange(range.FirstBlock, range.BlockCount))
            {
                return NvmeStatus.LbaOutOfRange;
            }
        }

        for (int i = 0; i < count && status == NvmeStatus.Success; i++)
        {
            DatasetRange range = RangeAt(task.Buffer!, i);
            if (range.BlockCount > 0)
            {
                DiskOperation operation = new(
                    DiskOperationKind.Discard,
                    (long)range.FirstBlock << place.BlockShift,
                    (long)range.BlockCount << place.BlockShift);
                status = await RunAsync(task, channel, operation, default).ConfigureAwait(false);
            }
        }

        return status;
    }

    private static DatasetRange RangeAt(TransferBuffer buffer, int index) =>
        MemoryMarshal.Read<DatasetRange>(buffer.Data.Span.Slice(index * DatasetRange.Bytes, DatasetRange.Bytes));

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<NvmeStatus> WriteAsync(IoTask task)
    {
        NvmeStatus status = Describe(task, DiskOperationKind.Write, out DiskOperation operation);
        if (status == NvmeStatus.Success)
        {
            status = await ReadGuestAsync(task, (uint)operation.Length).ConfigureAwait(false);
        }

        return status != NvmeStatus.Success
            ? status
            : await RunAsync(task, task.Channel!, operation, task.Buffer!.Data.Slice(0, operation.Length))
                .ConfigureAwait(false);
    }

    /// <summary>Reads from the disk into the task's buffer, and finds where the guest's memory is.</summary>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<NvmeStatus> FetchAsync(IoTask task)
    {
        NvmeStatus status = Describe(task, DiskOperationKind.Read, out DiskOperation operation);
        if (status == NvmeStatus.Success)
        {
            status = await ResolveAsync(task, (uint)operation.Length).ConfigureAwait(false);
        }

        return status != NvmeStatus.Success
            ? status
            : await RunAsync(task, task.Channel!, operation, task.Buffer!.Data.Slice(0, operation.Length))
                .ConfigureAwait(false);
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<NvmeStatus> ReadAsync(IoTask task)
    {
        NvmeStatus status = await FetchAsync(task).ConfigureAwait(false);
        long done = 0;
        for (int i = 0; i < task.Ranges.Count && status == NvmeStatus.Success; i++)
        {
            DmaRange range = task.Ranges[i];
            for (uint part = 0; part < range.Length && status == NvmeStatus.Success;)
            {
                Memory<byte> chunk = Part(task, range, part);
                task.Buffer!.Data.Slice(done, chunk.Length).Span.CopyTo(chunk.Span);
                if (!await _worker.TryWriteGuestAsync(range.Address + part, chunk).ConfigureAwait(false))
                {
                    status = NvmeStatus.DataTransferError;
                }

                part += (uint)chunk.Length;
                done += chunk.Length;
            }
        }

        return status;
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<NvmeStatus> CompareAsync(IoTask task)
    {
        NvmeStatus status = await FetchAsync(task).ConfigureAwait(false);
        long done = 0;
        for (int i = 0; i < task.Ranges.Count && status == NvmeStatus.Success; i++)
        {
            DmaRange range = task.Ranges[i];
            for (uint part = 0; part < range.Length && status == NvmeStatus.Success;)
            {
                Memory<byte> chunk = Part(task, range, part);
                if (!await _worker.TryReadGuestAsync(range.Address + part, chunk).ConfigureAwait(false))
                {
                    status = NvmeStatus.DataTransferError;
                }
                else if (!task.Buffer!.Data.Slice(done, chunk.Length).Span.SequenceEqual(chunk.Span))
                {
                    status = NvmeStatus.CompareFailure;
                }

                part += (uint)chunk.Length;
                done += chunk.Length;
            }
        }

        return status;
    }

    private NvmeStatus Describe(IoTask task, DiskOperationKind kind, out DiskOperation operation)
    {
        NvmeCommand command = task.Command;
        return DescribeMove(in command, task.Channel!.Namespace, kind, out operation);
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<NvmeStatus> RunAsync(
        IoTask task, DiskChannel channel, DiskOperation operation, IoSegment segment)
    {
        if (IsDiscarding)
        {
            return NvmeStatus.AbortedByQueueDeletion;
        }

        int result = await task.RunAsync(channel, in operation, segment).ConfigureAwait(false);
        _slots[task.Index].Kind = operation.Kind;
        _slots[task.Index].Bytes = operation.Length;
        return DiskStatus(operation.Kind, result);
    }

    /// <summary>Finds the ranges of the task's data, with messages where lists are not mapped.</summary>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<NvmeStatus> ResolveAsync(IoTask task, uint length)
    {
        NvmeStatus status = Parse(task, length, _worker.MappedLists);
        if (status == NvmeStatus.Pending)
        {
            FetchedLists lists = new();
            while ((status = Parse(task, length, lists)) == NvmeStatus.Pending)
            {
                byte[] piece = new byte[lists.Wanted.Length];
                if (!await _worker.TryReadGuestAsync(lists.Wanted.Address, piece).ConfigureAwait(false))
                {
                    return NvmeStatus.DataTransferError;
                }

                lists.Add(piece);
                lists.Rewind();
            }
        }

        task.Ranges.Clear();
        task.Ranges.AddRange(_worker.Pointer.Ranges);
        return status;
    }

    private NvmeStatus Parse(IoTask task, uint length, GuestLists lists)
    {
        NvmeCommand command = task.Command;
        return _worker.Pointer.Parse(in command, length, _controller.PageBytes, lists);
    }

    /// <summary>Copies the task's data out of the guest, into its buffer.</summary>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<NvmeStatus> ReadGuestAsync(IoTask task, uint length)
    {
        NvmeStatus status = await ResolveAsync(task, length).ConfigureAwait(false);
        long done = 0;
        for (int i = 0; i < task.Ranges.Count && status == NvmeStatus.Success; i++)
        {
            DmaRange range = task.Ranges[i];
            for (uint part = 0; part < range.Length && status == NvmeStatus.Success;)
            {
                Memory<byte> chunk = Part(task, range, part);
                if (!await _worker.TryReadGuestAsync(range.Address + part, chunk).ConfigureAwait(false))
                {
                    status = NvmeStatus.DataTransferError;
                }

                chunk.Span.CopyTo(task.Buffer!.Data.Slice(done, chunk.Length).Span);
                part += (uint)chunk.Length;
                done += chunk.Length;
            }
        }

        return status;
    }

    private static Memory<byte> Part(IoTask task, DmaRange range, uint done)
    {
        byte[] chunk = task.Buffer!.Chunk;
        return chunk.AsMemory(0, (int)Math.Min(range.Length - done, (uint)chunk.Length));
    }
}
