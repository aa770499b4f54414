// A range of addresses into which pieces of files are mapped and unmapped while it is in use: what a device's shared
// memory region is to a driver in the same process. Where nothing is mapped it reads as zero, and so does what whoever
// has the file truncates away.
using Outboard.Linux.Native;

namespace Outboard.Linux.Memory;

/// <summary>
/// A reserved range of addresses. Changes are made by one thread at a time; anyone may use the memory.
/// </summary>
public sealed class AddressWindow : IDisposable
{
    private readonly nuint _address;
    private readonly BusErrorGuard? _guard;
    private int _disposed;

    /// <summary>Reserves a range.</summary>
    /// <param name="sizeBytes">Bytes, whole pages. No memory is used for what nobody touches.</param>
    /// <exception cref="LinuxException">The address space has no room.</exception>
    public AddressWindow(ulong sizeBytes)
    {
        SizeBytes = sizeBytes;
        _address = MapZeroes(0, (nuint)sizeBytes, isFixed: false);
        _guard = BusErrorGuard.TryProtect(_address, (nuint)sizeBytes, (nuint)Environment.SystemPageSize);
    }

    /// <summary>Bytes.</summary>
    public ulong SizeBytes { get; }

    /// <summary>Maps a piece of a file.</summary>
    /// <param name="offset">Where in the range; a page boundary.</param>
    /// <param name="descriptor">The file; not kept.</param>
    /// <param name="fileOffset">Where in the file; a page boundary.</param>
    /// <param name="length">Bytes, whole pages.</param>
    /// <param name="writable">Whether it may be written.</param>
    /// <exception cref="LinuxException">The file cannot be mapped; the range is as before.</exception>
    // SAFETY: Require keeps the replaced pages inside the range that this object reserved.
    public unsafe void Place(
        ulong offset, FileDescriptor descriptor, ulong fileOffset, ulong length, bool writable)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        Require(offset, length);
        int protection = Libc.PROT_READ | (writable ? Libc.PROT_WRITE : 0);
        const int flags = Libc.MAP_SHARED | Libc.MAP_NORESERVE | Libc.MAP_FIXED;
        void* target = (void*)(_address + (nuint)offset);
        void* address = Libc.mmap(
            target, (nuint)length, protection, flags, descriptor.Number, checked((long)fileOffset));
        int errno = Libc.LastError();
        if ((nint)address == -1)
        {
            throw new LinuxException("mmap", errno, $"{length} bytes at offset {fileOffset}");
        }
    }

    /// <summary>Puts zero pages in place of what is mapped.</summary>
    public void Clear(ulong offset, ulong length)
    {
        Require(offset, length);
        MapZeroes(_address + (nuint)offset, (nuint)length, isFixed: true);
    }

    /// <summary>A part of the range. What is mapped there changes with the range, and ends with it.</summary>
    /// <exception cref="LinuxException">It leaves the range.</exception>
    public MemoryMapping View(ulong offset, ulong length)
    {
        if (length == 0 || offset > SizeBytes || length > SizeBytes - offset)
        {
            throw new LinuxException(
                "mmap", Errno.InvalidArgument, $"{length} bytes at {offset} leave a region of {SizeBytes}");
        }

        return MemoryMapping.ViewOf(_address + (nuint)offset, length);
    }

    /// <summary>Unmaps the range. Nobody uses it any more.</summary>
    // SAFETY: the range is what the constructor reserved, and it is unmapped once.
    public unsafe void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 0)
        {
            _guard?.Dispose();
            _ = Libc.munmap((void*)_address, (nuint)SizeBytes);
        }
    }

    private void Require(ulong offset, ulong length)
    {
        ulong page = (ulong)Environment.SystemPageSize;
        ObjectDisposedException.ThrowIf(Volatile.Read(ref _disposed) != 0, this);
        if ((offset | length) % page != 0 || length == 0 || offset > SizeBytes || length > SizeBytes - offset)
        {
            throw new ArgumentOutOfRangeException(
                nameof(offset), $"{length} bytes at {offset} are no pages of a region of {SizeBytes}");
        }
    }

    // SAFETY: a fixed address is one that Require has checked; otherwise the kernel chooses a free one.
    private static unsafe nuint MapZeroes(nuint address, nuint length, bool isFixed)
    {
        int flags = Libc.MAP_PRIVATE | Libc.MAP_ANONYMOUS | Libc.MAP_NORESERVE | (isFixed ? Libc.MAP_FIXED : 0);
        void* result = Libc.mmap((void*)address, length, Libc.PROT_READ | Libc.PROT_WRITE, flags, -1, 0);
        int errno = Libc.LastError();
        return (nint)result != -1
            ? (nuint)result
            : throw new LinuxException("mmap", errno, $"{length} bytes of address space");
    }
}
