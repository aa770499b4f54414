// A disk in a raw image file or on a block device.
using Outboard.Linux;
using Outboard.Linux.Files;
using Outboard.Virtio;

namespace Outboard.Devices.Block.Backends;

/// <summary>A raw image file or a block device.</summary>
public sealed class FileDisk : Disk
{
    /// <summary>
    /// How long a locked file may become free. A process that was killed with io_uring operations in flight leaves its
    /// lock behind for 30 to 170 ms, since the kernel ends the ring later than the process; whoever restarts it at once
    /// must not fail for that.
    /// </summary>
    private const int LockWaitMs = 2000;

    private const int LockRetryMs = 5;

    private readonly bool _locks;
    private bool _isLocked;

    private FileDisk(BlockFile file, bool locks, bool isLocked)
    {
        File = file;
        _locks = locks;
        _isLocked = isLocked;
    }

    /// <inheritdoc/>
    public override long SizeBytes => File.SizeBytes;

    /// <inheritdoc/>
    public override int BlockSize => Math.Max(File.IsDirect ? File.DirectOffsetAlignment : 1, 512);

    /// <inheritdoc/>
    public override int PhysicalBlockSize => Math.Max(BlockSize, 4096);

    /// <inheritdoc/>
    public override bool IsReadOnly => File.IsReadOnly;

    /// <inheritdoc/>
    public override string Description =>
        $"{File.Path}, {SizeBytes} bytes" +
        $"{(IsReadOnly ? ", read-only" : string.Empty)}{(File.IsDirect ? ", direct" : string.Empty)}";

    internal BlockFile File { get; }

    /// <summary>Opens an image or a device.</summary>
    /// <param name="path">Its path.</param>
    /// <param name="readOnly">Never write.</param>
    /// <param name="direct">Bypass the page cache.</param>
    /// <param name="locked">Refuse to open what another process serves for writing (or, for writing, at all).</param>
    /// <param name="incoming">
    /// Lock it only when it is used: another process serves it until then (see <see cref="AcquireAsync"/>).
    /// </param>
    /// <exception cref="LinuxException">It cannot be opened, is locked, or has no usable size.</exception>
    public static FileDisk Open(
        string path, bool readOnly = false, bool direct = false, bool locked = true, bool incoming = false)
    {
        BlockFile file = BlockFile.Open(path, readOnly, direct);
        try
        {
            if (file.SizeBytes == 0 || file.SizeBytes % 512 != 0)
            {
                string problem = $"{path} has {file.SizeBytes} bytes: a disk has a multiple of 512, not 0";
                throw new LinuxException("open", Errno.InvalidArgument, problem);
            }

            if (locked && !incoming && !WaitForLock(file, exclusive: !readOnly))
            {
                throw InUse(file);
            }

            return new FileDisk(file, locked, isLocked: locked && !incoming);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override DiskQueue OpenQueue(IoContext context, IDiskQueueOwner owner, int depth) =>
        new FileDiskQueue(this, context, owner, depth);

    /// <inheritdoc/>
    public override long RefreshSize() => File.RefreshSize();

    /// <inheritdoc/>
    public override int Flush() => IsReadOnly ? 0 : File.DataSync();

    /// <inheritdoc/>
    public override async Task AcquireAsync()
    {
        if (!_locks || _isLocked)
        {
            return;
        }

        long start = Environment.TickCount64;
        while (!File.TryLock(exclusive: !IsReadOnly))
        {
            if (Environment.TickCount64 - start > LockWaitMs)
            {
                throw InUse(File);
            }

            await Task.Delay(LockRetryMs).ConfigureAwait(false);
        }

        _isLocked = true;
        File.RefreshSize();
    }

    /// <inheritdoc/>
    public override void Release()
    {
        if (_isLocked)
        {
            File.Unlock();
            _isLocked = false;
        }
    }

    /// <inheritdoc/>
    public override void Dispose() => File.Dispose();

    private static LinuxException InUse(BlockFile file) =>
        new("open", Errno.Busy, $"{file.Path} is in use by another process: stop that one first");

    private static bool WaitForLock(BlockFile file, bool exclusive)
    {
        long start = Environment.TickCount64;
        while (!file.TryLock(exclusive))
        {
            if (Environment.TickCount64 - start > LockWaitMs)
            {
                return false;
            }

            Thread.Sleep(LockRetryMs);
        }

        return true;
    }
}
