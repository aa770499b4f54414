// Anonymous shared memory (memfd), sealed against shrinking so that no holder of the descriptor can make another's
// mapping fault.
using Outboard.Linux.Native;

namespace Outboard.Linux.Memory;

/// <summary>Creates sealed anonymous shared memory.</summary>
public static class MemFd
{
    /// <summary>Creates a memfd of <paramref name="sizeBytes"/> zero bytes, sealed against shrinking and
    /// growing.</summary>
    /// <param name="name">Shown in /proc/PID/maps.</param>
    /// <param name="sizeBytes">Size; a multiple of the huge page size when <paramref name="hugePages"/> is set.</param>
    /// <param name="hugePages">Back it with huge pages of the default size.</param>
    public static FileDescriptor Create(string name, ulong sizeBytes, bool hugePages = false)
    {
        FileDescriptor descriptor = CreateUnsealed(name, sizeBytes, hugePages);
        const int seals = Libc.F_SEAL_SHRINK | Libc.F_SEAL_GROW | Libc.F_SEAL_SEAL;
        int result = Libc.fcntl(descriptor.Number, Libc.F_ADD_SEALS, seals);
        int errno = Libc.LastError();
        if (result < 0)
        {
            descriptor.Dispose();
            throw new LinuxException("fcntl(F_ADD_SEALS)", errno, name);
        }

        return descriptor;
    }

    /// <summary>Whether the file is sealed against shrinking, so that a mapping of it cannot fault.</summary>
    public static bool IsSealedAgainstShrinking(FileDescriptor descriptor)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        int seals = Libc.fcntl(descriptor.Number, Libc.F_GET_SEALS, 0);
        return seals >= 0 && (seals & Libc.F_SEAL_SHRINK) != 0;
    }

    /// <summary>Creates a memfd that may still be resized by anyone who holds it; for tests of a hostile
    /// peer.</summary>
    public static FileDescriptor CreateUnsealed(string name, ulong sizeBytes, bool hugePages = false)
    {
        uint flags = Libc.MFD_CLOEXEC | Libc.MFD_ALLOW_SEALING | (hugePages ? Libc.MFD_HUGETLB : 0);
        int number = Libc.memfd_create(name, flags);
        int errno = Libc.LastError();
        if (number < 0)
        {
            throw new LinuxException("memfd_create", errno, name);
        }

        FileDescriptor descriptor = new(number);
        try
        {
            Resize(descriptor, sizeBytes);
            return descriptor;
        }
        catch
        {
            descriptor.Dispose();
            throw;
        }
    }

    /// <summary>Takes pages away: they read as zero, and are missing to whoever waits for missing ones.</summary>
    public static void PunchHole(FileDescriptor descriptor, ulong offset, ulong length)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        const int mode = Libc.FALLOC_FL_PUNCH_HOLE | Libc.FALLOC_FL_KEEP_SIZE;
        int result = Libc.fallocate(descriptor.Number, mode, checked((long)offset), checked((long)length));
        int errno = Libc.LastError();
        if (result < 0)
        {
            throw new LinuxException("fallocate", errno, $"{length} bytes at offset {offset}");
        }
    }

    /// <summary>Writes bytes; each page that was missing appears with its content.</summary>
    // SAFETY: the kernel reads the span's length of memory that is fixed meanwhile.
    public static unsafe void Write(FileDescriptor descriptor, ulong offset, ReadOnlySpan<byte> bytes)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        fixed (byte* source = bytes)
        {
            nint written = Libc.pwrite(descriptor.Number, source, (nuint)bytes.Length, checked((long)offset));
            int errno = Libc.LastError();
            if (written != bytes.Length)
            {
                throw new LinuxException("pwrite", written < 0 ? errno : Errno.NoSpace, $"at offset {offset}");
            }
        }
    }

    /// <summary>Sets the size of an unsealed file.</summary>
    public static void Resize(FileDescriptor descriptor, ulong sizeBytes)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        int result = Libc.ftruncate(descriptor.Number, checked((long)sizeBytes));
        int errno = Libc.LastError();
        if (result < 0)
        {
            throw new LinuxException("ftruncate", errno, $"{sizeBytes} bytes");
        }
    }
}
