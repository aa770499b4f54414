// An I/O completion queue: entries go out with the phase bit last, so that a driver may poll; one interrupt follows for
// all that were written in a turn.
//
// A command is taken from a submission queue only when there is room for its completion (TryReserve): completions never
// wait for the driver. Where the ring is not in mapped memory, entries go by messages, one after another.
//
// The pin falls with the doorbell that takes the last entry, before that write has taken effect for the client: what
// follows it unmasks the interrupt, and a level that is still there would interrupt a driver that finds nothing. So the
// control loop decides (HasUnread) by the register, while the worker may be busy elsewhere.
using System.Runtime.InteropServices;
using Outboard.Devices.Nvme.Spec;
using Outboard.Memory;

namespace Outboard.Devices.Nvme.Queues;

/// <summary>An I/O completion queue. Used by its worker's thread, but for what says otherwise.</summary>
internal sealed class CompletionQueue
{
    private readonly NvmeWorker _worker;
    private readonly ulong _address;
    private readonly Queue<NvmeCompletion> _unwritten = new();
    private readonly byte[] _entry = new byte[NvmeCompletion.Bytes];

    private MemoryWindow _ring;
    private bool _isMapped;
    private bool _isWriting;
    private bool _isBroken;
    private uint _tail;

    /// <summary>Where the tail will be after the entry that is being written: a driver may be as fast.</summary>
    private uint _limit;

    private uint _head;
    private ushort _phase = 1;
    private uint _reserved;
    private bool _isUnannounced;
    private uint _headRegister;
    private uint _badHead = uint.MaxValue;
    private bool _wantsHead;

    /// <summary>Whether it has just come from another process, so that a doorbell in memory is right.</summary>
    private bool _hasMoved;
    private TaskCompletionSource? _ending;

    internal CompletionQueue(
        NvmeWorker worker, int id, uint size, ulong address, int vector, bool hasInterrupts)
    {
        _worker = worker;
        _address = address;
        Id = id;
        Size = size;
        Vector = vector;
        HasInterrupts = hasInterrupts;
    }

    internal int Id { get; }

    /// <summary>Entries.</summary>
    internal uint Size { get; }

    internal int Vector { get; }

    internal bool HasInterrupts { get; }

    internal NvmeWorker Worker => _worker;

    internal ulong Address => _address;

    /// <summary>Whether entries are still to be written, and can be.</summary>
    internal bool IsBusy => _isWriting || (_unwritten.Count > 0 && !_isBroken);

    /// <summary>Where the queue stands, while its worker is halted; or where it stood in another process.</summary>
    /// <remarks>The register stays where it was while the driver keeps its doorbells in memory.</remarks>
    internal (uint Tail, uint Head, uint HeadRegister, uint Phase) Position
    {
        get => (_tail, _head, _worker.Shadow.IsOn ? _head : _headRegister, _phase);
        set
        {
            (_tail, _head, _headRegister) = (value.Tail, value.Head, value.HeadRegister);
            _limit = _tail;
            _phase = (ushort)value.Phase;
            _hasMoved = true;
        }
    }

    /// <summary>Submission queues that complete here; changed by the admin queue only.</summary>
    internal int Users { get; set; }

    /// <summary>Whether entries are there that the driver has not taken. From any thread.</summary>
    internal bool HasUnread => HasInterrupts && IsUnread(
        Volatile.Read(ref _worker.Controller.HasShadowDoorbells ? ref _head : ref _headRegister),
        Volatile.Read(ref _tail),
        Volatile.Read(ref _limit));

    private int DoorbellIndex => (Id * 2) + 1;

    private uint Used => Distance(_head, _tail);

    private uint Next => _tail + 1 == Size ? 0 : _tail + 1;

    /// <summary>The driver wrote the doorbell's register. From the control loop; the value is below the
    /// size.</summary>
    internal void WriteHead(uint head)
    {
        if (_worker.Controller.HasShadowDoorbells)
        {
            // The value is in memory, and may be newer there.
            _worker.Ring();
            return;
        }

        if (Distance(_headRegister, head) > Distance(_headRegister, Volatile.Read(ref _limit)))
        {
            // more than there is
            _worker.Controller.Raise(NvmeEvent.InvalidDoorbellValue);
            return;
        }

        Volatile.Write(ref _headRegister, head);
        Interlocked.MemoryBarrier();
        if (!_worker.UsesVectors)
        {
            _worker.Controller.UpdatePin();
        }

        if (Volatile.Read(ref _wantsHead))
        {
            _worker.Ring();
        }
    }

    /// <summary>Whether a driver that has taken entries up to a head left some.</summary>
    /// <param name="head">The doorbell. It may be the limit already.</param>
    /// <param name="tail">Where the entries end that are there for sure.</param>
    /// <param name="limit">The same, with the one that is being written.</param>
    internal static bool IsUnread(uint head, uint tail, uint limit) => head != tail && head != limit;

    internal void Adopt(GuestMemory memory)
    {
        _isBroken = false;
        _isMapped = memory.TryGetWindow(_address, Size * NvmeCompletion.Bytes, out _ring) && _ring.IsAligned(16);
    }

    /// <summary>Keeps room for one completion.</summary>
    /// <returns>False when the driver has to take entries first.</returns>
    internal bool TryReserve()
    {
        if (!HasRoom())
        {
            return false;
        }

        _reserved++;
        return true;
    }

    internal bool HasRoom()
    {
        if (Used + _reserved >= Size / 2)
        {
            ReadHead();
        }

        return Used + _reserved < Size - 1;
    }

    /// <summary>Asks for a doorbell, since nothing else will tell of room. Look for room again after it.</summary>
    internal void ArmHead()
    {
        Volatile.Write(ref _wantsHead, true);
        _worker.Shadow.Arm(DoorbellIndex, _head);
    }

    /// <summary>
    /// The value of the doorbell, when the queue or the buffers are new: an earlier queue may have left its own.
    /// </summary>
    internal void FillShadow()
    {
        if (!_hasMoved)
        {
            _worker.Shadow.Set(DoorbellIndex, _head);
        }

        _hasMoved = false;
        Shun();
    }

    /// <summary>
    /// Wants no doorbell: the driver rings when it passes the value that stands there, and it does not pass the one
    /// behind it.
    /// </summary>
    private void Shun() => _worker.Shadow.Arm(DoorbellIndex, _head == 0 ? Size - 1 : _head - 1);

    /// <summary>Writes a completion, for which room was kept.</summary>
    internal void Post(in NvmeCompletion completion)
    {
        if (_isMapped && _unwritten.Count == 0)
        {
            Write(in completion);
        }
        else
        {
            _unwritten.Enqueue(completion);
        }
    }

    /// <summary>Gives back room that is not needed.</summary>
    internal void Unreserve() => _reserved--;

    /// <summary>The end of a turn: writes what could not be written at once, and interrupts.</summary>
    /// <returns>Whether anything was done.</returns>
    internal bool Flush()
    {
        if (_unwritten.Count > 0 && !_isWriting && !_isBroken && _ending is null)
        {
            if (_isMapped)
            {
                while (_unwritten.TryDequeue(out NvmeCompletion completion))
                {
                    Write(in completion);
                }
            }
            else
            {
                _worker.Observe(WriteByMessagesAsync());
            }
        }

        if (_worker is { UsesVectors: false, Shadow.IsOn: true, HoldsStill: false })
        {
            ReadHeadArmed();
        }

        if (!_isUnannounced)
        {
            return false;
        }

        _isUnannounced = false;
        if (HasInterrupts)
        {
            _worker.Controller.Interrupt(Vector);
        }

        return true;
    }

    /// <summary>
    /// A driver that keeps its doorbells in memory although it uses the pin: each of them has to ring, since the pin
    /// falls with it.
    /// </summary>
    private void ReadHeadArmed()
    {
        uint noted;
        ReadHead();
        do
        {
            noted = _head;
            _worker.Shadow.Arm(DoorbellIndex, noted);
            Interlocked.MemoryBarrier();
            ReadHead();
        }
        while (noted != _head);
        _worker.Controller.UpdatePin();
    }

    /// <summary>Begins to end: nothing more is written.</summary>
    internal void BeginEnd(TaskCompletionSource ended) => _ending = ended;

    /// <summary>Looks whether the queue can end now: an entry that is being written is waited for.</summary>
    /// <returns>Whether it has ended.</returns>
    internal bool TryEnd()
    {
        if (_ending is null || _isWriting)
        {
            return false;
        }

        _ending.SetResult();
        return true;
    }

    private void Write(in NvmeCompletion completion)
    {
        uint at = _tail * NvmeCompletion.Bytes;
        Volatile.Write(ref _limit, Next);
        _ring.Write(at, completion.Result);
        _ring.Write(at + 8, (uint)completion.QueueHead | ((uint)completion.Queue << 16));
        uint last = completion.Id | ((uint)(completion.PhaseAndStatus | _phase) << 16);
        _ring.WriteRelease32(at + 12, last);
        _worker.Mark(_address + at, NvmeCompletion.Bytes);
        Advance();
    }

    private void Advance()
    {
        _reserved--;
        _isUnannounced = true;
        uint next = Next;
        _phase ^= (ushort)(next == 0 ? 1 : 0);
        Volatile.Write(ref _tail, next);
    }

    private async Task WriteByMessagesAsync()
    {
        _isWriting = true;
        try
        {
            while (!_isMapped && _ending is null && _unwritten.TryPeek(out NvmeCompletion completion))
            {
                completion.PhaseAndStatus |= _phase;
                MemoryMarshal.Write(_entry, completion);
                ulong at = _address + (_tail * NvmeCompletion.Bytes);
                Volatile.Write(ref _limit, Next);
                if (!await _worker.TryWriteGuestAsync(at, _entry).ConfigureAwait(false))
                {
                    // The client is going, or the memory is not there: this waits until memory changes.
                    _isBroken = true;
                    Volatile.Write(ref _limit, _tail);
                    _worker.OnRingUnreachable(at);
                    break;
                }

                _unwritten.Dequeue();
                Advance();
            }
        }
        finally
        {
            _isWriting = false;
        }
    }

    private uint Distance(uint from, uint to) => to >= from ? to - from : to + Size - from;

    /// <summary>Takes note of the entries that the driver has taken.</summary>
    private void ReadHead()
    {
        if (!_worker.Shadow.IsOn)
        {
            TakeHead(Volatile.Read(ref _headRegister));
        }
        else if (_worker.Shadow.TryRead(DoorbellIndex, out uint head))
        {
            TakeHead(head);
        }
    }

    private void TakeHead(uint head)
    {
        if (head == _head || head == _badHead)
        {
            return;
        }

        if (head >= Size || Distance(_head, head) > Used)
        {
            _badHead = head;
            _worker.Controller.Raise(NvmeEvent.InvalidDoorbellValue);
            return;
        }

        Volatile.Write(ref _wantsHead, false);
        Volatile.Write(ref _head, head);
        Shun();
    }
}
