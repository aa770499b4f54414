// What comes with a message besides bytes. A session asks for what it needs: shared memory, an interrupt line, an
// event, another channel; that each is a file descriptor stays here.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Files;
using Outboard.Linux.Sockets;
using Outboard.Memory;
using Outboard.Pci.Interrupts;

namespace Outboard.VfioUser.Channel;

/// <summary>
/// A file descriptor that came with a message, or goes with one. Each conversion hands ownership over; what is not
/// converted is disposed.
/// </summary>
public sealed class Attachment : IDisposable
{
    private FileDescriptor? _descriptor;

    /// <summary>Takes ownership of a descriptor.</summary>
    public Attachment(FileDescriptor descriptor) => _descriptor = descriptor;

    /// <summary>As shared memory.</summary>
    public SharedMemory ToSharedMemory() => new FileSharedMemory(Take());

    /// <summary>As a file that is read and written.</summary>
    /// <exception cref="IOException">It is no file.</exception>
    public BlockFile ToFile(string name) => BlockFile.FromDescriptor(Take(), name);

    /// <summary>As an event that is waited for.</summary>
    /// <exception cref="IOException">It is no eventfd.</exception>
    public EventFd ToEvent()
    {
        RequireEvent();
        return new EventFd(Take());
    }

    /// <summary>As the way of an interrupt.</summary>
    /// <exception cref="IOException">It is neither an eventfd nor a pipe.</exception>
    public InterruptLine ToInterruptLine() => new EventLine(ToEvent());

    /// <summary>As a channel for messages.</summary>
    /// <exception cref="IOException">It is no UNIX stream socket.</exception>
    public SocketChannel ToChannel()
    {
        if (!UnixSocket.IsUnixStream(Lend()))
        {
            throw new LinuxException("socket", Errno.InvalidArgument, "the descriptor is no UNIX stream socket");
        }

        return new SocketChannel(new UnixSocket(Take()));
    }

    /// <inheritdoc/>
    public void Dispose()
    {
        _descriptor?.Dispose();
        _descriptor = null;
    }

    /// <summary>Fails unless this can signal.</summary>
    /// <exception cref="IOException">It is neither an eventfd nor a pipe.</exception>
    public void RequireEvent()
    {
        FileKind kind = Lend().Kind;
        if (kind is not (FileKind.Anonymous or FileKind.Pipe))
        {
            throw new LinuxException("eventfd", Errno.InvalidArgument, $"the descriptor is a {kind}, not an eventfd");
        }
    }

    /// <summary>Lends the descriptor for sending; it stays owned here.</summary>
    internal FileDescriptor Lend() =>
        _descriptor ?? throw new InvalidOperationException("an attachment was used twice");

    private FileDescriptor Take()
    {
        FileDescriptor descriptor = Lend();
        _descriptor = null;
        return descriptor;
    }
}
