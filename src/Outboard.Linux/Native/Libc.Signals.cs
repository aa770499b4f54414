// sigaction for SIGBUS.
using System.Runtime.InteropServices;

namespace Outboard.Linux.Native;

internal static partial class Libc
{
    internal const int SIGBUS = 7;
    internal const int SA_SIGINFO = 4;
    internal const int SA_ONSTACK = 0x08000000;
    internal const int SA_RESTART = 0x10000000;
    internal const int SA_RESETHAND = unchecked((int)0x80000000);

    /// <summary>
    /// The C library's <c>struct sigaction</c> (glibc and musl, x64 and arm64): 0 handler, 8 mask (128 bytes), 136
    /// flags, 144 restorer; 152 bytes.
    /// </summary>
    [StructLayout(LayoutKind.Explicit, Size = 152)]
    internal struct SignalAction
    {
        [FieldOffset(0)]
        internal nuint Handler;
        [FieldOffset(136)]
        internal int Flags;
    }

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial int sigaction(int signal, SignalAction* action, SignalAction* previous);

    [LibraryImport("libc", SetLastError = true)]
    internal static unsafe partial int mprotect(void* address, nuint length, int protection);
}
