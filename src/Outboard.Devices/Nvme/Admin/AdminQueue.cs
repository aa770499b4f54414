// The admin queues: one task takes commands one after another, and carries each out before it takes the next, so that
// nothing of the control plane of a controller runs beside itself. Guest memory is reached by the transport, mapped or
// not. Events complete the requests that wait for them.
using System.Runtime.InteropServices;
using Outboard.Devices.Nvme.Queues;
using Outboard.Devices.Nvme.Spec;

namespace Outboard.Devices.Nvme.Admin;

/// <summary>Where an admin queue stands.</summary>
internal sealed record AdminPosition(
    uint SubmissionRegister, uint CompletionRegister, uint Head, uint Tail, uint Taken, uint Phase,
    ushort[] EventRequests, uint[] Features);

/// <summary>The admin submission and completion queue.</summary>
#pragma warning disable CA1001 // The semaphores hold nothing of the system's; a late doorbell may still ring one.
internal sealed partial class AdminQueue
#pragma warning restore CA1001
{
    /// <summary>Event requests that may wait, as identify tells.</summary>
    internal const int MaxEventRequests = 4;

    private readonly NvmeController _controller;
    private readonly ulong _submissionAddress;
    private readonly ulong _completionAddress;
    private readonly uint _submissionSize;
    private readonly uint _completionSize;
    private readonly SemaphoreSlim _bell = new(0);
    private readonly SemaphoreSlim _turn = new(1);
    private readonly DataPointer _pointer = new();
    private readonly FeatureTable _features;
    private readonly Queue<ushort> _eventRequests = new();
    private readonly Task _running;

    private volatile bool _isEnding;
    private uint _submissionRegister;
    private uint _completionRegister;
    private uint _head;
    private uint _tail;
    private uint _limit;
    private uint _taken;
    private ushort _phase = 1;

    /// <summary>Starts; from where another process stood, if that is told.</summary>
    internal AdminQueue(
        NvmeController controller, ulong submissionAddress, uint submissionSize, ulong completionAddress,
        uint completionSize, AdminPosition? position = null)
    {
        _controller = controller;
        _submissionAddress = submissionAddress;
        _submissionSize = submissionSize;
        _completionAddress = completionAddress;
        _completionSize = completionSize;
        _features = new FeatureTable(controller);
        if (position is not null)
        {
            _submissionRegister = position.SubmissionRegister;
            _completionRegister = position.CompletionRegister;
            _head = position.Head;
            _tail = _limit = position.Tail;
            _taken = position.Taken;
            _phase = (ushort)position.Phase;
            _eventRequests = new Queue<ushort>(position.EventRequests);
            _features.TryLoad(position.Features);
            Wake();
        }

        _running = Task.Run(RunAsync);
    }

    /// <summary>Whether entries are there that the driver has not taken. From any thread.</summary>
    internal bool HasUnread => CompletionQueue.IsUnread(
        Volatile.Read(ref _completionRegister), Volatile.Read(ref _tail), Volatile.Read(ref _limit));

    internal uint Size(bool isCompletion) => isCompletion ? _completionSize : _submissionSize;

    /// <summary>A doorbell's register was written; the value is below the size. On the control loop.</summary>
    internal void WriteDoorbell(bool isCompletion, uint value)
    {
        Volatile.Write(ref isCompletion ? ref _completionRegister : ref _submissionRegister, value);
        if (isCompletion)
        {
            _controller.UpdatePin();
        }

        Wake();
    }

    /// <summary>Has the task look for something to do. From any thread.</summary>
    internal void Wake()
    {
        if (_bell.CurrentCount == 0)
        {
            _bell.Release();
        }
    }

    /// <summary>Where the queues stand, while <see cref="LockAsync"/> holds them.</summary>
    /// <remarks>A doorbell that cannot be, and that nobody has looked at yet, is none.</remarks>
    internal AdminPosition Position => new(
        Volatile.Read(ref _submissionRegister), IsTakenBeyond(out uint register) ? _taken : register, _head, _tail,
        _taken, _phase, [.. _eventRequests], _features.SaveAll());

    /// <summary>Waits for the command under way, and begins no other until the result is disposed.</summary>
    internal async ValueTask<IDisposable> LockAsync()
    {
        await _turn.WaitAsync().ConfigureAwait(false);
        return new Turn(_turn);
    }

    /// <summary>Ends the task.</summary>
    internal async Task EndAsync()
    {
        _isEnding = true;
        Wake();
        await _running.ConfigureAwait(false);
    }

    private async Task RunAsync()
    {
        bool works = true;
        while (!_isEnding)
        {
            await _bell.WaitAsync().ConfigureAwait(false);
            using (await LockAsync().ConfigureAwait(false))
            {
                // While memory goes away, whoever takes it waits for this turn's end; the command stays where it is.
                while (works && !_isEnding && !_controller.IsLettingGo && !_controller.IsHalted && HasRoom())
                {
                    if (_eventRequests.Count > 0 && _controller.Events.TryTake(out NvmeEvent kind))
                    {
                        works = await PostAsync(
                            _eventRequests.Dequeue(), NvmeStatus.Success, (uint)kind).ConfigureAwait(false);
                    }
                    else if (_head != Volatile.Read(ref _submissionRegister))
                    {
                        works = await ServeAsync().ConfigureAwait(false);
                    }
                    else
                    {
                        break;
                    }
                }
            }
        }
    }

    private bool HasRoom()
    {
        if (IsTakenBeyond(out uint register))
        {
            _controller.Raise(NvmeEvent.InvalidDoorbellValue);
            Volatile.Write(ref _completionRegister, _taken);
        }
        else
        {
            _taken = register;
        }

        return Distance(_taken, _tail) < _completionSize - 1;
    }

    /// <summary>Whether the driver says that it took more than there is.</summary>
    private bool IsTakenBeyond(out uint register)
    {
        register = Volatile.Read(ref _completionRegister);
        return Distance(_taken, register) > Distance(_taken, _tail);
    }

    private uint Distance(uint from, uint to) => to >= from ? to - from : to + _completionSize - from;

    /// <summary>Takes one command.</summary>
    /// <returns>False when the queues cannot be reached: only a reset helps.</returns>
    private async Task<bool> ServeAsync()
    {
        byte[] entry = new byte[NvmeCommand.Bytes];
        ulong at = _submissionAddress + (_head * NvmeCommand.Bytes);
        if (!await _controller.TryReadGuestAsync(at, entry).ConfigureAwait(false))
        {
            return Unreachable(at);
        }

        _head = _head + 1 == _submissionSize ? 0 : _head + 1;
        NvmeCommand command = MemoryMarshal.Read<NvmeCommand>(entry);
        (NvmeStatus status, uint result) = await ExecuteAsync(command).ConfigureAwait(false);
        return status == NvmeStatus.Pending || await PostAsync(command.Id, status, result).ConfigureAwait(false);
    }

    private async Task<bool> PostAsync(ushort id, NvmeStatus status, uint result)
    {
        byte[] entry = new byte[NvmeCompletion.Bytes];
        MemoryMarshal.Write(entry, new NvmeCompletion
        {
            Result = result,
            QueueHead = (ushort)_head,
            Id = id,
            PhaseAndStatus = (ushort)((NvmeStatusRules.Field(status) << 1) | _phase),
        });
        ulong at = _completionAddress + (_tail * NvmeCompletion.Bytes);
        uint next = _tail + 1 == _completionSize ? 0 : _tail + 1;
        Volatile.Write(ref _limit, next);
        const int phaseWord = 12;
        if (!await _controller.TryWriteGuestAsync(at, entry.AsMemory(0, phaseWord)).ConfigureAwait(false)
            || !await _controller.TryWriteGuestAsync(at + phaseWord, entry.AsMemory(phaseWord)).ConfigureAwait(false))
        {
            Volatile.Write(ref _limit, _tail);
            return Unreachable(at);
        }

        _phase ^= (ushort)(next == 0 ? 1 : 0);

        Volatile.Write(ref _tail, next);
        _controller.Interrupt(0);
        return true;
    }

    private bool Unreachable(ulong address)
    {
        if (_controller.IsLettingGo)
        {
            return true;
        }

        _controller.Fail($"no guest memory at 0x{address:x}, where an admin queue should be");
        return false;
    }

    private Task<(NvmeStatus Status, uint Result)> ExecuteAsync(NvmeCommand command)
    {
        if (command.IsFused || command.PointerKind != 0)
        {
            return Done(NvmeStatus.InvalidField);
        }

        return (NvmeAdminOpcode)command.Opcode switch
        {
            NvmeAdminOpcode.Identify => IdentifyAsync(command),
            NvmeAdminOpcode.GetLogPage => GetLogPageAsync(command),
            NvmeAdminOpcode.GetFeatures => Done(_features.Get(in command)),
            NvmeAdminOpcode.SetFeatures => Done(_features.Set(in command)),
            NvmeAdminOpcode.CreateCompletionQueue => CreateCompletionQueueAsync(command),
            NvmeAdminOpcode.CreateSubmissionQueue => CreateSubmissionQueueAsync(command),
            NvmeAdminOpcode.DeleteCompletionQueue => DeleteCompletionQueueAsync(command),
            NvmeAdminOpcode.DeleteSubmissionQueue => DeleteSubmissionQueueAsync(command),
            NvmeAdminOpcode.AsynchronousEventRequest => Done(RequestEvent(in command)),
            NvmeAdminOpcode.Abort => AbortAsync(command),
            NvmeAdminOpcode.DoorbellBufferConfig => ConfigureDoorbellsAsync(command),
            _ => Done(NvmeStatus.InvalidOpcode),
        };
    }

    private NvmeStatus RequestEvent(in NvmeCommand command)
    {
        if (_eventRequests.Count == MaxEventRequests)
        {
            return NvmeStatus.EventRequestLimitExceeded;
        }

        _eventRequests.Enqueue(command.Id);
        return NvmeStatus.Pending;
    }

    /// <summary>
    /// Ends an event request, or an I/O command that no disk has been given. What cannot be ended, or is not there, is
    /// told by bit 0. One abort is carried out after the other, so there are never more at a time than the limit.
    /// </summary>
    private async Task<(NvmeStatus Status, uint Result)> AbortAsync(NvmeCommand command)
    {
        const uint notAborted = 1;
        ushort id = (ushort)(command.Word10 >> 16);
        if ((command.Word10 & 0xffff) is not 0 and uint number)
        {
            bool isAborted = false;
            if (_controller.Submission((int)number) is { } queue)
            {
                await queue.Worker.InvokeAsync(() => isAborted = queue.TryAbort(id)).ConfigureAwait(false);
            }

            return (NvmeStatus.Success, isAborted ? 0 : notAborted);
        }

        if (!_eventRequests.Contains(id))
        {
            return (NvmeStatus.Success, notAborted);
        }

        ushort[] others = [.. _eventRequests.Where(request => request != id)];
        _eventRequests.Clear();
        foreach (ushort other in others)
        {
            _eventRequests.Enqueue(other);
        }

        await PostAsync(id, NvmeStatus.AbortRequested, 0).ConfigureAwait(false);
        return (NvmeStatus.Success, 0);
    }

    /// <summary>Gives the driver data of a command, as much as there is room for.</summary>
    private async Task<(NvmeStatus Status, uint Result)> SendAsync(NvmeCommand command, ReadOnlyMemory<byte> data)
    {
        NvmeStatus status = NvmeStatus.Success;
        if (data.Length > 0)
        {
            FetchedLists lists = new();
            while ((status = _pointer.Parse(in command, (uint)data.Length, _controller.PageBytes, lists))
                == NvmeStatus.Pending)
            {
                byte[] piece = new byte[lists.Wanted.Length];
                if (!await _controller.TryReadGuestAsync(lists.Wanted.Address, piece).ConfigureAwait(false))
                {
                    return (NvmeStatus.DataTransferError, 0);
                }

                lists.Add(piece);
                lists.Rewind();
            }
        }

        if (status != NvmeStatus.Success)
        {
            return (status, 0);
        }

        foreach (DmaRange range in data.Length > 0 ? _pointer.Ranges.ToArray() : [])
        {
            ReadOnlyMemory<byte> part = data[..(int)range.Length];
            data = data[(int)range.Length..];
            if (!await _controller.TryWriteGuestAsync(range.Address, part).ConfigureAwait(false))
            {
                return (NvmeStatus.DataTransferError, 0);
            }
        }

        return (NvmeStatus.Success, 0);
    }

    private static Task<(NvmeStatus Status, uint Result)> Done(NvmeStatus status) => Task.FromResult((status, 0u));

    private static Task<(NvmeStatus Status, uint Result)> Done((NvmeStatus Status, uint Result) outcome) =>
        Task.FromResult(outcome);

    private sealed class Turn(SemaphoreSlim turn) : IDisposable
    {
        public void Dispose() => turn.Release();
    }
}
