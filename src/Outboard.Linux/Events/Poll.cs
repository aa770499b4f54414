// poll(2) on one descriptor.
using System.Runtime.InteropServices;
using Outboard.Linux.Native;

namespace Outboard.Linux.Events
{
    internal static class Poll
    {
        private const short POLLIN = 1;

        // SAFETY: the kernel reads and writes one struct pollfd on the stack.
        internal static unsafe bool IsReadable(int number, int timeoutMs)
        {
            Libc.PollDescriptor entry = new() { Number = number, Events = POLLIN };
            while (true)
            {
                int ready = Libc.poll(&entry, 1, timeoutMs);
                int errno = Libc.LastError();
                if (ready >= 0)
                {
                    return ready > 0 && (entry.Returned & POLLIN) != 0;
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
