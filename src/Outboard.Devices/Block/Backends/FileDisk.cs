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

    private FileDisk(BlockFile file) => File = file;

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
    /// <exception cref="LinuxException">It cannot be opened, is locked, or has no usable size.</exception>
    public static FileDisk Open(string path, bool readOnly = false, bool direct = false, bool locked = true)
    {
        BlockFile file = BlockFile.Open(path, readOnly, direct);
        try
        {
            if (file.SizeBytes == 0 || file.SizeBytes % 512 != 0)
            {
                string problem = $"{path} has {file.SizeBytes} bytes: a disk has a multiple of 512, not 0";
                throw new LinuxException("open", Errno.InvalidArgument, problem);
            }

            if (locked && !WaitForLock(file, exclusive: !readOnly))
            {
                string problem = $"{path} is in use by another process: stop that one first";
                throw new LinuxException("open", Errno.Busy, problem);
            }

            return new FileDisk(file);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    /// <inheritdoc/>
    public override DiskQueue OpenQueue(QueueContext context, IDiskQueueOwner owner, int depth) =>
        new FileDiskQueue(this, context, owner, depth);

    /// <inheritdoc/>
    public override long RefreshSize() => File.RefreshSize();

    /// <inheritdoc/>
    public override int Flush() => IsReadOnly ? 0 : File.DataSync();

    /// <inheritdoc/>
    public override void Dispose() => File.Dispose();

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
