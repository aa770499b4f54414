// A regular file or a block device as the storage of a disk: size, alignment, reads and writes that wait or refuse to
// wait, discard, zeroes, and a lock against a second user.
// Not here: image formats, caching, asynchronous I/O (see FileIoEngine).
using Outboard.Linux.Native;

namespace Outboard.Linux.Files;

/// <summary>An open regular file or block device. Members may be called from any thread.</summary>
/// <remarks>
/// Reads, writes, discard and zeroes return the bytes moved (0 where there are none) or the negative errno, never throw
/// for what the storage does, and do not retry short transfers.
/// </remarks>
public sealed class BlockFile : IDisposable
{
    private const int DefaultAlignment = 512;
    private const int CautiousAlignment = 4096;

    private volatile bool _canReadNow = true;
    private volatile bool _canWriteNow = true;
    private long _sizeBytes;

    private BlockFile(FileDescriptor descriptor, string path, bool readOnly, bool direct)
    {
        Descriptor = descriptor;
        Number = descriptor.Number;
        Path = path;
        IsReadOnly = readOnly;
        IsDirect = direct;
        FileKind kind = descriptor.Kind;
        if (kind is not (FileKind.Regular or FileKind.BlockDevice))
        {
            string subject = $"{path} is neither a regular file nor a block device";
            throw new LinuxException("open", Errno.InvalidArgument, subject);
        }

        IsBlockDevice = kind == FileKind.BlockDevice;
        (LogicalBlockSize, DirectMemoryAlignment, DirectOffsetAlignment) = FindAlignment();
        RefreshSize();
    }

    private BlockFile(FileDescriptor stream)
    {
        Descriptor = stream;
        Number = stream.Number;
        Path = "a stream";
        (LogicalBlockSize, DirectMemoryAlignment, DirectOffsetAlignment) = (DefaultAlignment, 1, 1);
    }

    /// <summary>A stream in the place of a file: its reads need not end. For tests of cancellation.</summary>
    internal static BlockFile OfStream(FileDescriptor stream) => new(stream);

    /// <summary>The descriptor, owned by this object.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>The path it was opened by; for messages.</summary>
    public string Path { get; }

    /// <summary>Whether it was opened for reading only.</summary>
    public bool IsReadOnly { get; }

    /// <summary>Whether it was opened with O_DIRECT: offsets, lengths and addresses must be aligned.</summary>
    public bool IsDirect { get; }

    /// <summary>Whether it is a block device.</summary>
    public bool IsBlockDevice { get; }

    /// <summary>The smallest unit that the storage writes: the device's sector; 512 for a file.</summary>
    public int LogicalBlockSize { get; }

    /// <summary>What addresses must be multiples of when <see cref="IsDirect"/>; 1 otherwise.</summary>
    public int DirectMemoryAlignment { get; }

    /// <summary>What offsets and lengths must be multiples of when <see cref="IsDirect"/>; 1 otherwise.</summary>
    public int DirectOffsetAlignment { get; }

    /// <summary>The larger of both alignments.</summary>
    public int DirectAlignment => Math.Max(DirectMemoryAlignment, DirectOffsetAlignment);

    /// <summary>The size when it was last read; see <see cref="RefreshSize"/>.</summary>
    public long SizeBytes => Volatile.Read(ref _sizeBytes);

    /// <summary>Whether <see cref="TryReadNow"/> may succeed: false once the file system refused the flag.</summary>
    public bool SupportsReadNow => _canReadNow;

    /// <summary>Whether <see cref="TryWriteNow"/> may succeed: false once the file system refused the flag.</summary>
    public bool SupportsWriteNow => _canWriteNow;

    internal int Number { get; }

    /// <summary>Opens an existing file or block device.</summary>
    /// <param name="path">Its path.</param>
    /// <param name="readOnly">Never write.</param>
    /// <param name="direct">Bypass the page cache (O_DIRECT).</param>
    /// <exception cref="LinuxException">It cannot be opened so; the message says what to do.</exception>
    public static BlockFile Open(string path, bool readOnly = false, bool direct = false)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);

        // Non-blocking only so that a named pipe cannot hold us up; cleared below.
        int flags = Libc.O_CLOEXEC | Libc.O_NOCTTY | Libc.O_NONBLOCK;
        flags |= readOnly ? Libc.O_RDONLY : Libc.O_RDWR;
        flags |= direct ? Libc.O_DIRECT : 0;
        int number = Libc.open(path, flags, 0);
        int errno = Libc.LastError();
        if (number < 0)
        {
            throw new LinuxException("open", errno, BlockFileRefusal.Describe(path, errno, readOnly, direct));
        }

        return Wrap(new FileDescriptor(number), path, readOnly, direct);
    }

    /// <summary>Takes ownership of a descriptor that was opened elsewhere; how, is asked from the kernel.</summary>
    /// <param name="descriptor">The descriptor.</param>
    /// <param name="name">For messages.</param>
    public static BlockFile FromDescriptor(FileDescriptor descriptor, string name)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        int flags = Libc.fcntl(descriptor.Number, Libc.F_GETFL, 0);
        int errno = Libc.LastError();
        if (flags < 0)
        {
            throw new LinuxException("fcntl(F_GETFL)", errno, name);
        }

        bool readOnly = (flags & Libc.O_ACCMODE) == Libc.O_RDONLY;
        return Wrap(descriptor, name, readOnly, (flags & Libc.O_DIRECT) != 0);
    }

    /// <summary>Reads the size again, after the storage may have been resized.</summary>
    /// <returns>The size in bytes.</returns>
    public long RefreshSize()
    {
        long size = IsBlockDevice ? DeviceSize() : checked((long)Descriptor.FileSizeBytes);
        Volatile.Write(ref _sizeBytes, size);
        return size;
    }

    /// <summary>Reads what is in the page cache, without waiting for storage.</summary>
    /// <returns>Bytes read, perhaps fewer than asked; -EAGAIN when the caller would have to wait.</returns>
    public int TryReadNow(ReadOnlySpan<IoSegment> segments, long offset)
    {
        if (!_canReadNow)
        {
            return -Errno.NotSupported;
        }

        int result = MoveOnce(write: false, segments, offset, Libc.RWF_NOWAIT);
        if (result == -Errno.NotSupported)
        {
            _canReadNow = false;
        }

        return result;
    }

    /// <summary>Writes into the page cache, without waiting for storage.</summary>
    /// <returns>Bytes written, perhaps fewer than asked; -EAGAIN when the caller would have to wait.</returns>
    public int TryWriteNow(ReadOnlySpan<IoSegment> segments, long offset)
    {
        if (!_canWriteNow)
        {
            return -Errno.NotSupported;
        }

        int result = MoveOnce(write: true, segments, offset, Libc.RWF_NOWAIT);
        if (result == -Errno.NotSupported)
        {
            _canWriteNow = false;
        }

        return result;
    }

    /// <summary>Reads, waiting.</summary>
    public int Read(ReadOnlySpan<IoSegment> segments, long offset) => Move(write: false, segments, offset, 0);

    /// <summary>Writes, waiting.</summary>
    /// <param name="segments">What to write, at most 1024 pieces.</param>
    /// <param name="offset">Byte offset in the file.</param>
    /// <param name="durable">The bytes are on stable storage when this returns (RWF_DSYNC).</param>
    public int Write(ReadOnlySpan<IoSegment> segments, long offset, bool durable = false) =>
        Move(write: true, segments, offset, durable ? Libc.RWF_DSYNC : 0);

    /// <summary>Reads into managed memory, waiting; for headers and tables.</summary>
    // SAFETY: the buffer is pinned for the call.
    public unsafe int Read(Span<byte> buffer, long offset)
    {
        fixed (byte* bytes = buffer)
        {
            IoSegment segment = new((nuint)bytes, (nuint)buffer.Length);
            return Move(write: false, new ReadOnlySpan<IoSegment>(in segment), offset, 0);
        }
    }

    /// <summary>Writes from managed memory, waiting; for headers and tables.</summary>
    // SAFETY: the buffer is pinned for the call, and only read.
    public unsafe int Write(ReadOnlySpan<byte> buffer, long offset)
    {
        fixed (byte* bytes = buffer)
        {
            IoSegment segment = new((nuint)bytes, (nuint)buffer.Length);
            return Move(write: true, new ReadOnlySpan<IoSegment>(in segment), offset, 0);
        }
    }

    /// <summary>Waits until everything written is on stable storage.</summary>
    /// <returns>0 or the negative errno.</returns>
    public int DataSync()
    {
        int result = Libc.fdatasync(Number);
        int errno = Libc.LastError();
        return result == 0 ? 0 : -errno;
    }

    /// <summary>Tells the storage that a range is not needed. What it reads as afterwards is zeroes for a file, and the
    /// device's choice for a device.</summary>
    /// <returns>0, or the negative errno; -EOPNOTSUPP where the storage cannot.</returns>
    public int Discard(long offset, long length) => IsBlockDevice
        ? DeviceRange(Libc.BLKDISCARD, offset, length)
        : Allocate(AllocateMode.PunchHole | AllocateMode.KeepSize, offset, length);

    /// <summary>Makes a range read as zeroes without moving data.</summary>
    /// <param name="offset">Where it begins.</param>
    /// <param name="length">Its length.</param>
    /// <param name="mayUnmap">Whether the range may lose its space.</param>
    /// <returns>0, or the negative errno; -EOPNOTSUPP where the storage cannot: then write zeroes.</returns>
    public int WriteZeroes(long offset, long length, bool mayUnmap)
    {
        int result = -Errno.NotSupported;
        if (mayUnmap)
        {
            result = Allocate(AllocateMode.PunchHole | AllocateMode.KeepSize, offset, length);
        }

        if (result != -Errno.NotSupported)
        {
            return result;
        }

        return IsBlockDevice
            ? DeviceRange(Libc.BLKZEROOUT, offset, length)
            : Allocate(AllocateMode.ZeroRange | AllocateMode.KeepSize, offset, length);
    }

    /// <summary>Calls fallocate, waiting.</summary>
    /// <returns>0 or the negative errno.</returns>
    public int Allocate(AllocateMode mode, long offset, long length)
    {
        while (true)
        {
            int result = Libc.fallocate(Number, (int)mode, offset, length);
            int errno = Libc.LastError();
            if (result == 0 || errno != Errno.Interrupted)
            {
                return result == 0 ? 0 : -errno;
            }
        }
    }

    /// <summary>Locks the image for this open file description, so that no second program serves it.</summary>
    /// <param name="exclusive">True for one writer, false for any number of readers.</param>
    /// <returns>False when another program is in the way; nothing is locked then.</returns>
    /// <remarks>The lock ends when the last duplicate of the descriptor is closed, at the latest with the process. It
    /// is advisory, and QEMU's own scheme (see <see cref="ImageLock"/>): QEMU's programs and this one keep each other
    /// out.</remarks>
    /// <exception cref="LinuxException">The file system has no such locks, or the file is open read-only and an
    /// exclusive lock was asked for.</exception>
    public bool TryLock(bool exclusive)
    {
        if (exclusive && IsReadOnly)
        {
            string subject = BlockFileRefusal.DescribeLock(Path, Errno.BadDescriptor);
            throw new LinuxException("fcntl(F_OFD_SETLK)", Errno.BadDescriptor, subject);
        }

        int result = ImageLock.TryTake(Number, exclusive);
        return result switch
        {
            0 => true,
            -Errno.TryAgain => false,
            _ => throw new LinuxException("fcntl(F_OFD_SETLK)", -result, BlockFileRefusal.DescribeLock(Path, -result)),
        };
    }

    /// <summary>Lets go of the lock.</summary>
    public void Unlock() => ImageLock.Release(Number);

    /// <summary>Closes the file. None of its operations may be in flight.</summary>
    public void Dispose() => Descriptor.Dispose();

    private static BlockFile Wrap(FileDescriptor descriptor, string path, bool readOnly, bool direct)
    {
        try
        {
            int flags = Libc.fcntl(descriptor.Number, Libc.F_GETFL, 0);
            _ = Libc.fcntl(descriptor.Number, Libc.F_SETFL, flags & ~Libc.O_NONBLOCK);
            return new BlockFile(descriptor, path, readOnly, direct);
        }
        catch
        {
            descriptor.Dispose();
            throw;
        }
    }

    private int Move(bool write, ReadOnlySpan<IoSegment> segments, long offset, int flags)
    {
        while (true)
        {
            int result = MoveOnce(write, segments, offset, flags);
            if (result != -Errno.Interrupted)
            {
                return result;
            }
        }
    }

    // SAFETY: the segment array is pinned for the call; what the segments name is the caller's promise.
    private unsafe int MoveOnce(bool write, ReadOnlySpan<IoSegment> segments, long offset, int flags)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        fixed (IoSegment* first = segments)
        {
            nint result = write
                ? Libc.pwritev2(Number, first, segments.Length, offset, flags)
                : Libc.preadv2(Number, first, segments.Length, offset, flags);
            int errno = Libc.LastError();
            return result >= 0 ? (int)result : -errno;
        }
    }

    // SAFETY: the kernel reads two 64-bit words from the stack.
    private unsafe int DeviceRange(nuint request, long offset, long length)
    {
        ulong* range = stackalloc ulong[2];
        range[0] = (ulong)offset;
        range[1] = (ulong)length;
        int result = Libc.ioctl(Number, request, range);
        int errno = Libc.LastError();
        return result >= 0 ? 0 : -errno;
    }

    // SAFETY: BLKGETSIZE64 writes one 64-bit word.
    private unsafe long DeviceSize()
    {
        ulong size = 0;
        int result = Libc.ioctl(Number, Libc.BLKGETSIZE64, &size);
        int errno = Libc.LastError();
        return result >= 0 ? checked((long)size) : throw new LinuxException("ioctl(BLKGETSIZE64)", errno, Path);
    }

    // SAFETY: BLKSSZGET writes one int.
    private unsafe int DeviceSectorSize()
    {
        int sector = 0;
        bool told = IsBlockDevice && Libc.ioctl(Number, Libc.BLKSSZGET, &sector) >= 0 && sector > 0;
        return told ? sector : DefaultAlignment;
    }

    private (int Logical, int Memory, int Offset) FindAlignment()
    {
        int logical = DeviceSectorSize();
        if (!IsDirect)
        {
            return (logical, 1, 1);
        }

        Libc.DirectAlignment told = Libc.StatDirectAlignment(Descriptor);
        if (told.Offset > 0)
        {
            return (logical, told.Memory, told.Offset);
        }

        int probed = IsBlockDevice ? logical : ProbeAlignment();
        return (logical, probed, probed);
    }

    /// <summary>For kernels and file systems that do not tell: whether a read of 512 bytes is taken.</summary>
    private int ProbeAlignment()
    {
        using Memory.AlignedBuffer buffer = new(CautiousAlignment);
        IoSegment sector = buffer.Segment.Slice(DefaultAlignment, DefaultAlignment);
        bool taken = Read(new ReadOnlySpan<IoSegment>(in sector), DefaultAlignment) >= 0;
        return taken ? DefaultAlignment : CautiousAlignment;
    }
}
