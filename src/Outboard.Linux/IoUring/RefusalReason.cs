// Why a system refuses io_uring, in words that say what to do about it.
namespace Outboard.Linux.IoUring;

internal static class RefusalReason
{
    private const string SysctlPath = "/proc/sys/kernel/io_uring_disabled";

    /// <summary>The likely reason for the errno of io_uring_setup, and the remedy.</summary>
    internal static string Describe(int errno) => Describe(errno, ReadSysctl());

    /// <summary>As above, for a given value of the sysctl (-1: it does not exist).</summary>
    internal static string Describe(int errno, int sysctl) => errno switch
    {
        Errno.NotPermitted when sysctl > 0 =>
            $"kernel.io_uring_disabled is {sysctl}: set it to 0, or use the engine 'threads'",
        Errno.NotPermitted =>
            "a seccomp filter (of a container or service manager) forbids io_uring: allow io_uring_setup, "
            + "io_uring_enter and io_uring_register in its profile, or use the engine 'threads'",
        Errno.NotImplemented =>
            "this kernel has no io_uring, or a seccomp filter hides it: use the engine 'threads'",
        Errno.NoMemory =>
            "the limit of locked memory is too low for this kernel: raise RLIMIT_MEMLOCK, or use the engine 'threads'",
        Errno.InvalidArgument =>
            "this kernel knows none of the wanted modes: use the engine 'threads'",
        _ => "use the engine 'threads'",
    };

    private static int ReadSysctl()
    {
        try
        {
            return int.TryParse(File.ReadAllText(SysctlPath), out int value) ? value : -1;
        }
        catch (IOException)
        {
            return -1;
        }
        catch (UnauthorizedAccessException)
        {
            return -1;
        }
    }
}
