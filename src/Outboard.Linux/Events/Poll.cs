// poll(2) on one descriptor.
using System.Runtime.InteropServices;
using Outboard.Linux.Native;

namespace Outboard.Linux.Events
{
    internal static class Poll
    {
        private const short POLLIN = 1;
        private const short POLLOUT = 4;
        private const short POLLRDHUP = 0x2000;

        /// <summary>Waits until a read would not block.</summary>
        internal static bool IsReadable(int number, int timeoutMs) => IsReady(number, POLLIN, timeoutMs);

        /// <summary>Whether a write would not block now.</summary>
        internal static bool IsWritable(int number) => IsReady(number, POLLOUT, timeoutMs: 0);

        /// <summary>Whether the other end of a stream socket sends no more; bytes of before may be there.</summary>
        internal static bool HasEnded(int number) => IsReady(number, POLLRDHUP, timeoutMs: 0, ends: true);

        /// <summary>Waits until a read or a write would not block: it moves bytes, or tells of an end.</summary>
        internal static bool IsReadyOrEnded(int number, bool writes, int timeoutMs) =>
            IsReady(number, writes ? POLLOUT : POLLIN, timeoutMs, ends: true);

        // SAFETY: the kernel reads and writes one struct pollfd on the stack.
        private static unsafe bool IsReady(int number, short events, int timeoutMs, bool ends = false)
        {
            Libc.PollDescriptor entry = new() { Number = number, Events = events };
            while (true)
            {
                int ready = Libc.poll(&entry, 1, timeoutMs);
                int errno = Libc.LastError();
                if (ready >= 0)
                {
                    return ready > 0 && (ends || (entry.Returned & events) != 0);
                }

                if (errno != Errno.Interrupted)
                {
                    throw new LinuxException("poll", errno);
                }
            }
        }
    }
}

namespace Outboard.Linux.Native
{
    internal static partial class Libc
    {
        [StructLayout(LayoutKind.Sequential)]
        internal struct PollDescriptor
        {
            internal int Number;
            internal short Events;
            internal short Returned;
        }

        [LibraryImport("libc", SetLastError = true)]
        internal static unsafe partial int poll(PollDescriptor* entries, nuint count, int timeoutMs);
    }
}
