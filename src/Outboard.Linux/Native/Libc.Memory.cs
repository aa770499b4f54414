// mmap, memfd and what tells about them.
using System.Runtime.InteropServices;

namespace Outboard.Linux.Native;

internal static partial class Libc
{
    internal const int PROT_READ = 1;
    internal const int PROT_WRITE = 2;
    internal const int PROT_EXECUTE = 4;
    internal const int MAP_SHARED = 1;
    internal const int MAP_PRIVATE = 2;
    internal const int MAP_FIXED = 0x10;
    internal const int MAP_ANONYMOUS = 0x20;
    internal const int MAP_POPULATE = 0x8000;
    internal const int MAP_NORESERVE = 0x4000;
    internal const int MADV_DONTDUMP = 16;
    internal const int MREMAP_MAYMOVE = 1;
    internal const int MREMAP_FIXED = 2;
    internal const uint MFD_CLOEXEC = 1;
    internal const uint MFD_ALLOW_SEALING = 2;
    internal const uint MFD_HUGETLB = 4;
    internal const int F_SEAL_SEAL = 1;
    internal const int F_SEAL_SHRINK = 2;
    internal const int F_SEAL_GROW = 4;
    internal const long HUGETLBFS_MAGIC = 0x958458F6;

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial void* mmap(
        void* address, nuint length, int protection, int flags, int fd, long offset);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial int munmap(void* address, nuint length);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial void* mremap(
        void* oldAddress, nuint oldLength, nuint newLength, int flags, void* newAddress);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial int madvise(void* address, nuint length, int advice);

    [LibraryImport("libc", SetLastError = true, StringMarshalling = StringMarshalling.Utf8)]
    internal static partial int memfd_create(string name, uint flags);

    [LibraryImport("libc", SetLastError = true)]
    internal static partial int ftruncate(int fd, long length);

    [LibraryImport("libc", SetLastError = true)]
    private static unsafe partial int fstatfs(int fd, byte* result);

    /// <summary>The page size of the file behind a descriptor: huge on hugetlbfs, the system's otherwise.</summary>
    // SAFETY: struct statfs is 120 bytes; the buffer is larger. 0 f_type (i64), 8 f_bsize (i64).
    internal static unsafe ulong PageSizeOf(FileDescriptor descriptor)
    {
        byte* result = stackalloc byte[256];
        if (fstatfs(descriptor.Number, result) == 0 && *(long*)result == HUGETLBFS_MAGIC)
        {
            return (ulong)*(long*)(result + 8);
        }

        return (ulong)Environment.SystemPageSize;
    }
}
