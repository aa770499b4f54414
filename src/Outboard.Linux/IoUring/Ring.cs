// One io_uring instance by raw system calls: set-up, the two rings, registration of files. For one thread.
//
// Who publishes what. We own the submission tail and the completion head; the kernel owns the other two. A tail is
// stored with release semantics after the entries in front of it, a head after the entries were copied out.
// The submission head is never read: the kernel stores it late, so that a ring can look full with nothing in flight,
// and whoever waits for completions then waits forever. Instead the user of this class queues at most as many entries
// as the ring holds before each Submit, and entries are free again when the system call that consumed them returned.
//
// Completions. With DEFER_TASKRUN the kernel only notes that an operation ended; the completion entry appears when this
// thread enters the kernel with GETEVENTS. Polling the ring's own descriptor does not help: in this mode the note wakes
// no poller (6.18; the code path is the same since 6.3). A registered eventfd is signalled by the note, so that is
// what is waited on, in all modes.
// Not here: SQPOLL (it needs a core of its own), IOPOLL, linked operations, registered buffers.
using System.Runtime.InteropServices;
using Outboard.Linux.Events;
using Outboard.Linux.Native;

namespace Outboard.Linux.IoUring;

/// <summary>A ring. Created, used and emptied by one thread.</summary>
// SAFETY: the pointers lead into the ring mappings, whose sizes the kernel gave; indices are masked by the ring
// sizes. The mappings end in Dispose, after which nothing here is called.
internal sealed unsafe class Ring : IDisposable
{
    /// <summary>Files that the ring can know; a worker serves one disk or a few.</summary>
    internal const int FileSlots = 16;

    private const uint RequiredFeatures = Libc.IORING_FEAT_SINGLE_MMAP | Libc.IORING_FEAT_NODROP
        | Libc.IORING_FEAT_SUBMIT_STABLE | Libc.IORING_FEAT_RW_CUR_POS;

    /// <summary>The modes, best first: 6.1, 5.19, 5.6.</summary>
    private static readonly uint[] s_modes =
    [
        Libc.IORING_SETUP_CLAMP | Libc.IORING_SETUP_SUBMIT_ALL | Libc.IORING_SETUP_TASKRUN_FLAG
            | Libc.IORING_SETUP_SINGLE_ISSUER | Libc.IORING_SETUP_DEFER_TASKRUN,
        Libc.IORING_SETUP_CLAMP | Libc.IORING_SETUP_SUBMIT_ALL | Libc.IORING_SETUP_TASKRUN_FLAG
            | Libc.IORING_SETUP_COOP_TASKRUN,
        Libc.IORING_SETUP_CLAMP,
    ];

    private readonly FileDescriptor _descriptor;
    private readonly EventFd _signal = new();
    private readonly int _number;
    private readonly bool _canMute;
    private readonly bool _hasFileTable;
    private byte* _rings;
    private nuint _ringBytes;
    private Libc.SubmissionEntry* _entries;
    private nuint _entryBytes;
    private uint* _submissionTail;
    private uint* _submissionFlags;
    private uint _submissionMask;
    private uint* _completionHead;
    private uint* _completionTail;
    private uint* _completionFlags;
    private Libc.CompletionEntry* _completions;
    private uint _completionMask;
    private uint _tail;
    private uint _queued;

    /// <summary>Creates a ring for <paramref name="depth"/> operations in flight.</summary>
    /// <param name="depth">Entries of the submission ring; the completion ring has twice as many.</param>
    /// <param name="skippedModes">For tests: how many of the better modes to pass over.</param>
    /// <exception cref="LinuxException">The system allows none; the message names the remedy.</exception>
    internal Ring(int depth, int skippedModes = 0)
    {
        Libc.RingParameters parameters;
        try
        {
            _descriptor = SetUp((uint)depth, skippedModes, out parameters);
        }
        catch
        {
            _signal.Dispose();
            throw;
        }

        _number = _descriptor.Number;
        try
        {
            MapRings(in parameters);
            RegisterSignal();
        }
        catch
        {
            Dispose();
            throw;
        }

        IsDeferred = (parameters.Flags & Libc.IORING_SETUP_DEFER_TASKRUN) != 0;
        _canMute = IsDeferred && RuntimeInformation.ProcessArchitecture == Architecture.X64;
        _hasFileTable = RegisterFileTable();
    }

    /// <summary>Whether completions appear only when this thread asks for them.</summary>
    internal bool IsDeferred { get; }

    /// <summary>Signalled when completions (or notes of them) wait.</summary>
    internal EventFd Signal => _signal;

    /// <summary>Entries that were queued and that the kernel has not taken.</summary>
    internal uint Queued => _queued;

    /// <summary>The next free submission entry, zeroed. The caller keeps <see cref="Queued"/> within the
    /// depth.</summary>
    internal Libc.SubmissionEntry* Next()
    {
        Libc.SubmissionEntry* entry = _entries + (_tail & _submissionMask);
        *entry = default;
        _tail++;
        _queued++;
        return entry;
    }

    /// <summary>Gives the queued entries to the kernel.</summary>
    /// <returns>False when the kernel was short of memory and entries are left; they can be submitted later.</returns>
    internal bool Submit()
    {
        Volatile.Write(ref *_submissionTail, _tail);
        while (_queued > 0)
        {
            int taken = Libc.IoUringEnter(_number, _queued, 0, 0);
            int errno = Libc.LastError();
            if (taken > 0)
            {
                _queued -= (uint)taken;
            }
            else if (taken == 0 || errno is Errno.TryAgain or Errno.Busy or Errno.NoMemory)
            {
                return false;
            }
            else if (errno != Errno.Interrupted)
            {
                throw new LinuxException("io_uring_enter", errno, "submit: only the ring's own thread may");
            }
        }

        return true;
    }

    /// <summary>Copies the next completion out of the ring.</summary>
    internal bool TryTake(out ulong userData, out int result)
    {
        uint head = *_completionHead;
        if (head == Volatile.Read(ref *_completionTail))
        {
            userData = 0;
            result = 0;
            return false;
        }

        Libc.CompletionEntry* completion = _completions + (head & _completionMask);
        userData = completion->UserData;
        result = completion->Result;
        Volatile.Write(ref *_completionHead, head + 1);
        return true;
    }

    /// <summary>Whether the kernel holds notes that <see cref="Collect"/> turns into completions.</summary>
    internal bool HasNotes =>
        (Volatile.Read(ref *_submissionFlags) & (Libc.IORING_SQ_TASKRUN | Libc.IORING_SQ_CQ_OVERFLOW)) != 0;

    /// <summary>Lets the kernel post the completions it has notes of. Does not wait.</summary>
    /// <remarks>
    /// The posting would signal the eventfd once more, to no purpose, as the caller looks at the ring right now. So the
    /// signal is muted for the call, where that is safe: an operation that ends meanwhile is noted (flag, then signal
    /// unless muted), we unmute and then look at the flag. With full barriers on both sides one of the two sees the
    /// other. The kernel's side is a locked instruction on x64 only, and only deferred rings write the flag from
    /// elsewhere, so other cases do without.
    /// </remarks>
    /// <param name="mute">Whether the signal may be muted.</param>
    internal void Collect(bool mute)
    {
        mute &= _canMute;
        if (mute)
        {
            Volatile.Write(ref *_completionFlags, Libc.IORING_CQ_EVENTFD_DISABLED);
        }

        int result = Libc.IoUringEnter(_number, 0, 0, Libc.IORING_ENTER_GETEVENTS);
        int errno = Libc.LastError();
        if (mute)
        {
            Volatile.Write(ref *_completionFlags, 0);
            Interlocked.MemoryBarrier();
        }

        if (result < 0 && errno is not (Errno.Interrupted or Errno.TryAgain or Errno.Busy))
        {
            throw new LinuxException("io_uring_enter", errno, "reap: only the ring's own thread may");
        }
    }

    /// <summary>Wakes whoever waits for completions.</summary>
    internal void Wake() => _signal.Signal();

    /// <summary>Puts a descriptor into the ring's file table, or takes it out (-1).</summary>
    /// <returns>False when the kernel refuses; plain descriptors work all the same.</returns>
    internal bool TryRegisterFile(int index, int number)
    {
        // struct io_uring_files_update: 0 offset (u32), 4 reserved, 8 address of the descriptors (u64).
        ulong* update = stackalloc ulong[2];
        update[0] = (uint)index;
        update[1] = (ulong)&number;
        return _hasFileTable && Libc.IoUringRegister(_number, Libc.IORING_REGISTER_FILES_UPDATE, update, 1) == 1;
    }

    /// <summary>Closes the ring. Nothing is in flight.</summary>
    public void Dispose()
    {
        _descriptor.Dispose();
        if (_rings is not null)
        {
            _ = Libc.munmap(_rings, _ringBytes);
        }

        if (_entries is not null)
        {
            _ = Libc.munmap(_entries, _entryBytes);
        }

        _signal.Dispose();
    }

    private static FileDescriptor SetUp(uint depth, int skippedModes, out Libc.RingParameters parameters)
    {
        int errno = 0;
        for (int i = skippedModes; i < s_modes.Length; i++)
        {
            Libc.RingParameters attempt = new() { Flags = s_modes[i] };
            int number = Libc.IoUringSetup(depth, &attempt);
            errno = Libc.LastError();
            if (number >= 0)
            {
                FileDescriptor descriptor = new(number);
                parameters = attempt;
                if ((attempt.Features & RequiredFeatures) == RequiredFeatures)
                {
                    return descriptor;
                }

                descriptor.Dispose();
                throw new LinuxException("io_uring_setup", Errno.NotImplemented, "Linux 5.6 or newer is needed");
            }

            if (errno != Errno.InvalidArgument)
            {
                break;
            }
        }

        throw new LinuxException("io_uring_setup", errno, RefusalReason.Describe(errno));
    }

    private void MapRings(in Libc.RingParameters parameters)
    {
        Libc.RingOffsets submission = parameters.Submission;
        Libc.RingOffsets completion = parameters.Completion;
        nuint submissionBytes = submission.ArrayOrFlags + (parameters.SubmissionEntries * sizeof(uint));
        nuint completionBytes = completion.DroppedOrCompletions
            + ((nuint)parameters.CompletionEntries * (nuint)sizeof(Libc.CompletionEntry));
        _ringBytes = Math.Max(submissionBytes, completionBytes);
        _rings = (byte*)Map(_ringBytes, 0);
        _entryBytes = parameters.SubmissionEntries * (nuint)sizeof(Libc.SubmissionEntry);
        _entries = (Libc.SubmissionEntry*)Map(_entryBytes, Libc.IORING_OFF_SQES);

        _submissionTail = (uint*)(_rings + submission.Tail);
        _submissionFlags = (uint*)(_rings + submission.FlagsOrOverflow);
        _submissionMask = *(uint*)(_rings + submission.Mask);
        _completionHead = (uint*)(_rings + completion.Head);
        _completionTail = (uint*)(_rings + completion.Tail);
        _completionFlags = (uint*)(_rings + completion.ArrayOrFlags);
        _completionMask = *(uint*)(_rings + completion.Mask);
        _completions = (Libc.CompletionEntry*)(_rings + completion.DroppedOrCompletions);
        _tail = *_submissionTail;

        // The kernel's indirection is not needed: position i always names entry i.
        uint* array = (uint*)(_rings + submission.ArrayOrFlags);
        for (uint i = 0; i < parameters.SubmissionEntries; i++)
        {
            array[i] = i;
        }
    }

    private void* Map(nuint length, long offset)
    {
        const int protection = Libc.PROT_READ | Libc.PROT_WRITE;
        void* address = Libc.mmap(null, length, protection, Libc.MAP_SHARED | Libc.MAP_POPULATE, _number, offset);
        int errno = Libc.LastError();
        return (nint)address != -1 ? address : throw new LinuxException("mmap", errno, "an io_uring ring");
    }

    private void RegisterSignal()
    {
        int number = _signal.Descriptor.Number;
        int result = Libc.IoUringRegister(_number, Libc.IORING_REGISTER_EVENTFD, &number, 1);
        int errno = Libc.LastError();
        if (result < 0)
        {
            throw new LinuxException("io_uring_register", errno, "an eventfd");
        }
    }

    private bool RegisterFileTable()
    {
        int* none = stackalloc int[FileSlots];
        new Span<int>(none, FileSlots).Fill(-1);
        return Libc.IoUringRegister(_number, Libc.IORING_REGISTER_FILES, none, FileSlots) >= 0;
    }
}
