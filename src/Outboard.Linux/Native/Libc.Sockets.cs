// recvmsg and sendmsg with SCM_RIGHTS on stream sockets.
// Layouts (x64 and arm64): msghdr 0 name, 8 namelen, 16 iov, 24 iovlen, 32 control, 40 controllen, 48 flags (56 bytes);
// cmsghdr 0 len (u64), 8 level, 12 type, 16 data.
using System.Runtime.InteropServices;

namespace Outboard.Linux.Native;

internal static partial class Libc
{
    internal const int SOL_SOCKET = 1;
    internal const int SO_ACCEPTCONN = 30;
    internal const int SO_DOMAIN = 39;
    internal const int SO_TYPE = 3;
    internal const int AF_UNIX = 1;
    internal const int SOCK_STREAM = 1;
    internal const int SOCK_CLOEXEC = 0x80000;
    internal const int SCM_RIGHTS = 1;
    internal const int MSG_CTRUNC = 0x8;
    internal const int MSG_DONTWAIT = 0x40;
    internal const int MSG_NOSIGNAL = 0x4000;
    internal const int MSG_CMSG_CLOEXEC = 0x40000000;

    /// <summary>The kernel's own limit of descriptors in one message (SCM_MAX_FD); a buffer for all of them never
    /// truncates.</summary>
    internal const int MaxDescriptorsPerMessage = 253;

    internal const int ControlHeaderBytes = 16;

    // SAFETY: a layout; its pointers are set, and followed by the kernel, within one system call.
    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct MessageHeader
    {
        internal void* Name;
        internal uint NameLength;
        internal IoVector* Segments;
        internal nuint SegmentCount;
        internal byte* Control;
        internal nuint ControlLength;
        internal int Flags;
    }

    // SAFETY: as MessageHeader.
    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct IoVector
    {
        internal void* Base;
        internal nuint Length;
    }

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial nint recvmsg(int socket, MessageHeader* message, int flags);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial nint sendmsg(int socket, MessageHeader* message, int flags);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial int getsockopt(int socket, int level, int option, int* value, uint* length);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial int socketpair(int domain, int type, int protocol, int* pair);
}
