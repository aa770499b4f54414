// File operations by a few threads that block in the kernel: for systems where io_uring is not allowed.
//
// Going in: a ring of slot numbers. The engine's one calling thread writes behind the tail, the threads take at the
// head by compare-and-swap. The ring has a place for every slot, so a number is never overwritten before it is taken.
// Coming back: a stack of slots, pushed by the threads, taken whole by the calling thread (so no A-B-A), then turned
// around into the order of completion. A push onto the empty stack signals the eventfd: once for each batch, and the
// first completion after Reap found the stack empty always does.
// Sleeping: a generation word, raised by each Submit before the look for sleepers. A thread reads the word, finds the
// ring empty, counts itself as a sleeper (a full fence) and sleeps only while the word has that value.
using System.Runtime.InteropServices;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Linux.Native;

namespace Outboard.Linux.Files;

// SAFETY: _shared lives in _storage, which ends after the threads were joined; ring positions are masked by the
// ring's size; slot numbers come from Slots.
internal sealed unsafe class ThreadFileEngine : FileIoEngine
{
    /// <summary>Disks gain little beyond this, and the threads are a fallback.</summary>
    private const int DefaultThreads = 4;

    private const int MaxThreads = 64;
    private const int StackBytes = 256 * 1024;
    private const int None = -1;

    private readonly EventFd _signal = new();
    private readonly AlignedBuffer _storage;
    private readonly SharedWords* _shared;
    private readonly int* _ring;
    private readonly uint _mask;
    private readonly Thread[] _threads;
    private uint _tail;
    private int _taken = None;

    internal ThreadFileEngine(int depth, int threads = DefaultThreads)
        : base(depth)
    {
        uint capacity = System.Numerics.BitOperations.RoundUpToPowerOf2((uint)depth);
        _storage = new AlignedBuffer(sizeof(SharedWords) + (capacity * sizeof(int)));
        _shared = (SharedWords*)_storage.Address;
        _shared->Completed = None;
        _ring = (int*)(_shared + 1);
        _mask = capacity - 1;
        _threads = new Thread[Math.Clamp(threads, 1, Math.Min(depth, MaxThreads))];
        for (int i = 0; i < _threads.Length; i++)
        {
            _threads[i] = new Thread(Run, StackBytes) { IsBackground = true, Name = $"outboard-io-{i}" };
            _threads[i].Start();
        }
    }

    public override string Name => "threads";

    private protected override EventFd Signal => _signal;

    public override void Submit()
    {
        uint queued = _tail - _shared->Tail;
        if (queued == 0)
        {
            return;
        }

        Volatile.Write(ref _shared->Tail, _tail);
        WakeThreads((int)queued);
    }

    public override int Reap(Span<FileCompletion> completions)
    {
        if (InFlight == 0)
        {
            return 0;
        }

        int count = 0;
        while (count < completions.Length && (_taken != None || TakeCompleted()))
        {
            int index = _taken;
            OperationSlot* slot = Slots[index];
            _taken = slot->Next;
            completions[count++] = new FileCompletion(slot->Tag, slot->Result);
            Slots.GiveBack(index);
        }

        return count;
    }

    public override void Release(BlockFile file)
    {
        // The threads keep nothing of a file.
    }

    private protected override void Enqueue(int slot, BlockFile file)
    {
        _ring[_tail & _mask] = slot;
        _tail++;
    }

    /// <remarks>The mark in the slot is enough: a thread looks at it before it begins.</remarks>
    private protected override void CancelSlot(int slot)
    {
    }

    private protected override void Close()
    {
        Volatile.Write(ref _shared->IsStopping, 1);
        WakeThreads(_threads.Length);
        foreach (Thread thread in _threads)
        {
            thread.Join();
        }

        _storage.Dispose();
        _signal.Dispose();
    }

    private void WakeThreads(int count)
    {
        Interlocked.Increment(ref _shared->Generation);
        if (Volatile.Read(ref _shared->Sleepers) > 0)
        {
            Libc.FutexWake(&_shared->Generation, count);
        }
    }

    /// <summary>Takes all completed slots, oldest first, into the chain that starts at <see cref="_taken"/>.</summary>
    private bool TakeCompleted()
    {
        if (Volatile.Read(ref _shared->Completed) == None)
        {
            return false;
        }

        int index = Interlocked.Exchange(ref _shared->Completed, None);
        while (index != None)
        {
            int older = Slots[index]->Next;
            Slots[index]->Next = _taken;
            _taken = index;
            index = older;
        }

        return true;
    }

    private void Run()
    {
        while (true)
        {
            uint generation = Volatile.Read(ref _shared->Generation);
            if (TryTakeQueued(out int index))
            {
                Slots[index]->Result = Perform(index);
                Push(index);
            }
            else if (Volatile.Read(ref _shared->IsStopping) != 0)
            {
                return;
            }
            else
            {
                Interlocked.Increment(ref _shared->Sleepers);
                Libc.FutexWait(&_shared->Generation, generation);
                Interlocked.Decrement(ref _shared->Sleepers);
            }
        }
    }

    /// <summary>Takes the oldest queued slot.</summary>
    private bool TryTakeQueued(out int index)
    {
        while (true)
        {
            // The head first: read the other way round, a stale tail could lie behind it and make an empty ring look
            // full.
            uint head = Volatile.Read(ref _shared->Head);
            if (head == Volatile.Read(ref _shared->Tail))
            {
                index = None;
                return false;
            }

            index = Volatile.Read(ref _ring[head & _mask]);
            if (Interlocked.CompareExchange(ref _shared->Head, head + 1, head) == head)
            {
                return true;
            }
        }
    }

    private void Push(int index)
    {
        int top = Volatile.Read(ref _shared->Completed);
        while (true)
        {
            Slots[index]->Next = top;
            int seen = Interlocked.CompareExchange(ref _shared->Completed, index, top);
            if (seen == top)
            {
                break;
            }

            top = seen;
        }

        if (top == None)
        {
            _signal.Signal();
        }
    }

    private int Perform(int index)
    {
        OperationSlot* slot = Slots[index];
        IoSegment* segments = Slots.SegmentsOf(index);
        while (true)
        {
            if (Volatile.Read(ref *(int*)&slot->State) == (int)SlotState.Cancelled)
            {
                return -Errno.Canceled;
            }

            nint result = slot->Operation switch
            {
                FileOperation.Read =>
                    Libc.preadv2(slot->Descriptor, segments, slot->SegmentCount, slot->Offset, slot->Flags),
                FileOperation.Write =>
                    Libc.pwritev2(slot->Descriptor, segments, slot->SegmentCount, slot->Offset, slot->Flags),
                FileOperation.DataSync => Libc.fdatasync(slot->Descriptor),
                _ => Libc.fallocate(slot->Descriptor, slot->Flags, slot->Offset, slot->Single.Length),
            };
            int errno = Libc.LastError();
            if (result >= 0)
            {
                return (int)result;
            }

            if (errno != Errno.Interrupted)
            {
                return -errno;
            }
        }
    }

    /// <summary>What the threads share; the writers' words lie in cache lines of their own.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 256)]
    private struct SharedWords
    {
        [FieldOffset(0)]
        internal uint Tail;
        [FieldOffset(4)]
        internal uint Generation;
        [FieldOffset(8)]
        internal int IsStopping;
        [FieldOffset(64)]
        internal uint Head;
        [FieldOffset(128)]
        internal int Completed;
        [FieldOffset(192)]
        internal int Sleepers;
    }
}
