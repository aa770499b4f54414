// A file that is read from its front on and never waited for: a random number generator's device, or a regular file.
// Not here: writing, positions, pipes and sockets.
using Outboard.Linux.Native;

namespace Outboard.Linux.Files;

/// <summary>An open file that is read front to back, without waiting. Used by one thread at a time.</summary>
public sealed class SequentialFile : IDisposable
{
    private readonly int _number;
    private readonly FileDescriptor _descriptor;

    private SequentialFile(FileDescriptor descriptor, string path)
    {
        _descriptor = descriptor;
        Path = path;
        _number = descriptor.Number;
    }

    /// <summary>The path it was opened by; for messages.</summary>
    public string Path { get; }

    /// <summary>Opens a regular file or a character device.</summary>
    /// <exception cref="LinuxException">It cannot be opened, or is neither; the message says what to do.</exception>
    public static SequentialFile Open(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        int number = Libc.open(path, Libc.O_RDONLY | Libc.O_CLOEXEC | Libc.O_NOCTTY | Libc.O_NONBLOCK, 0);
        int errno = Libc.LastError();
        if (number < 0)
        {
            string reason = BlockFileRefusal.Describe(path, errno, readOnly: true, direct: false);
            throw new LinuxException("open", errno, reason);
        }

        FileDescriptor descriptor = new(number);
        FileKind kind = descriptor.Kind;
        if (kind is FileKind.Regular or FileKind.CharacterDevice)
        {
            return new SequentialFile(descriptor, path);
        }

        descriptor.Dispose();
        string subject = $"{path} is neither a regular file nor a character device";
        throw new LinuxException("open", Errno.InvalidArgument, subject);
    }

    /// <summary>Reads what is there, up to the buffer's length. Never throws for what the file does.</summary>
    /// <returns>Bytes; 0 at the end; a negative errno, TryAgain when nothing is there now.</returns>
    // SAFETY: the kernel writes at most the span's length into the fixed span.
    public unsafe int TryRead(Span<byte> destination)
    {
        fixed (byte* bytes = destination)
        {
            while (true)
            {
                nint result = Libc.read(_number, bytes, (nuint)destination.Length);
                int errno = Libc.LastError();
                if (result >= 0)
                {
                    return (int)result;
                }

                if (errno != Errno.Interrupted)
                {
                    return -errno;
                }
            }
        }
    }

    /// <summary>Closes the file.</summary>
    public void Dispose() => _descriptor.Dispose();
}
