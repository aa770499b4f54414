// The one exception of this island: a system call that failed, with its name, its errno and what it was about.
namespace Outboard.Linux;

/// <summary>A system call failed.</summary>
public sealed class LinuxException : IOException
{
    /// <summary>Creates the exception for <paramref name="call"/> that failed with <paramref name="errno"/>.</summary>
    /// <param name="call">The system call's name, for example <c>mmap</c>.</param>
    /// <param name="errno">The error number, see <see cref="Linux.Errno"/>.</param>
    /// <param name="subject">What the call was about: a path, a size, a remedy. May be null.</param>
    public LinuxException(string call, int errno, string? subject = null)
        : base(Describe(call, errno, subject))
    {
        Call = call;
        Errno = errno;
    }

    /// <summary>The system call's name.</summary>
    public string Call { get; }

    /// <summary>The error number.</summary>
    public int Errno { get; }

    private static string Describe(string call, int errno, string? subject)
    {
        string reason = Native.Libc.ErrorText(errno);
        return subject is null ? $"{call}: {reason}" : $"{call}: {reason} ({subject})";
    }
}

/// <summary>The error numbers that code of this project distinguishes (asm-generic numbering: x64 and arm64).</summary>
public static class Errno
{
    /// <summary>EPERM.</summary>
    public const int NotPermitted = 1;

    /// <summary>ENOENT.</summary>
    public const int NoEntry = 2;

    /// <summary>EINTR.</summary>
    public const int Interrupted = 4;

    /// <summary>EIO.</summary>
    public const int InputOutput = 5;

    /// <summary>EBADF.</summary>
    public const int BadDescriptor = 9;

    /// <summary>EAGAIN, the same number as EWOULDBLOCK.</summary>
    public const int TryAgain = 11;

    /// <summary>ENOMEM.</summary>
    public const int NoMemory = 12;

    /// <summary>EACCES.</summary>
    public const int AccessDenied = 13;

    /// <summary>EFAULT.</summary>
    public const int BadAddress = 14;

    /// <summary>EBUSY.</summary>
    public const int Busy = 16;

    /// <summary>EEXIST.</summary>
    public const int Exists = 17;

    /// <summary>EISDIR.</summary>
    public const int IsDirectory = 21;

    /// <summary>EINVAL.</summary>
    public const int InvalidArgument = 22;

    /// <summary>ENOSPC.</summary>
    public const int NoSpace = 28;

    /// <summary>EFBIG.</summary>
    public const int FileTooLarge = 27;

    /// <summary>EROFS.</summary>
    public const int ReadOnlyFileSystem = 30;

    /// <summary>EPIPE.</summary>
    public const int BrokenPipe = 32;

    /// <summary>ENAMETOOLONG.</summary>
    public const int NameTooLong = 36;

    /// <summary>ENOSYS.</summary>
    public const int NotImplemented = 38;

    /// <summary>EPROTO.</summary>
    public const int Protocol = 71;

    /// <summary>EOPNOTSUPP, the same number as ENOTSUP.</summary>
    public const int NotSupported = 95;

    /// <summary>EADDRINUSE.</summary>
    public const int AddressInUse = 98;

    /// <summary>EADDRNOTAVAIL; the runtime also tells it for a UNIX socket whose path does not exist.</summary>
    public const int AddressNotAvailable = 99;

    /// <summary>ECONNRESET.</summary>
    public const int ConnectionReset = 104;

    /// <summary>ECONNREFUSED.</summary>
    public const int ConnectionRefused = 111;

    /// <summary>ECANCELED.</summary>
    public const int Canceled = 125;
}
