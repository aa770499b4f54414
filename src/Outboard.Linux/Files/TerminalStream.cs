// Where people sit: a pseudo terminal that this process makes, or its standard streams. Used without waiting; a
// terminal is put into raw mode, since the guest at the other end echoes and edits by itself.
// Not here: sizes, modem lines, sockets.
using Outboard.Linux.Events;
using Outboard.Linux.Native;

namespace Outboard.Linux.Files;

/// <summary>A terminal, or what stands in for one. One reader and one writer at a time, on any threads.</summary>
public sealed class TerminalStream : IDisposable
{
    /// <summary>
    /// A write of so many bytes does not block after poll(2) said that there is room, on a tty as well.
    /// </summary>
    private const int SharedPieceBytes = 256;

    private const string ClonePath = "/dev/ptmx";

    private readonly FileDescriptor _input;
    private readonly FileDescriptor _output;

    /// <summary>Keeps a pseudo terminal's other side open: without anybody there reads would fail.</summary>
    private readonly FileDescriptor? _kept;

    private readonly bool _isShared;
    private readonly Libc.TerminalMode? _before;

    private TerminalStream(FileDescriptor input, FileDescriptor output, FileDescriptor? kept, string name)
    {
        _input = input;
        _output = output;
        _kept = kept;
        _isShared = kept is null;
        Name = name;
        _before = SetRaw(kept ?? input, keepsSignals: _isShared);
        CanWait = _before is not null || input.Kind is FileKind.Pipe or FileKind.Socket;
    }

    /// <summary>The path of a pseudo terminal, or another name; for messages.</summary>
    public string Name { get; }

    /// <summary>
    /// Whether <see cref="Input"/> can be waited for. A file cannot: it is read to its end at once.
    /// </summary>
    public bool CanWait { get; }

    /// <summary>Where input comes from; for waiting.</summary>
    public FileDescriptor Input => _input;

    /// <summary>Makes a pseudo terminal. <see cref="Name"/> is what a terminal program opens.</summary>
    /// <exception cref="LinuxException">There is none to be had.</exception>
    // SAFETY: the kernel reads and writes one integer on the stack.
    public static unsafe TerminalStream CreatePseudoTerminal()
    {
        FileDescriptor control = OpenTerminal(ClonePath, Libc.O_NONBLOCK);
        try
        {
            int zero = 0;
            int index = 0;
            int result = Libc.ioctl(control.Number, Libc.TIOCSPTLCK, &zero);
            result = result < 0 ? result : Libc.ioctl(control.Number, Libc.TIOCGPTN, &index);
            int errno = Libc.LastError();
            if (result < 0)
            {
                throw new LinuxException("ioctl(TIOCGPTN)", errno);
            }

            string path = $"/dev/pts/{index}";
            return new TerminalStream(control, control.Duplicate(), OpenTerminal(path, 0), path);
        }
        catch
        {
            control.Dispose();
            throw;
        }
    }

    /// <summary>Standard input and output. Their flags are left alone: others may have them, too.</summary>
    /// <exception cref="LinuxException">One of them is closed.</exception>
    public static TerminalStream OfStandardStreams()
    {
        FileDescriptor input = FileDescriptor.DuplicateOf(0);
        return new TerminalStream(input, FileDescriptor.DuplicateOf(1), kept: null, "standard streams");
    }

    /// <summary>Reads what is there. Never throws for what the other side does.</summary>
    /// <returns>Bytes; 0 at the end; a negative errno, TryAgain when nothing is there now.</returns>
    // SAFETY: the kernel writes at most the span's length into the fixed span.
    public unsafe int TryRead(Span<byte> destination)
    {
        if (_isShared && CanWait && !Poll.IsReadyOrEnded(_input.Number, writes: false, timeoutMs: 0))
        {
            return -Errno.TryAgain;
        }

        fixed (byte* bytes = destination)
        {
            nint result = Libc.read(_input.Number, bytes, (nuint)destination.Length);
            int errno = Libc.LastError();
            return result >= 0 ? (int)result : errno == Errno.Interrupted ? -Errno.TryAgain : -errno;
        }
    }

    /// <summary>Writes what there is room for. Never throws for what the other side does.</summary>
    /// <returns>Bytes; a negative errno, TryAgain when there is no room now.</returns>
    // SAFETY: the kernel reads at most the segment's length, of memory that its owner keeps.
    public unsafe int TryWrite(IoSegment segment)
    {
        if (_isShared && !Poll.IsReadyOrEnded(_output.Number, writes: true, timeoutMs: 0))
        {
            return -Errno.TryAgain;
        }

        long length = _isShared ? Math.Min(segment.Length, SharedPieceBytes) : segment.Length;
        nint result = Libc.write(_output.Number, (void*)segment.Address, (nuint)length);
        int errno = Libc.LastError();
        return result >= 0 ? (int)result : errno == Errno.Interrupted ? -Errno.TryAgain : -errno;
    }

    /// <summary>Puts a terminal back into the mode that it had, and closes.</summary>
    public void Dispose()
    {
        if (_isShared && _before is { } mode && !_input.IsClosed)
        {
            SetMode(_input, mode);
        }

        _input.Dispose();
        _output.Dispose();
        _kept?.Dispose();
    }

    private static FileDescriptor OpenTerminal(string path, int flags)
    {
        int number = Libc.open(path, Libc.O_RDWR | Libc.O_CLOEXEC | Libc.O_NOCTTY | flags, 0);
        int errno = Libc.LastError();
        return number >= 0 ? new FileDescriptor(number) : throw new LinuxException("open", errno, path);
    }

    /// <summary>Raw mode.</summary>
    /// <returns>The mode before; null for what is no terminal.</returns>
    // SAFETY: the kernel writes one struct termios on the stack.
    private static unsafe Libc.TerminalMode? SetRaw(FileDescriptor terminal, bool keepsSignals)
    {
        Libc.TerminalMode mode = default;
        if (Libc.ioctl(terminal.Number, Libc.TCGETS, &mode) < 0)
        {
            return null;
        }

        Libc.TerminalMode before = mode;
        mode.Input &= ~Libc.CookedInput;
        mode.Output &= ~Libc.CookedOutput;
        mode.Local &= ~(keepsSignals ? Libc.CookedLocal & ~Libc.SignalCharacters : Libc.CookedLocal);
        mode.Control = (mode.Control & ~Libc.CharacterSizeAndParity) | Libc.EightBits;
        SetMode(terminal, mode);
        return before;
    }

    // SAFETY: the kernel reads one struct termios on the stack.
    private static unsafe void SetMode(FileDescriptor terminal, Libc.TerminalMode mode) =>
        _ = Libc.ioctl(terminal.Number, Libc.TCSETS, &mode);
}
