// A regular file that belongs to one process at a time: made when it is missing, locked while it is open. What is
// written through a mapping or by Write survives the process, since it is the kernel's; it does not survive the host.
// Not here: what the file holds, power failures (nothing is synchronized), other kinds of files.
using Outboard.Linux.Memory;
using Outboard.Linux.Native;

namespace Outboard.Linux.Files;

/// <summary>An open regular file with a lock on it. Members may be called from any thread.</summary>
public sealed class OwnedFile : IDisposable
{
    /// <summary>Readable and writable for its owner only: it holds a guest's data.</summary>
    private const uint NewFileMode = 0x180;

    /// <summary>The kernel lets go of a killed owner's lock a moment after its end, so it is waited for.</summary>
    private static readonly TimeSpan s_patience = TimeSpan.FromSeconds(2);

    private static readonly TimeSpan s_lockInterval = TimeSpan.FromMilliseconds(5);

    private readonly FileDescriptor _descriptor;
    private readonly int _number;

    private OwnedFile(FileDescriptor descriptor, string name)
    {
        _descriptor = descriptor;
        _number = descriptor.Number;
        Name = name;
    }

    /// <summary>What it is, for messages.</summary>
    public string Name { get; }

    /// <summary>Size in bytes.</summary>
    /// <exception cref="LinuxException">The kernel does not tell.</exception>
    public long SizeBytes => (long)_descriptor.FileSizeBytes;

    /// <summary>Opens a file, or makes an empty one, and locks it.</summary>
    /// <param name="path">The file.</param>
    /// <param name="patience">How long another owner's lock is waited for; null for two seconds.</param>
    /// <exception cref="LinuxException">It cannot be opened, is no regular file, or another process has it; the message
    /// says which.</exception>
    public static OwnedFile Open(string path, TimeSpan? patience = null)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        return Open(path, path, patience ?? s_patience);
    }

    /// <summary>
    /// Opens once more what an inherited descriptor refers to, a memfd for instance, and locks it. The lock is this
    /// process's own: another one that inherited the same descriptor does not share it.
    /// </summary>
    /// <param name="descriptor">The descriptor; it stays the caller's, who may close it.</param>
    /// <param name="name">What it is, for messages.</param>
    /// <param name="patience">How long another owner's lock is waited for; null for two seconds.</param>
    /// <exception cref="LinuxException">As <see cref="Open(string, TimeSpan?)"/>.</exception>
    public static OwnedFile Open(FileDescriptor descriptor, string name, TimeSpan? patience = null)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        return Open($"/proc/self/fd/{descriptor.Number}", name, patience ?? s_patience);
    }

    /// <summary>Gives the file a size, with its storage: a store into a mapping of it never lacks room.</summary>
    /// <exception cref="LinuxException">There is no room, or the file is sealed.</exception>
    public void Allocate(long sizeBytes)
    {
        int result = Libc.fallocate(_number, 0, 0, sizeBytes);
        int errno = Libc.LastError();
        if (result < 0 && errno == Errno.NotSupported)
        {
            Resize(sizeBytes);
        }
        else if (result < 0)
        {
            throw new LinuxException("fallocate", errno, $"{Name}: {sizeBytes} bytes");
        }
    }

    /// <summary>Cuts the file, or lengthens it with zeroes.</summary>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void Resize(long sizeBytes)
    {
        int result = Libc.ftruncate(_number, sizeBytes);
        int errno = Libc.LastError();
        if (result < 0)
        {
            throw new LinuxException("ftruncate", errno, $"{Name}: {sizeBytes} bytes");
        }
    }

    /// <summary>Maps the whole file, shared.</summary>
    /// <exception cref="LinuxException">It is empty, or cannot be mapped.</exception>
    public MemoryMapping Map() => MemoryMapping.Map(_descriptor, 0, (ulong)SizeBytes);

    /// <summary>Writes at a position. Never throws for what the file does; may write less.</summary>
    /// <param name="segments">What; at most 1024.</param>
    /// <param name="offset">Where, in bytes.</param>
    /// <returns>Bytes written, or a negative errno.</returns>
    // SAFETY: the kernel reads the segments, which are fixed meanwhile; memory that is not there gives EFAULT.
    public unsafe long Write(ReadOnlySpan<IoSegment> segments, long offset)
    {
        fixed (IoSegment* first = segments)
        {
            while (true)
            {
                nint written = Libc.pwritev2(_number, first, segments.Length, offset, 0);
                int errno = Libc.LastError();
                if (written >= 0)
                {
                    return written;
                }

                if (errno != Errno.Interrupted)
                {
                    return -errno;
                }
            }
        }
    }

    /// <summary>Lets go of the file.</summary>
    public void Dispose() => _descriptor.Dispose();

    private static OwnedFile Open(string path, string name, TimeSpan patience)
    {
        const int flags = Libc.O_RDWR | Libc.O_CREAT | Libc.O_CLOEXEC | Libc.O_NOCTTY | Libc.O_NONBLOCK;
        int number = Libc.open(path, flags, NewFileMode);
        int errno = Libc.LastError();
        if (number < 0)
        {
            string subject = errno == Errno.NoEntry
                ? $"{name}: the folder does not exist"
                : BlockFileRefusal.Describe(name, errno, readOnly: true, direct: false);
            throw new LinuxException("open", errno, subject);
        }

        FileDescriptor descriptor = new(number);
        try
        {
            if (descriptor.Kind != FileKind.Regular)
            {
                throw new LinuxException("open", Errno.InvalidArgument, $"{name} is no regular file");
            }

            Lock(number, name, patience);
            return new OwnedFile(descriptor, name);
        }
        catch
        {
            descriptor.Dispose();
            throw;
        }
    }

    // SAFETY: the kernel reads one struct flock on the stack.
    private static unsafe void Lock(int number, string name, TimeSpan patience)
    {
        DateTime end = DateTime.UtcNow + patience;
        while (true)
        {
            Libc.FileLock range = new() { Type = Libc.F_WRLCK };
            int result = Libc.FcntlLock(number, Libc.F_OFD_SETLK, &range);
            int errno = Libc.LastError();
            if (result == 0)
            {
                return;
            }

            bool isHeld = errno is Errno.TryAgain or Errno.AccessDenied;
            if (!isHeld || DateTime.UtcNow > end)
            {
                throw new LinuxException(
                    "fcntl(F_OFD_SETLK)", errno, isHeld ? $"{name} is in use by another process" : name);
            }

            Thread.Sleep(s_lockInterval);
        }
    }
}
