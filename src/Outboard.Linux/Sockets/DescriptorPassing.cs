// Bytes and file descriptors in one call, without waiting. The unsafe half of UnixSocket.
using System.Runtime.InteropServices;
using Outboard.Linux.Native;

namespace Outboard.Linux.Sockets;

internal static class DescriptorPassing
{
    /// <summary>Receives up to <paramref name="buffer"/>.Length bytes; received descriptors are appended,
    /// close-on-exec.</summary>
    /// <returns>Bytes received, 0 at the end of the stream, -1 when nothing is there now.</returns>
    /// <exception cref="LinuxException">The connection failed, or the kernel had to drop descriptors
    /// (MSG_CTRUNC).</exception>
    // SAFETY: every pointer is to a fixed buffer or to the stack and outlives the call; lengths are the buffers' own.
    internal static unsafe int TryReceive(FileDescriptor socket, Span<byte> buffer, List<FileDescriptor> descriptors)
    {
        const int controlBytes = Libc.ControlHeaderBytes + (4 * (Libc.MaxDescriptorsPerMessage + 3));
        byte* control = stackalloc byte[controlBytes];
        nint received;
        int errno;
        Libc.MessageHeader message = default;
        fixed (byte* bytes = buffer)
        {
            Libc.IoVector segment = new() { Base = bytes, Length = (nuint)buffer.Length };
            message.Segments = &segment;
            message.SegmentCount = 1;
            do
            {
                message.Control = control;
                message.ControlLength = controlBytes;
                received = Libc.recvmsg(socket.Number, &message, Libc.MSG_DONTWAIT | Libc.MSG_CMSG_CLOEXEC);
                errno = Libc.LastError();
            }
            while (received < 0 && errno == Errno.Interrupted);
        }

        if (received < 0)
        {
            return errno == Errno.TryAgain ? -1 : throw new LinuxException("recvmsg", errno);
        }

        TakeDescriptors(control, (int)message.ControlLength, descriptors);
        if ((message.Flags & Libc.MSG_CTRUNC) != 0)
        {
            const string remedy = "descriptors were dropped: raise the limit of open files";
            throw new LinuxException("recvmsg", Errno.Protocol, remedy);
        }

        return (int)received;
    }

    /// <summary>Sends bytes, with the descriptors on the first of them.</summary>
    /// <returns>Bytes accepted, -1 when the socket's buffer is full.</returns>
    // SAFETY: as above; the control buffer holds exactly the descriptors that are counted.
    internal static unsafe int TrySend(
        FileDescriptor socket, ReadOnlySpan<byte> buffer, ReadOnlySpan<FileDescriptor> descriptors)
    {
        ArgumentOutOfRangeException.ThrowIfGreaterThan(descriptors.Length, Libc.MaxDescriptorsPerMessage);
        int payloadBytes = Libc.ControlHeaderBytes + (4 * descriptors.Length);
        int controlBytes = (payloadBytes + 7) & ~7;
        byte* control = stackalloc byte[controlBytes];
        new Span<byte>(control, controlBytes).Clear();
        *(nuint*)control = (nuint)payloadBytes;
        *(int*)(control + 8) = Libc.SOL_SOCKET;
        *(int*)(control + 12) = Libc.SCM_RIGHTS;
        for (int i = 0; i < descriptors.Length; i++)
        {
            ((int*)(control + Libc.ControlHeaderBytes))[i] = descriptors[i].Number;
        }

        nint sent;
        int errno;
        fixed (byte* bytes = buffer)
        {
            Libc.IoVector segment = new() { Base = bytes, Length = (nuint)buffer.Length };
            Libc.MessageHeader message = default;
            message.Segments = &segment;
            message.SegmentCount = 1;
            message.Control = descriptors.IsEmpty ? null : control;
            message.ControlLength = descriptors.IsEmpty ? 0 : (nuint)controlBytes;
            do
            {
                sent = Libc.sendmsg(socket.Number, &message, Libc.MSG_DONTWAIT | Libc.MSG_NOSIGNAL);
                errno = Libc.LastError();
            }
            while (sent < 0 && errno == Errno.Interrupted);
        }

        if (sent < 0)
        {
            return errno == Errno.TryAgain ? -1 : throw new LinuxException("sendmsg", errno);
        }

        return (int)sent;
    }

    /// <summary>An integer socket option.</summary>
    // SAFETY: value and length are locals of the size that the kernel is told.
    internal static unsafe int GetOption(FileDescriptor socket, int option)
    {
        int value = 0;
        uint length = sizeof(int);
        int result = Libc.getsockopt(socket.Number, Libc.SOL_SOCKET, option, &value, &length);
        int errno = Libc.LastError();
        return result == 0 ? value : throw new LinuxException("getsockopt", errno, "the descriptor is no socket");
    }

    /// <summary>A connected pair of UNIX sockets.</summary>
    // SAFETY: the kernel writes two integers into an array of two.
    internal static unsafe (FileDescriptor First, FileDescriptor Second) CreatePair(int type = Libc.SOCK_STREAM)
    {
        int* pair = stackalloc int[2];
        int result = Libc.socketpair(Libc.AF_UNIX, type | Libc.SOCK_CLOEXEC, 0, pair);
        int errno = Libc.LastError();
        return result == 0
            ? (new FileDescriptor(pair[0]), new FileDescriptor(pair[1]))
            : throw new LinuxException("socketpair", errno);
    }

    // SAFETY: walks the control messages within the length that the kernel reported; each header is checked to fit.
    private static unsafe void TakeDescriptors(byte* control, int length, List<FileDescriptor> descriptors)
    {
        int offset = 0;
        while (length - offset >= Libc.ControlHeaderBytes)
        {
            int size = (int)*(nuint*)(control + offset);
            if (size < Libc.ControlHeaderBytes || size > length - offset)
            {
                return;
            }

            if (*(int*)(control + offset + 8) == Libc.SOL_SOCKET && *(int*)(control + offset + 12) == Libc.SCM_RIGHTS)
            {
                int* numbers = (int*)(control + offset + Libc.ControlHeaderBytes);
                for (int i = 0; i < (size - Libc.ControlHeaderBytes) / 4; i++)
                {
                    descriptors.Add(new FileDescriptor(numbers[i]));
                }
            }

            offset += (size + 7) & ~7;
        }
    }
}
