// Regular files and block devices: open, vectored I/O with flags, fallocate, locks, device ioctls; futex for the
// threads that stand in for io_uring. Numbers are those of x64 and arm64, which differ only where it is said.
using System.Runtime.InteropServices;

namespace Outboard.Linux.Native;

internal static partial class Libc
{
    internal const int O_RDONLY = 0;
    internal const int O_RDWR = 2;
    internal const int O_ACCMODE = 3;
    internal const int O_CREAT = 0x40;
    internal const int O_NOCTTY = 0x100;
    internal const int O_NONBLOCK = 0x800;
    internal const int O_CLOEXEC = 0x80000;

    /// <summary>RWF_DSYNC: this write is on stable storage when it completes.</summary>
    internal const int RWF_DSYNC = 2;

    /// <summary>RWF_NOWAIT: fail with EAGAIN rather than wait for a device or a lock.</summary>
    internal const int RWF_NOWAIT = 8;

    /// <summary>The offset for descriptors without positions.</summary>
    internal const long CurrentPosition = -1;

    internal const int F_OFD_GETLK = 36;
    internal const int F_OFD_SETLK = 37;
    internal const short F_RDLCK = 0;
    internal const short F_WRLCK = 1;
    internal const short F_UNLCK = 2;

    internal const nuint BLKROGET = 0x125E;
    internal const nuint BLKSSZGET = 0x1268;
    internal const nuint BLKDISCARD = 0x1277;
    internal const nuint BLKZEROOUT = 0x127F;
    internal const nuint BLKGETSIZE64 = 0x80081272;

    private const uint STATX_DIOALIGN = 0x2000;
    private const int FUTEX_WAIT_PRIVATE = 128;
    private const int FUTEX_WAKE_PRIVATE = 129;

    private static readonly bool s_isArm64 = RuntimeInformation.ProcessArchitecture == Architecture.Arm64;
    private static readonly nint s_futexNumber = s_isArm64 ? 98 : 202;

    /// <summary>O_DIRECT, which is one of the few open flags that differ between the architectures.</summary>
    internal static int O_DIRECT => s_isArm64 ? 0x10000 : 0x4000;

    /// <summary><c>struct flock</c>: 0 type (i16), 2 whence (i16), 8 start (i64), 16 length (i64), 24 pid (i32); 32
    /// bytes.</summary>
    [StructLayout(LayoutKind.Sequential)]
    internal struct FileLock
    {
        internal short Type;
        internal short Whence;
        internal long Start;
        internal long Length;
        internal int Process;
    }

    /// <summary>Direct I/O alignment from <c>struct statx</c>: 152 memory (u32), 156 offset (u32); 0 when not
    /// told.</summary>
    internal readonly record struct DirectAlignment(int Memory, int Offset);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int open(string path, int flags, uint mode);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial nint preadv2(int fd, IoSegment* segments, int count, long offset, int flags);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial nint pwritev2(int fd, IoSegment* segments, int count, long offset, int flags);

    [LibraryImport("libc", SetLastError = true)]
    internal static partial int fdatasync(int fd);

    [LibraryImport("libc", SetLastError = true)]
    internal static partial int fallocate(int fd, int mode, long offset, long length);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial int ioctl(int fd, nuint request, void* argument);

    [LibraryImport("libc", EntryPoint = "fcntl", SetLastError = true)]
    internal static unsafe partial int FcntlLock(int fd, int command, FileLock* fileLock);

    /// <summary>Sleeps while <c>*word == expected</c>; returns for any reason, so the caller looks again.</summary>
    // SAFETY: the kernel reads one aligned 32-bit word that the caller keeps alive during the call.
    internal static unsafe void FutexWait(uint* word, uint expected) =>
        _ = Futex(s_futexNumber, word, FUTEX_WAIT_PRIVATE, (nint)expected, null, null, 0);

    /// <summary>Wakes up to <paramref name="count"/> threads that sleep on the word.</summary>
    // SAFETY: the kernel uses the address only as a key.
    internal static unsafe void FutexWake(uint* word, int count) =>
        _ = Futex(s_futexNumber, word, FUTEX_WAKE_PRIVATE, count, null, null, 0);

    // SAFETY: the kernel writes at most the 256 bytes of struct statx into a buffer of that size.
    internal static unsafe DirectAlignment StatDirectAlignment(FileDescriptor descriptor)
    {
        byte* buffer = stackalloc byte[256];
        byte empty = 0;
        int result = statx(descriptor.Number, &empty, AT_EMPTY_PATH, STATX_DIOALIGN, buffer);
        bool told = result == 0 && (*(uint*)buffer & STATX_DIOALIGN) != 0;
        return told ? new DirectAlignment(*(int*)(buffer + 152), *(int*)(buffer + 156)) : default;
    }

    [LibraryImport("libc", EntryPoint = "syscall")]
    private static unsafe partial nint Futex(
        nint number, uint* word, nint operation, nint value, void* timeout, uint* second, nint thirdValue);
}
