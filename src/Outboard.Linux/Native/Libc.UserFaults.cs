// userfaultfd: structures and numbers, the same on x64 and arm64 but for the system call's own number.
using System.Runtime.InteropServices;

namespace Outboard.Linux.Native;

internal static partial class Libc
{
    internal const int MADV_DONTNEED = 4;
    internal const int MADV_NOHUGEPAGE = 15;
    internal const int FALLOC_FL_KEEP_SIZE = 1;
    internal const int FALLOC_FL_PUNCH_HOLE = 2;

    internal const ulong UFFD_API = 0xAA;
    internal const ulong UFFD_FEATURE_MISSING_HUGETLBFS = 1 << 4;
    internal const ulong UFFD_FEATURE_MISSING_SHMEM = 1 << 5;
    internal const ulong UFFDIO_REGISTER_MODE_MISSING = 1;
    internal const ulong UFFDIO_COPY_BIT = 1 << 3;
    internal const byte UFFD_EVENT_PAGEFAULT = 0x12;

    internal const uint USERFAULTFD_IOC_NEW = 0xAA00;
    internal const uint UFFDIO_API = 0xC018AA3F;
    internal const uint UFFDIO_REGISTER = 0xC020AA00;
    internal const uint UFFDIO_UNREGISTER = 0x8010AA01;
    internal const uint UFFDIO_WAKE = 0x8010AA02;

    private static readonly int s_userfaultfdNumber =
        RuntimeInformation.ProcessArchitecture == Architecture.X64 ? 323 : 282;

    /// <summary>0 api u64, 8 features u64, 16 ioctls u64.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct UserFaultApi
    {
        internal ulong Api;
        internal ulong Features;
        internal ulong Calls;
    }

    /// <summary>0 start u64, 8 length u64.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct UserFaultRange
    {
        internal ulong Start;
        internal ulong Length;
    }

    /// <summary>0 range, 16 mode u64, 24 ioctls u64.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct UserFaultRegister
    {
        internal UserFaultRange Range;
        internal ulong Mode;
        internal ulong Calls;
    }

    /// <summary>0 event u8, 8 flags u64, 16 address u64, 24 thread u32; 32 bytes.</summary>
    [StructLayout(LayoutKind.Explicit, Size = 32)]
    internal struct UserFaultMessage
    {
        [FieldOffset(0)]
        internal byte Event;

        [FieldOffset(16)]
        internal ulong Address;
    }

    /// <summary>The system call; a descriptor, or -1.</summary>
    internal static int UserFaultDescriptor(int flags) => (int)userfaultfd(s_userfaultfdNumber, flags);

    [LibraryImport("libc", EntryPoint = "syscall", SetLastError = true)]
    private static partial long userfaultfd(long number, int flags);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial nint pwrite(int fd, void* bytes, nuint count, long offset);
}
