// A channel on a UNIX stream socket.
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Linux.Memory;
using Outboard.Linux.Sockets;
using Outboard.Memory;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Channel;

/// <summary>Messages on a UNIX stream socket; attachments are file descriptors.</summary>
public sealed class SocketChannel : VhostUserChannel
{
    private readonly UnixSocket _socket;
    private readonly MessageFramer _framer = new();
    private readonly List<FileDescriptor> _arrived = [];

    /// <summary>Takes ownership of a connected socket.</summary>
    public SocketChannel(UnixSocket socket) => _socket = socket;

    /// <inheritdoc/>
    public override async ValueTask<VhostUserMessage?> ReceiveAsync(CancellationToken cancellation = default)
    {
        while (true)
        {
            int count;
            try
            {
                count = await _socket.ReceiveAsync(_framer.Next, _arrived, cancellation).ConfigureAwait(false);
            }
            catch (LinuxException error) when (error.Errno == Errno.ConnectionReset)
            {
                count = 0;
            }

            if (count == 0)
            {
                return _framer.IsInMessage
                    ? throw new ProtocolException(
                        "message", "size", "the connection ended within a message") { IsFatal = true }
                    : null;
            }

            Attachment[] attachments = [.. _arrived.Select(descriptor => new DescriptorAttachment(descriptor))];
            _arrived.Clear();
            VhostUserMessage? message = _framer.Advance(count, attachments);
            if (message is not null)
            {
                return message;
            }
        }
    }

    /// <inheritdoc/>
    public override Task WaitForCloseAsync(CancellationToken cancellation = default) =>
        _socket.WaitForHangUpAsync(cancellation);

    /// <inheritdoc/>
    public override async ValueTask SendAsync(VhostUserMessage message, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(message);
        using (message)
        {
            MessageHeader header = new(message.Request, message.Flags, (uint)message.Payload.Length);
            byte[] bytes = VhostUserMessage.PayloadOf(header, message.Payload.Span);
            FileDescriptor[] descriptors =
                [.. message.Attachments.Select(attachment => ((DescriptorAttachment)attachment).Lend())];
            await _socket.SendAsync(bytes, descriptors, cancellation).ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    public override SharedMemory CreateSharedMemory(string name, ulong sizeBytes) =>
        new FileSharedMemory(MemFd.Create(name, sizeBytes));

    /// <inheritdoc/>
    public override Attachment Attach(SharedMemory memory) =>
        new DescriptorAttachment(((FileSharedMemory)memory).Descriptor.Duplicate());

    /// <inheritdoc/>
    public override Attachment Attach(UserFaults faults)
    {
        ArgumentNullException.ThrowIfNull(faults);
        return new DescriptorAttachment(faults.Descriptor.Duplicate());
    }

    /// <inheritdoc/>
    public override (StateStream Kept, Attachment Passed) CreateStateStream(bool peerWrites)
    {
        (FileDescriptor reading, FileDescriptor writing) = ByteStream.CreatePipe();
        (FileDescriptor kept, FileDescriptor passed) = peerWrites ? (reading, writing) : (writing, reading);
        return (new DescriptorStateStream(new ByteStream(kept)), new DescriptorAttachment(passed));
    }

    /// <inheritdoc/>
    public override bool HasEnded => _socket.HasEnded;

    /// <inheritdoc/>
    public override void Close() => _socket.Shutdown();

    /// <inheritdoc/>
    public override ValueTask DisposeAsync()
    {
        foreach (FileDescriptor descriptor in _arrived)
        {
            descriptor.Dispose();
        }

        _framer.Abandon();
        _socket.Dispose();
        return ValueTask.CompletedTask;
    }
}
