// An I/O submission queue: commands are taken in batches, checked, and handed to the namespaces' disks.
//
//   Drain -> Begin: entry copied, checked, data pointer -> segments of mapped memory -> DiskQueue.Start
//         -> Finish, at once or from OnDiskCompletion: a completion, in any order
//
// A command whose data does not lie in mapped memory, and one that takes several steps, is a task (IoTask). Nothing
// here allocates for a command.
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme.Spec;
using Outboard.Linux;
using Outboard.Memory;

namespace Outboard.Devices.Nvme.Queues;

/// <summary>An I/O submission queue. Used by its worker's thread, but for what says otherwise.</summary>
internal sealed partial class SubmissionQueue : IDiskQueueOwner, IDisposable
{
    /// <summary>
    /// Bytes of segment blocks of commands in flight; beyond, no command is taken: what a guest with scattered buffers
    /// can make this process hold, for each queue.
    /// </summary>
    private const long MaxSegmentBytes = 8 << 20;

    /// <summary>Entries that are fetched by one message.</summary>
    private const int FetchEntries = 16;

    private readonly NvmeWorker _worker;
    private readonly NvmeController _controller;
    private readonly CompletionQueue _completions;
    private readonly ulong _address;
    private readonly Slot[] _slots;
    private readonly int[] _free;
    private readonly SegmentTable _segments;
    private readonly DiskChannel[] _channels;

    private MemoryWindow _ring;
    private bool _isMapped;
    private bool _isFetching;
    private bool _isBroken;
    private uint _head;
    private uint _tail;
    private uint _badTail = uint.MaxValue;
    private uint _tailRegister;
    private int _freeCount;
    private int _hint;

    /// <summary>Whether it has just come from another process, so that a doorbell in memory is right.</summary>
    private bool _hasMoved;

    internal SubmissionQueue(NvmeWorker worker, CompletionQueue completions, int id, uint size, ulong address)
    {
        _worker = worker;
        _controller = worker.Controller;
        _completions = completions;
        _address = address;
        Id = id;
        Size = size;
        int depth = (int)size - 1;
        _slots = new Slot[depth];
        _free = new int[depth];
        for (int i = 0; i < depth; i++)
        {
            _free[i] = depth - 1 - i;
        }

        _freeCount = depth;
        _segments = new SegmentTable(depth);
        _channels = new DiskChannel[_controller.Namespaces.Count];
    }

    internal int Id { get; }

    internal uint Size { get; }

    internal CompletionQueue Completions => _completions;

    internal NvmeWorker Worker => _worker;

    /// <summary>Counts for the health log; read by other threads.</summary>
    internal NvmeCounters Counters { get; } = new();

    /// <summary>Commands in flight that use mapped memory.</summary>
    internal bool UsesMemory => InFlight > _tasks;

    /// <summary>Whether commands are in flight, or being fetched.</summary>
    internal bool IsBusy => InFlight > 0 || _isFetching;

    /// <summary>Whether entries are being fetched by a message.</summary>
    internal bool IsFetching => _isFetching;

    /// <summary>Commands that were taken and are not completed.</summary>
    internal int InFlight => _slots.Length - _freeCount;

    internal ulong Address => _address;

    private int DoorbellIndex => Id * 2;

    /// <summary>The driver wrote the doorbell's register. From the control loop; the value is below the
    /// size.</summary>
    internal void WriteTail(uint tail)
    {
        Volatile.Write(ref _tailRegister, tail);
        _worker.Ring();
    }

    /// <summary>Opens the disks, on the worker's thread.</summary>
    internal void Open()
    {
        for (int i = 0; i < _channels.Length; i++)
        {
            _channels[i] = new DiskChannel(_worker, this, _controller.Namespaces[i], _slots.Length);
        }
    }

    internal void Adopt(GuestMemory memory)
    {
        _isBroken = false;
        _hint = 0;
        _isMapped = memory.TryGetWindow(_address, Size * NvmeCommand.Bytes, out _ring);
    }

    /// <summary>Takes commands and starts them.</summary>
    /// <returns>How many were taken.</returns>
    internal int Drain(int limit)
    {
        if (IsStopping || _worker.IsPaused)
        {
            return 0;
        }

        uint tail = ReadTail();
        if (tail == _head)
        {
            return 0;
        }

        if (!_isMapped)
        {
            if (!_isFetching && !_isBroken)
            {
                _worker.Observe(FetchByMessagesAsync());
            }

            return 0;
        }

        int taken = 0;
        while (taken < limit && _head != tail && HasSlot && _completions.TryReserve())
        {
            NvmeCommand command = _ring.Read<NvmeCommand>(_head * NvmeCommand.Bytes);
            Begin(in command);
            taken++;
        }

        return taken;
    }

    /// <summary>Whether a turn would take a command; asked after <see cref="Arm"/>.</summary>
    internal bool HasWork => !IsStopping && !_worker.IsPaused && ReadTail() != _head
        && (_isMapped ? HasSlot && _completions.HasRoom() : !_isFetching && !_isBroken);

    /// <summary>Whether operations wait for room.</summary>
    internal bool HasBacklog
    {
        get
        {
            foreach (DiskChannel channel in _channels)
            {
                if (channel.Queue.HasBacklog && !IsDiscarding)
                {
                    return true;
                }
            }

            return false;
        }
    }

    private bool HasSlot => _freeCount > 0 && _segments.OverflowBytes <= MaxSegmentBytes;

    /// <summary>Has the driver ring when it adds a command, before nobody looks at this queue.</summary>
    internal void Arm()
    {
        _worker.Shadow.Arm(DoorbellIndex, _tail);
        if (ReadTail() != _head && !_completions.HasRoom())
        {
            _completions.ArmHead();
        }
    }

    /// <summary>
    /// The value of the doorbell, when the queue or the buffers are new: an earlier queue may have left its own.
    /// </summary>
    internal void FillShadow()
    {
        if (!_hasMoved)
        {
            _worker.Shadow.Set(DoorbellIndex, _tail);
        }

        _hasMoved = false;
    }

    internal void Retry()
    {
        if (IsDiscarding)
        {
            return;
        }

        foreach (DiskChannel channel in _channels)
        {
            if (channel.Queue.HasBacklog)
            {
                channel.Queue.Retry();
            }
        }
    }

    public ReadOnlySpan<IoSegment> Segments(uint request)
    {
        ref Slot slot = ref _slots[request];
        return slot.Task is { } task ? task.Segments : _segments.Segments((int)request, 0, slot.SegmentCount);
    }

    public void OnDiskCompletion(uint request, int result)
    {
        if (_slots[request].Task is { } task)
        {
            task.OnDisk(result);
        }
        else
        {
            Finish((int)request, DiskStatus(_slots[request].Kind, result));
        }
    }

    private uint ReadTail()
    {
        uint tail;
        if (!_worker.Shadow.IsOn)
        {
            tail = Volatile.Read(ref _tailRegister);
        }
        else if (!_worker.Shadow.TryRead(DoorbellIndex, out tail))
        {
            return _head;
        }

        if (tail < Size)
        {
            _tail = tail;
        }
        else if (tail != _badTail)
        {
            _badTail = tail;
            _controller.Raise(NvmeEvent.InvalidDoorbellValue);
        }

        return _tail;
    }

    private void Advance() => _head = _head + 1 == Size ? 0 : _head + 1;

    private async Task FetchByMessagesAsync()
    {
        _isFetching = true;
        try
        {
            while (!_isMapped && !IsStopping && !_worker.IsPaused && ReadTail() is var tail && tail != _head
                && HasSlot && _completions.HasRoom())
            {
                uint head = _head;
                int count = (int)Math.Min((tail > head ? tail : Size) - head, FetchEntries);
                byte[] entries = new byte[count * NvmeCommand.Bytes];
                ulong at = _address + (head * NvmeCommand.Bytes);
                if (!await _worker.TryReadGuestAsync(at, entries).ConfigureAwait(false))
                {
                    _isBroken = true;
                    _worker.OnRingUnreachable(at);
                    break;
                }

                // Commands that were mapped meanwhile have been taken already.
                for (int i = 0; i < count && _head == head + i && !IsStopping && !_worker.IsPaused && HasSlot
                    && _completions.TryReserve(); i++)
                {
                    Begin(System.Runtime.InteropServices.MemoryMarshal.Read<NvmeCommand>(
                        entries.AsSpan(i * NvmeCommand.Bytes)));
                }
            }
        }
        finally
        {
            _isFetching = false;
        }
    }

    /// <summary>Begins the command at the head.</summary>
    private void Begin(scoped in NvmeCommand command)
    {
        bool isAborted = TakeAborted(_head);
        Advance();
        int index = _free[--_freeCount];
        ref Slot slot = ref _slots[index];
        slot.Id = command.Id;
        slot.SegmentCount = 0;
        NvmeStatus status = isAborted ? NvmeStatus.AbortRequested : Start(index, in command);
        if (status != NvmeStatus.Pending)
        {
            Finish(index, status);
        }
    }

    private NvmeStatus Start(int index, scoped in NvmeCommand command)
    {
        if (command.IsFused)
        {
            return NvmeStatus.InvalidField;
        }

        NvmeIoOpcode opcode = (NvmeIoOpcode)command.Opcode;
        if (opcode == NvmeIoOpcode.Flush && command.Namespace == uint.MaxValue)
        {
            return StartTask(index, in command, null);
        }

        uint number = command.Namespace - 1;
        if (number >= (uint)_channels.Length)
        {
            return NvmeStatus.InvalidNamespace;
        }

        DiskChannel channel = _channels[number];
        return opcode switch
        {
            NvmeIoOpcode.Read => Move(index, in command, channel, DiskOperationKind.Read),
            NvmeIoOpcode.Write => Move(index, in command, channel, DiskOperationKind.Write),
            NvmeIoOpcode.Flush => Run(index, channel, new DiskOperation(DiskOperationKind.Flush, 0, 0)),
            NvmeIoOpcode.WriteZeroes => WriteZeroes(index, in command, channel),
            NvmeIoOpcode.Compare or NvmeIoOpcode.DatasetManagement => StartTask(index, in command, channel),
            _ => NvmeStatus.InvalidOpcode,
        };
    }

    private NvmeStatus Move(
        int index, scoped in NvmeCommand command, DiskChannel channel, DiskOperationKind kind)
    {
        NvmeStatus status = DescribeMove(in command, channel.Namespace, kind, out DiskOperation operation);
        if (status != NvmeStatus.Success)
        {
            return status;
        }

        status = _worker.Pointer.Parse(
            in command, (uint)operation.Length, _controller.PageBytes, _worker.MappedLists);
        if (status is not (NvmeStatus.Success or NvmeStatus.Pending))
        {
            return status;
        }

        ref Slot slot = ref _slots[index];
        return status == NvmeStatus.Success && TryMap(index, ref slot)
            ? Run(index, channel, in operation)
            : StartTask(index, in command, channel);
    }

    private NvmeStatus WriteZeroes(int index, scoped in NvmeCommand command, DiskChannel channel)
    {
        const uint deallocate = 1 << 25;
        NvmeNamespace place = channel.Namespace;
        if (!place.IsInRange(command.FirstBlock, command.BlockCount))
        {
            return NvmeStatus.LbaOutOfRange;
        }

        return place.IsReadOnly ? NvmeStatus.WriteProtected : Run(index, channel, new DiskOperation(
            DiskOperationKind.WriteZeroes,
            (long)command.FirstBlock << place.BlockShift,
            (long)command.BlockCount << place.BlockShift,
            IsDurable: MustBeDurable(in command),
            MayUnmap: (command.Word12 & deallocate) != 0));
    }

    /// <summary>Checks a read, write or compare.</summary>
    private NvmeStatus DescribeMove(
        scoped in NvmeCommand command, NvmeNamespace place, DiskOperationKind kind, out DiskOperation operation)
    {
        long length = (long)command.BlockCount << place.BlockShift;
        operation = new DiskOperation(
            kind,
            (long)command.FirstBlock << place.BlockShift,
            length,
            IsDurable: kind == DiskOperationKind.Write && MustBeDurable(in command));
        if (length > DataPointer.MaxTransferBytes)
        {
            return NvmeStatus.InvalidField;
        }

        if (!place.IsInRange(command.FirstBlock, command.BlockCount))
        {
            return NvmeStatus.LbaOutOfRange;
        }

        return kind == DiskOperationKind.Write && place.IsReadOnly
            ? NvmeStatus.WriteProtected
            : NvmeStatus.Success;
    }

    private bool MustBeDurable(scoped in NvmeCommand command)
    {
        const uint forceUnitAccess = 1 << 30;
        return (command.Word12 & forceUnitAccess) != 0 || !_controller.HasWriteCache;
    }

    private bool TryMap(int index, ref Slot slot)
    {
        GuestMemory memory = _worker.Memory;
        foreach (ref readonly DmaRange range in _worker.Pointer.Ranges)
        {
            if (!memory.TryAppend(
                range.Address, range.Length, _segments, index, ref slot.SegmentCount, ref _hint))
            {
                slot.SegmentCount = 0;
                return false;
            }
        }

        return slot.SegmentCount <= DataPointer.MaxRanges;
    }

    private NvmeStatus Run(int index, DiskChannel channel, in DiskOperation operation)
    {
        ref Slot slot = ref _slots[index];
        slot.Kind = operation.Kind;
        slot.Bytes = operation.Length;
        int result = channel.Queue.Start(
            (uint)index, in operation, _segments.Segments(index, 0, slot.SegmentCount));
        return result == DiskQueue.Pending ? NvmeStatus.Pending : DiskStatus(operation.Kind, result);
    }

    private static NvmeStatus DiskStatus(DiskOperationKind kind, int result) => (kind, result) switch
    {
        (_, >= 0) => NvmeStatus.Success,
        (_, -Errno.Canceled) => NvmeStatus.AbortedByQueueDeletion,
        (_, -Errno.NoSpace) => NvmeStatus.CapacityExceeded,
        (DiskOperationKind.Read, _) => NvmeStatus.UnrecoveredReadError,
        (DiskOperationKind.Flush, _) => NvmeStatus.InternalError,
        _ => NvmeStatus.WriteFault,
    };

    private void Finish(int index, NvmeStatus status)
    {
        ref Slot slot = ref _slots[index];
        slot.Task = null;
        if (slot.Kind == DiskOperationKind.Read)
        {
            _worker.Mark(_segments.Segments(index, 0, slot.SegmentCount));
        }

        _segments.Release(index);
        _free[_freeCount++] = index;
        Counters.Count(slot.Kind, slot.Bytes, status);
        slot.Bytes = 0;
        if (IsDiscarding)
        {
            _completions.Unreserve();
            return;
        }

        if (status is NvmeStatus.UnrecoveredReadError or NvmeStatus.WriteFault or NvmeStatus.InternalError)
        {
            _controller.Errors.Add(Id, slot.Id, status);
        }

        _completions.Post(new NvmeCompletion
        {
            QueueHead = (ushort)_head,
            Queue = (ushort)Id,
            Id = slot.Id,
            PhaseAndStatus = (ushort)(NvmeStatusRules.Field(status) << 1),
        });
    }

    /// <summary>A command in flight.</summary>
    private struct Slot
    {
        internal ushort Id;
        internal DiskOperationKind Kind;
        internal int SegmentCount;

        /// <summary>Bytes of the operation, 0 when none was started.</summary>
        internal long Bytes;

        /// <summary>The task that carries the command out, if it is one.</summary>
        internal IoTask? Task;
    }
}
