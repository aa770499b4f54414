// Pseudo terminals and terminal modes, by ioctl: numbers and layouts of x64 and arm64.
using System.Runtime.InteropServices;

namespace Outboard.Linux.Native;

internal static partial class Libc
{
    internal const nuint TCGETS = 0x5401;
    internal const nuint TCSETS = 0x5402;
    internal const nuint TIOCGPTN = 0x80045430;
    internal const nuint TIOCSPTLCK = 0x40045431;

    /// <summary>IGNBRK, BRKINT, PARMRK, ISTRIP, INLCR, IGNCR, ICRNL, IXON.</summary>
    internal const uint CookedInput = 0x5EB;

    /// <summary>OPOST.</summary>
    internal const uint CookedOutput = 0x1;

    /// <summary>ISIG, ICANON, ECHO, ECHONL, IEXTEN.</summary>
    internal const uint CookedLocal = 0x804B;

    /// <summary>ISIG.</summary>
    internal const uint SignalCharacters = 0x1;

    /// <summary>CSIZE, PARENB.</summary>
    internal const uint CharacterSizeAndParity = 0x130;

    /// <summary>CS8.</summary>
    internal const uint EightBits = 0x30;

    /// <summary><c>struct termios</c> of the kernel: 0 input, 4 output, 8 control, 12 local (u32), 16 line (u8), 17
    /// control characters (19 bytes); 36 bytes.</summary>
    // SAFETY: a buffer of fixed size inside the struct, which only the kernel fills and reads.
    [StructLayout(LayoutKind.Sequential)]
    internal unsafe struct TerminalMode
    {
        internal uint Input;
        internal uint Output;
        internal uint Control;
        internal uint Local;
        internal fixed byte Characters[20];
    }
}
