// Why a file cannot be opened or locked, in words that say what to do about it.
namespace Outboard.Linux.Files;

internal static class BlockFileRefusal
{
    private const int TextFileBusy = 26;
    private const int NoDeviceOrAddress = 6;

    internal static string Describe(string path, int errno, bool readOnly, bool direct) => errno switch
    {
        Errno.NoEntry => $"{path} does not exist: create it first",
        Errno.AccessDenied or Errno.NotPermitted when !readOnly =>
            $"{path}: this user may not write it; change its permissions or open it read-only",
        Errno.AccessDenied or Errno.NotPermitted => $"{path}: this user may not read it; change its permissions",
        Errno.ReadOnlyFileSystem => $"{path} is on a read-only file system: open it read-only",
        Errno.InvalidArgument when direct =>
            $"{path} is on a file system without O_DIRECT: open it with the page cache",
        Errno.IsDirectory => $"{path} is a directory",
        NoDeviceOrAddress => $"{path}: the device behind it is gone, or it is no file",
        TextFileBusy => $"{path} is being executed",
        _ => path,
    };

    internal static string DescribeLock(string path, int errno) => errno switch
    {
        Errno.BadDescriptor => $"{path} is open read-only and cannot be locked for writing",
        _ => $"{path}: its file system has no open file description locks; serve it without a lock",
    };
}
