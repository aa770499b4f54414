// Sockets by address and the ioctls of tap devices. Numbers are those of x64 and arm64.
using System.Runtime.InteropServices;

namespace Outboard.Linux.Native;

internal static partial class Libc
{
    internal const int AF_INET = 2;
    internal const int SOCK_DGRAM = 2;
    internal const int SOCK_NONBLOCK = 0x800;

    internal const nuint TUNSETIFF = 0x400454CA;
    internal const nuint TUNSETOFFLOAD = 0x400454D0;
    internal const nuint TUNSETVNETHDRSZ = 0x400454D8;
    internal const nuint TUNSETQUEUE = 0x400454D9;
    internal const nuint TUNSETVNETLE = 0x400454DC;
    internal const nuint SIOCGIFMTU = 0x8921;
    internal const nuint SIOCSIFMTU = 0x8922;

    internal const ushort IFF_TAP = 0x2;
    internal const ushort IFF_MULTI_QUEUE = 0x100;
    internal const ushort IFF_ATTACH_QUEUE = 0x200;
    internal const ushort IFF_DETACH_QUEUE = 0x400;
    internal const ushort IFF_NO_PI = 0x1000;
    internal const ushort IFF_VNET_HDR = 0x4000;

    [LibraryImport("libc", SetLastError = true)]
    internal static partial int socket(int domain, int type, int protocol);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial int bind(int socket, void* address, uint length);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial int connect(int socket, void* address, uint length);
}
