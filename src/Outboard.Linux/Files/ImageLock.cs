// The lock by which programs that serve disk images keep out of each other's way: QEMU's scheme, on open file
// description locks (F_OFD_SETLK), so that both respect each other.
//
// A byte stands for each permission. Whoever uses a permission holds a read lock on byte 100 + p; whoever does not
// share it holds one on byte 200 + p. After taking its own locks each side looks for what it cannot live with: a user
// of what it does not share, or somebody who does not share what it uses. Two programs that start together may both
// give up; never do both go on. A reader that tolerates writers (qemu-img info -U) stays possible.
using Outboard.Linux.Native;

namespace Outboard.Linux.Files;

/// <summary>Takes and checks the locks of an image.</summary>
internal static class ImageLock
{
    private const int UsedBytes = 100;
    private const int UnsharedBytes = 200;
    private const int ConsistentRead = 0;
    private const int Write = 1;
    private const int Resize = 3;

    /// <summary>Locks for one writer, or for any number of readers.</summary>
    /// <returns>0, or the negative errno; -EAGAIN when another program is in the way. Nothing stays locked
    /// then.</returns>
    internal static int TryTake(int number, bool writes)
    {
        ReadOnlySpan<int> used = writes ? [ConsistentRead, Write] : [ConsistentRead];
        ReadOnlySpan<int> unshared = [Write, Resize];
        int result = Take(number, used, UsedBytes);
        result = result == 0 ? Take(number, unshared, UnsharedBytes) : result;
        result = result == 0 ? Check(number, used, UnsharedBytes) : result;
        result = result == 0 ? Check(number, unshared, UsedBytes) : result;
        if (result != 0)
        {
            Release(number);
        }

        return result;
    }

    /// <summary>Lets go of whatever was taken.</summary>
    internal static void Release(int number) => _ = Set(number, Libc.F_UNLCK, UsedBytes, UnsharedBytes);

    private static int Take(int number, ReadOnlySpan<int> permissions, int first)
    {
        int result = 0;
        for (int i = 0; i < permissions.Length && result == 0; i++)
        {
            result = Set(number, Libc.F_RDLCK, first + permissions[i], 1);
        }

        return result;
    }

    private static int Check(int number, ReadOnlySpan<int> permissions, int first)
    {
        int result = 0;
        for (int i = 0; i < permissions.Length && result == 0; i++)
        {
            result = IsHeldElsewhere(number, first + permissions[i]);
        }

        return result;
    }

    // SAFETY: the kernel reads one struct flock on the stack.
    private static unsafe int Set(int number, short type, long start, long length)
    {
        Libc.FileLock range = new() { Type = type, Start = start, Length = length };
        int result = Libc.FcntlLock(number, Libc.F_OFD_SETLK, &range);
        int errno = Libc.LastError();
        return result == 0 ? 0 : errno == Errno.AccessDenied ? -Errno.TryAgain : -errno;
    }

    /// <summary>
    /// Whether another open file description holds a lock there: 0, -EAGAIN, or another negative errno.
    /// </summary>
    // SAFETY: the kernel reads and writes one struct flock on the stack.
    private static unsafe int IsHeldElsewhere(int number, long start)
    {
        Libc.FileLock range = new() { Type = Libc.F_WRLCK, Start = start, Length = 1 };
        int result = Libc.FcntlLock(number, Libc.F_OFD_GETLK, &range);
        int errno = Libc.LastError();
        return result != 0 ? -errno : range.Type == Libc.F_UNLCK ? 0 : -Errno.TryAgain;
    }
}
