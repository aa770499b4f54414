// A pipe, a stream socket or a file whose bytes are moved from one end to the other: what a peer passed for a transfer
// of unknown length. Moving waits for the peer, so it happens on a thread of its own, and ends when it is cancelled.
//
// The descriptor's flags are the peer's, too, and are left alone: each piece is moved after poll(2) said that it would
// not block. A pipe that can be written has room for a page (PIPE_BUF), hence the size of a piece. Whoever shares the
// descriptor and takes that room makes the thread wait, and nothing else.
// Not here: positions, messages, descriptors.
using Outboard.Linux.Events;
using Outboard.Linux.Native;

namespace Outboard.Linux.Files;

/// <summary>One end of a stream of bytes.</summary>
public sealed class ByteStream : IDisposable
{
    private const int PieceBytes = 4096;

    /// <summary>Nothing was moved, since another took the room or the bytes.</summary>
    private const int Again = -1;

    /// <summary>How often a waiting transfer looks whether it was cancelled.</summary>
    private const int LookMs = 50;

    private readonly FileDescriptor _descriptor;

    /// <summary>Takes ownership of a descriptor.</summary>
    /// <exception cref="LinuxException">It is no pipe, socket or regular file; it is closed.</exception>
    public ByteStream(FileDescriptor descriptor)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        FileKind kind = descriptor.Kind;
        if (kind is not (FileKind.Pipe or FileKind.Socket or FileKind.Regular))
        {
            descriptor.Dispose();
            throw new LinuxException("poll", Errno.InvalidArgument, $"the descriptor is a {kind}: no stream of bytes");
        }

        _descriptor = descriptor;
    }

    /// <summary>Makes a pipe.</summary>
    /// <exception cref="LinuxException">The process has no free descriptor.</exception>
    // SAFETY: the kernel writes two numbers into the array on the stack.
    public static unsafe (FileDescriptor Reading, FileDescriptor Writing) CreatePipe()
    {
        int* ends = stackalloc int[2];
        int result = Libc.pipe2(ends, Libc.O_CLOEXEC);
        int errno = Libc.LastError();
        return result == 0
            ? (new FileDescriptor(ends[0]), new FileDescriptor(ends[1]))
            : throw new LinuxException("pipe2", errno);
    }

    /// <summary>Writes all bytes, on a thread of its own.</summary>
    /// <exception cref="LinuxException">The other end is closed, or the system refuses.</exception>
    public Task WriteAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellation) => RunAsync(() =>
    {
        while (!bytes.IsEmpty)
        {
            Wait(writes: true, cancellation);
            int moved = Move(write: true, bytes.Span[..Math.Min(bytes.Length, PieceBytes)], default);
            bytes = bytes[Math.Max(moved, 0)..];
        }

        return 0;
    });

    /// <summary>Reads to the end, on a thread of its own.</summary>
    /// <param name="limit">Most bytes to take.</param>
    /// <param name="cancellation">Ends the transfer.</param>
    /// <exception cref="LinuxException">There are more bytes, or the system refuses.</exception>
    public Task<byte[]> ReadToEndAsync(int limit, CancellationToken cancellation) => RunAsync(() =>
    {
        using MemoryStream all = new();
        byte[] piece = new byte[PieceBytes];
        while (true)
        {
            Wait(writes: false, cancellation);
            int moved = Move(write: false, default, piece);
            if (moved == 0)
            {
                return all.ToArray();
            }

            all.Write(piece, 0, Math.Max(moved, 0));
            if (all.Length > limit)
            {
                throw new LinuxException("read", Errno.FileTooLarge, $"more than {limit} bytes");
            }
        }
    });

    /// <summary>Closes this end. No transfer goes on.</summary>
    public void Dispose() => _descriptor.Dispose();

    private static Task<T> RunAsync<T>(Func<T> transfer) => Task.Factory.StartNew(
        transfer, CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    private void Wait(bool writes, CancellationToken cancellation)
    {
        do
        {
            cancellation.ThrowIfCancellationRequested();
        }
        while (!Poll.IsReadyOrEnded(_descriptor.Number, writes, LookMs));
    }

    // SAFETY: the kernel reads or writes at most the span's length, of memory that is fixed meanwhile.
    private unsafe int Move(bool write, ReadOnlySpan<byte> source, Span<byte> target)
    {
        while (true)
        {
            nint moved;
            int errno;
            fixed (byte* from = source)
            fixed (byte* to = target)
            {
                moved = write
                    ? Libc.write(_descriptor.Number, from, (nuint)source.Length)
                    : Libc.read(_descriptor.Number, to, (nuint)target.Length);
                errno = Libc.LastError();
            }

            if (moved >= 0)
            {
                return (int)moved;
            }

            if (errno == Errno.TryAgain)
            {
                return Again;
            }

            if (errno != Errno.Interrupted)
            {
                throw new LinuxException(write ? "write" : "read", errno);
            }
        }
    }
}
