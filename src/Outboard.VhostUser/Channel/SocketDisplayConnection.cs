// A display connection on a UNIX socket, as GPU_SET_SOCKET hands one over. The header is that of vhost-user, without a
// version: 0 request u32, 4 flags u32 (bit 2: reply), 8 size u32; then the payload, pictures included.
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Linux.Sockets;
using Outboard.Memory;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;

namespace Outboard.VhostUser.Channel;

/// <summary>A display connection on a UNIX stream socket; a picture's memory is a descriptor.</summary>
/// <param name="socket">The socket, owned from now on.</param>
public sealed class SocketDisplayConnection(UnixSocket socket) : DisplayConnection
{
    /// <summary>Largest payload: a screen of 8192 x 8192 pixels of 4 bytes, and the rectangle before it.</summary>
    private const uint MaxPayloadBytes = (8192 * 8192 * 4) + 20;

    private readonly List<FileDescriptor> _arrived = [];

    /// <inheritdoc/>
    public override ValueTask SendAsync(DisplayMessage message, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(message);
        MessageHeader header = new(
            message.Request, message.IsReply ? MessageFlags.Reply : 0, (uint)message.Payload.Length);
        byte[] bytes = VhostUserMessage.PayloadOf(header, message.Payload.Span);
        FileDescriptor[] descriptors = message.Picture is FileSharedMemory file ? [file.Descriptor] : [];
        return socket.SendAsync(bytes, descriptors, cancellation);
    }

    /// <inheritdoc/>
    public override async ValueTask<DisplayMessage?> ReceiveAsync(CancellationToken cancellation = default)
    {
        byte[] head = new byte[MessageHeader.Bytes];
        if (!await ReadAsync(head, mayEnd: true, cancellation).ConfigureAwait(false))
        {
            return null;
        }

        MessageHeader header = MemoryMarshal.Read<MessageHeader>(head);
        if (header.SizeBytes > MaxPayloadBytes)
        {
            throw new IOException($"display message {header.Request}: {header.SizeBytes} bytes are too many");
        }

        byte[] payload = new byte[header.SizeBytes];
        await ReadAsync(payload, mayEnd: false, cancellation).ConfigureAwait(false);
        SharedMemory? picture = _arrived.Count == 1 ? new FileSharedMemory(_arrived[0]) : null;
        DropArrived(picture is null ? 0 : 1);
        return new DisplayMessage(header.Request, (header.Flags & MessageFlags.Reply) != 0, payload, picture);
    }

    /// <inheritdoc/>
    public override ValueTask DisposeAsync()
    {
        socket.Shutdown();
        DropArrived(0);
        socket.Dispose();
        return ValueTask.CompletedTask;
    }

    private async ValueTask<bool> ReadAsync(Memory<byte> bytes, bool mayEnd, CancellationToken cancellation)
    {
        for (int filled = 0; filled < bytes.Length;)
        {
            int count = await socket.ReceiveAsync(bytes[filled..], _arrived, cancellation).ConfigureAwait(false);
            if (count == 0)
            {
                return mayEnd && filled == 0
                    ? false
                    : throw new IOException("the display connection ended within a message");
            }

            filled += count;
        }

        return true;
    }

    private void DropArrived(int keep)
    {
        foreach (FileDescriptor descriptor in _arrived.Skip(keep))
        {
            descriptor.Dispose();
        }

        _arrived.Clear();
    }
}
