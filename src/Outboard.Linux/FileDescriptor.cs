// Ownership of one file descriptor: whoever holds a FileDescriptor closes it, once. Every descriptor that enters this
// process from a peer becomes one of these at once, so that none can be forgotten.
// Not here: what the descriptor is good for; see Sockets/, Events/, Memory/ and Files/.
using System.Runtime.InteropServices;
using Outboard.Linux.Native;

namespace Outboard.Linux;

/// <summary>An owned Linux file descriptor; disposing closes it.</summary>
/// <remarks>Thread safety is that of <see cref="SafeHandle"/>. The number is valid until
/// <see cref="SafeHandle.Dispose()"/>.</remarks>
public sealed class FileDescriptor : SafeHandle
{
    /// <summary>Takes ownership of <paramref name="number"/>.</summary>
    public FileDescriptor(int number)
        : base(new IntPtr(-1), ownsHandle: true)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(number);
        SetHandle(number);
    }

    /// <inheritdoc/>
    public override bool IsInvalid => handle == new IntPtr(-1);

    /// <summary>The descriptor's number, for system calls while this object lives.</summary>
    /// <exception cref="ObjectDisposedException">The descriptor was closed.</exception>
    public int Number
    {
        get
        {
            ObjectDisposedException.ThrowIf(IsClosed, this);
            return (int)handle;
        }
    }

    /// <summary>A second descriptor for the same open file description, close-on-exec.</summary>
    /// <exception cref="LinuxException">The process has no free descriptor.</exception>
    public FileDescriptor Duplicate() => DuplicateOf(Number);

    /// <summary>A descriptor for what one that belongs to somebody else refers to, close-on-exec.</summary>
    /// <exception cref="LinuxException">It is not open, or the process has no free descriptor.</exception>
    public static FileDescriptor DuplicateOf(int number)
    {
        int copy = Libc.fcntl(number, Libc.F_DUPFD_CLOEXEC, 0);
        int errno = Libc.LastError();
        return copy >= 0 ? new FileDescriptor(copy) : throw new LinuxException("fcntl(F_DUPFD_CLOEXEC)", errno);
    }

    /// <summary>Wraps a descriptor that this process inherited, after checking that it is open, and sets
    /// close-on-exec.</summary>
    /// <param name="number">The number given on the command line.</param>
    /// <exception cref="LinuxException">No such descriptor is open.</exception>
    public static FileDescriptor FromInherited(int number)
    {
        int result = Libc.fcntl(number, Libc.F_SETFD, Libc.FD_CLOEXEC);
        int errno = Libc.LastError();
        return result >= 0
            ? new FileDescriptor(number)
            : throw new LinuxException("fcntl(F_SETFD)", errno, $"descriptor {number} is not open in this process");
    }

    /// <summary>Whether programs that this process starts get the descriptor, under the same number.</summary>
    /// <remarks>Every child that is started meanwhile inherits it, not only the one it is meant for.</remarks>
    /// <exception cref="LinuxException">The kernel refused.</exception>
    public void SetInheritable(bool inheritable)
    {
        int result = Libc.fcntl(Number, Libc.F_SETFD, inheritable ? 0 : Libc.FD_CLOEXEC);
        int errno = Libc.LastError();
        if (result < 0)
        {
            throw new LinuxException("fcntl(F_SETFD)", errno);
        }
    }

    /// <summary>The kind of file behind this descriptor.</summary>
    public FileKind Kind
    {
        get
        {
            Libc.StatResult stat = Libc.Stat(this);
            return (stat.Mode & Libc.S_IFMT) switch
            {
                Libc.S_IFREG => FileKind.Regular,
                Libc.S_IFBLK => FileKind.BlockDevice,
                Libc.S_IFSOCK => FileKind.Socket,
                Libc.S_IFCHR => FileKind.CharacterDevice,
                Libc.S_IFIFO => FileKind.Pipe,
                0 => FileKind.Anonymous,
                _ => FileKind.Other,
            };
        }
    }

    /// <summary>The size in bytes of the file behind this descriptor; 0 for what has no size.</summary>
    public ulong FileSizeBytes => Libc.Stat(this).SizeBytes;

    /// <summary>Which file stands behind this descriptor: the same for all descriptors of one file, while it lives.
    /// </summary>
    public FileIdentity Identity
    {
        get
        {
            Libc.StatResult stat = Libc.Stat(this);
            return new FileIdentity(stat.Device, stat.Inode);
        }
    }

    /// <summary>Gives the number away: this object no longer owns it and will not close it.</summary>
    public int Release()
    {
        int number = Number;
        SetHandleAsInvalid();
        Dispose();
        return number;
    }

    /// <inheritdoc/>
    protected override bool ReleaseHandle() => Libc.close((int)handle) == 0;
}

/// <summary>A file, whatever it is called and wherever it is open.</summary>
public readonly record struct FileIdentity(ulong Device, ulong Inode);

/// <summary>What stands behind a file descriptor, as <c>fstat</c> tells.</summary>
public enum FileKind
{
    /// <summary>None of the kinds below.</summary>
    Other,

    /// <summary>A regular file or a memfd.</summary>
    Regular,

    /// <summary>A block device.</summary>
    BlockDevice,

    /// <summary>A character device.</summary>
    CharacterDevice,

    /// <summary>A socket.</summary>
    Socket,

    /// <summary>A pipe.</summary>
    Pipe,

    /// <summary>An anonymous inode: an eventfd, an epoll or io_uring instance, a userfaultfd.</summary>
    Anonymous,
}
