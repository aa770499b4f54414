// An attachment on a UNIX socket: a file descriptor.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Files;
using Outboard.Linux.Memory;
using Outboard.Linux.Sockets;
using Outboard.Memory;
using Outboard.Virtio;

namespace Outboard.VhostUser.Channel;

/// <summary>A file descriptor that came with a message.</summary>
public sealed class DescriptorAttachment : Attachment
{
    private FileDescriptor? _descriptor;

    /// <summary>Takes ownership of the descriptor.</summary>
    public DescriptorAttachment(FileDescriptor descriptor) => _descriptor = descriptor;

    /// <inheritdoc/>
    public override SharedMemory ToSharedMemory() => new FileSharedMemory(Take());

    /// <inheritdoc/>
    /// <exception cref="IOException">The descriptor is neither an eventfd nor a pipe.</exception>
    public override Notifier ToNotifier()
    {
        FileKind? kind = _descriptor?.Kind;
        if (kind is not (null or FileKind.Anonymous or FileKind.Pipe))
        {
            throw new LinuxException("eventfd", Errno.InvalidArgument, $"the descriptor is a {kind}, not an eventfd");
        }

        return new EventFdNotifier(new EventFd(Take()));
    }

    /// <inheritdoc/>
    /// <exception cref="IOException">The descriptor is no UNIX stream socket.</exception>
    public override VhostUserChannel ToChannel() => new SocketChannel(TakeSocket());

    /// <inheritdoc/>
    /// <exception cref="IOException">The descriptor is no UNIX stream socket.</exception>
    public override DisplayConnection ToDisplay() => new SocketDisplayConnection(TakeSocket());

    /// <inheritdoc/>
    public override UserFaults ToUserFaults() => new(Take());

    /// <inheritdoc/>
    /// <exception cref="IOException">The descriptor is no pipe, socket or file.</exception>
    public override StateStream ToStateStream() => new DescriptorStateStream(new ByteStream(Take()));

    /// <inheritdoc/>
    public override void Dispose() => _descriptor?.Dispose();

    /// <summary>Lends the descriptor for sending; it stays owned here.</summary>
    internal FileDescriptor Lend() => _descriptor ?? throw new InvariantException("an attachment was used twice");

    private UnixSocket TakeSocket()
    {
        if (_descriptor is not null && !UnixSocket.IsUnixStream(_descriptor))
        {
            throw new LinuxException("socket", Errno.InvalidArgument, "the descriptor is no UNIX stream socket");
        }

        return new UnixSocket(Take());
    }

    private FileDescriptor Take()
    {
        FileDescriptor descriptor = Lend();
        _descriptor = null;
        return descriptor;
    }
}
