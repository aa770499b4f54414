// io_uring: its three system calls (glibc has no wrappers) and the layouts of its shared rings.
using System.Runtime.InteropServices;

namespace Outboard.Linux.Native;

internal static partial class Libc
{
    internal const uint IORING_SETUP_CQSIZE = 1u << 3;
    internal const uint IORING_SETUP_CLAMP = 1u << 4;
    internal const uint IORING_SETUP_SUBMIT_ALL = 1u << 7;
    internal const uint IORING_SETUP_COOP_TASKRUN = 1u << 8;
    internal const uint IORING_SETUP_TASKRUN_FLAG = 1u << 9;
    internal const uint IORING_SETUP_SINGLE_ISSUER = 1u << 12;
    internal const uint IORING_SETUP_DEFER_TASKRUN = 1u << 13;

    internal const uint IORING_FEAT_SINGLE_MMAP = 1u << 0;
    internal const uint IORING_FEAT_NODROP = 1u << 1;
    internal const uint IORING_FEAT_SUBMIT_STABLE = 1u << 2;
    internal const uint IORING_FEAT_RW_CUR_POS = 1u << 3;

    internal const uint IORING_ENTER_GETEVENTS = 1;
    internal const uint IORING_SQ_CQ_OVERFLOW = 2;
    internal const uint IORING_SQ_TASKRUN = 4;
    internal const uint IORING_CQ_EVENTFD_DISABLED = 1;

    internal const long IORING_OFF_SQES = 0x10000000;

    internal const int IORING_REGISTER_FILES = 2;
    internal const int IORING_REGISTER_EVENTFD = 4;
    internal const int IORING_REGISTER_FILES_UPDATE = 6;

    internal const byte IORING_OP_READV = 1;
    internal const byte IORING_OP_WRITEV = 2;
    internal const byte IORING_OP_FSYNC = 3;
    internal const byte IORING_OP_ASYNC_CANCEL = 14;
    internal const byte IORING_OP_FALLOCATE = 17;
    internal const byte IORING_OP_READ = 22;
    internal const byte IORING_OP_WRITE = 23;
    internal const uint IORING_FSYNC_DATASYNC = 1;
    internal const byte IOSQE_FIXED_FILE = 1;

    private const nint IoUringSetupNumber = 425;
    private const nint IoUringEnterNumber = 426;
    private const nint IoUringRegisterNumber = 427;

    /// <summary>
    /// <c>struct io_uring_params</c>, 120 bytes: 0 sq_entries, 4 cq_entries, 8 flags, 12 sq_thread_cpu, 16
    /// sq_thread_idle, 20 features, 24 wq_fd, 28 resv[3], 40 sq_off, 80 cq_off.
    /// </summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct RingParameters
    {
        internal uint SubmissionEntries;
        internal uint CompletionEntries;
        internal uint Flags;
        internal uint PollThreadCpu;
        internal uint PollThreadIdle;
        internal uint Features;
        internal uint WorkQueueDescriptor;
        internal uint Reserved0;
        internal uint Reserved1;
        internal uint Reserved2;
        internal RingOffsets Submission;
        internal RingOffsets Completion;
    }

    /// <summary>
    /// <c>io_sqring_offsets</c> (0 head, 4 tail, 8 mask, 12 entries, 16 flags, 20 dropped, 24 array) and
    /// <c>io_cqring_offsets</c> (0 head, 4 tail, 8 mask, 12 entries, 16 overflow, 20 cqes, 24 flags); 40 bytes each.
    /// </summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct RingOffsets
    {
        internal uint Head;
        internal uint Tail;
        internal uint Mask;
        internal uint Entries;
        internal uint FlagsOrOverflow;
        internal uint DroppedOrCompletions;
        internal uint ArrayOrFlags;
        internal uint Reserved;
        internal ulong UserAddress;
    }

    /// <summary><c>struct io_uring_sqe</c>, 64 bytes; the fields that are used.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 64)]
    internal struct SubmissionEntry
    {
        [FieldOffset(0)]
        internal byte Opcode;
        [FieldOffset(1)]
        internal byte Flags;
        [FieldOffset(4)]
        internal int Descriptor;
        [FieldOffset(8)]
        internal long Offset;
        [FieldOffset(16)]
        internal ulong Address;
        [FieldOffset(24)]
        internal uint Length;
        [FieldOffset(28)]
        internal uint OperationFlags;
        [FieldOffset(32)]
        internal ulong UserData;
    }

    /// <summary><c>struct io_uring_cqe</c>: 0 user_data (u64), 8 res (i32), 12 flags (u32); 16 bytes.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct CompletionEntry
    {
        internal ulong UserData;
        internal int Result;
        internal uint Flags;
    }

    // SAFETY: the kernel reads and writes one io_uring_params of the size it expects (120 bytes).
    internal static unsafe int IoUringSetup(uint entries, RingParameters* parameters) =>
        (int)SystemCall(IoUringSetupNumber, (nint)entries, (nint)parameters, 0, 0, 0, 0);

    internal static int IoUringEnter(int ring, uint toSubmit, uint minimum, uint flags) =>
        (int)SystemCall(IoUringEnterNumber, ring, (nint)toSubmit, (nint)minimum, (nint)flags, 0, 0);

    // SAFETY: the caller gives an argument of the shape that the operation asks for.
    internal static unsafe int IoUringRegister(int ring, int operation, void* argument, int count) =>
        (int)SystemCall(IoUringRegisterNumber, ring, operation, (nint)argument, count, 0, 0);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial nint SystemCall(
        nint number, nint first, nint second, nint third, nint fourth, nint fifth, nint sixth);
}
