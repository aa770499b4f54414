// The system calls this project uses, one partial file per area. Blittable arguments only; errno is read in the very
// next statement after a call (LastError), because the runtime may make calls of its own in between.
using System.Runtime.InteropServices;

namespace Outboard.Linux.Native;

internal static partial class Libc
{
    internal const int F_SETFD = 2;
    internal const int F_GETFL = 3;
    internal const int F_SETFL = 4;
    internal const int F_DUPFD_CLOEXEC = 1030;
    internal const int F_ADD_SEALS = 1033;
    internal const int F_GET_SEALS = 1034;
    internal const int FD_CLOEXEC = 1;

    internal const uint S_IFMT = 0xF000;
    internal const uint S_IFSOCK = 0xC000;
    internal const uint S_IFREG = 0x8000;
    internal const uint S_IFBLK = 0x6000;
    internal const uint S_IFCHR = 0x2000;
    internal const uint S_IFIFO = 0x1000;

    private const int AT_FDCWD = -100;
    private const int AT_EMPTY_PATH = 0x1000;
    private const uint STATX_BASIC_STATS = 0x7FF;

    [LibraryImport("libc", SetLastError = true)]
    internal static partial int close(int fd);

    [LibraryImport("libc", SetLastError = true)]
    internal static partial int fcntl(int fd, int command, int argument);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial nint read(int fd, void* buffer, nuint count);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial int pipe2(int* ends, int flags);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial nint write(int fd, void* buffer, nuint count);

    [LibraryImport("libc", SetLastError = true)]
    private static unsafe partial int statx(int fd, byte* path, int flags, uint mask, byte* result);

    [LibraryImport("libc", EntryPoint = "statx", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    private static unsafe partial int StatxPath(int fd, string path, int flags, uint mask, byte* result);

    /// <summary>The errno of the last call on this thread. To be read in the very next statement after the
    /// call.</summary>
    internal static int LastError() => Marshal.GetLastPInvokeError();

    internal static string ErrorText(int errno) => $"{Marshal.GetPInvokeErrorMessage(errno)} [errno {errno}]";

    /// <summary>The fields of <c>struct statx</c> that are used: 28 mode (u16), 32 inode (u64), 40 size (u64), 136
    /// major and minor number of the device (one u64).</summary>
    internal readonly record struct StatResult(uint Mode, ulong SizeBytes, ulong Inode, ulong Device);

    // SAFETY: the kernel writes at most the 256 bytes of struct statx into a buffer of that size.
    internal static unsafe StatResult Stat(FileDescriptor descriptor)
    {
        byte* buffer = stackalloc byte[256];
        byte empty = 0;
        int result = statx(descriptor.Number, &empty, AT_EMPTY_PATH, STATX_BASIC_STATS, buffer);
        int errno = LastError();
        return result == 0
            ? Read(buffer)
            : throw new LinuxException("statx", errno);
    }

    /// <summary>What is at a path, links followed; null when nothing is, or nothing that this user may see.</summary>
    // SAFETY: the kernel writes at most the 256 bytes of struct statx into a buffer of that size.
    internal static unsafe StatResult? StatPath(string path)
    {
        byte* buffer = stackalloc byte[256];
        int result = StatxPath(AT_FDCWD, path, 0, STATX_BASIC_STATS, buffer);
        return result == 0 ? Read(buffer) : null;
    }

    // SAFETY: the caller's buffer has the size of struct statx.
    private static unsafe StatResult Read(byte* buffer) =>
        new(*(ushort*)(buffer + 28), *(ulong*)(buffer + 40), *(ulong*)(buffer + 32), *(ulong*)(buffer + 136));
}
