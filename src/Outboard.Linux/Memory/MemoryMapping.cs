// A shared mapping of a file that a peer passed: any offset, huge pages, size checked against the file.
using Outboard.Linux.Native;

namespace Outboard.Linux.Memory;

/// <summary>A mapped part of a file, unmapped on disposal.</summary>
/// <remarks>
/// The offset need not be page aligned and the length need not be a multiple of a page (front-ends send such regions).
/// The mapping's addresses are valid until <see cref="Dispose"/>; whoever disposes must know that nobody uses them.
/// </remarks>
public sealed class MemoryMapping : IDisposable
{
    private readonly nuint _mappedAddress;
    private readonly nuint _mappedLength;
    private BusErrorGuard? _guard;
    private int _disposed;

    private MemoryMapping(nuint mappedAddress, nuint mappedLength, nuint address, ulong length)
    {
        _mappedAddress = mappedAddress;
        _mappedLength = mappedLength;
        Address = address;
        Length = length;
    }

    /// <summary>Address of the first byte that was asked for.</summary>
    internal nuint Address { get; }

    /// <summary>Bytes that were asked for.</summary>
    public ulong Length { get; }

    /// <summary>Whether the mapping may be written.</summary>
    public bool IsWritable { get; private init; }

    /// <summary>The whole mapping as one segment.</summary>
    public IoSegment Segment => new(Address, (nuint)Length);

    /// <summary>Maps <paramref name="length"/> bytes of the file from <paramref name="offset"/> on, shared.</summary>
    /// <param name="descriptor">The file; not kept, the caller may close it afterwards.</param>
    /// <param name="offset">Offset in the file, bytes.</param>
    /// <param name="length">Length in bytes, not 0.</param>
    /// <param name="writable">Whether the mapping may be written.</param>
    /// <exception cref="LinuxException">The file is shorter than that, or cannot be mapped.</exception>
    public static MemoryMapping Map(FileDescriptor descriptor, ulong offset, ulong length, bool writable = true)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        if (length == 0 || length > long.MaxValue || offset > long.MaxValue - length)
        {
            throw new LinuxException("mmap", Errno.InvalidArgument, $"length {length} at offset {offset}");
        }

        if (descriptor.Kind == FileKind.Regular && descriptor.FileSizeBytes < offset + length)
        {
            string subject = $"the file has {descriptor.FileSizeBytes} bytes, {offset + length} are needed";
            throw new LinuxException("mmap", Errno.InvalidArgument, subject);
        }

        ulong page = Libc.PageSizeOf(descriptor);
        ulong slack = offset % page;
        ulong mapped = checked((length + slack + page - 1) / page * page);
        bool huge = page != (ulong)Environment.SystemPageSize;
        nuint address = MapPages(descriptor, offset - slack, (nuint)mapped, writable, huge);
        MemoryMapping mapping = new(address, (nuint)mapped, address + (nuint)slack, length)
        {
            IsWritable = writable,
        };
        if (!MemFd.IsSealedAgainstShrinking(descriptor))
        {
            mapping._guard = BusErrorGuard.TryProtect(mapping._mappedAddress, mapping._mappedLength, (nuint)page);
        }

        return mapping;
    }

    /// <summary>A view of memory that somebody else has mapped, and keeps mapped: disposing it does nothing.</summary>
    internal static MemoryMapping ViewOf(nuint address, ulong length) =>
        new(0, 0, address, length) { IsWritable = true, _disposed = 1 };

    /// <summary>Whether a page of this mapping was touched that a holder of the file had truncated away. It was
    /// replaced by a private page of zeroes; what was read from it is worthless.</summary>
    /// <remarks>To be asked after each batch. A mapping that is neither <see cref="IsGuarded"/> nor sealed against
    /// shrinking never says so: there the touch ends the process.</remarks>
    public bool IsTruncated => _guard is not null && _guard.HasFaulted;

    /// <summary>Whether this process survives a truncation of the file. Not needed for a file that is sealed against
    /// shrinking; not available on architectures other than x64 and arm64.</summary>
    public bool IsGuarded => _guard is not null;

    /// <summary>
    /// Has accesses to pages that are not in the file wait for whoever holds <paramref name="faults"/>. Nobody uses the
    /// mapping yet.
    /// </summary>
    /// <exception cref="LinuxException">The file's pages cannot be waited for.</exception>
    public void Watch(UserFaults faults)
    {
        ArgumentNullException.ThrowIfNull(faults);
        faults.Register(_mappedAddress, _mappedLength);
    }

    /// <summary>Unmaps. Nobody may use the addresses any more.</summary>
    // SAFETY: the range is exactly what mmap returned, and it is unmapped once.
    public unsafe void Dispose()
    {
        if (Interlocked.Exchange(ref _disposed, 1) == 0)
        {
            _guard?.Dispose();
            _ = Libc.munmap((void*)_mappedAddress, _mappedLength);
        }
    }

    // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of this process.
    private static unsafe nuint MapPages(
        FileDescriptor descriptor, ulong offset, nuint length, bool writable, bool huge)
    {
        int protection = Libc.PROT_READ | (writable ? Libc.PROT_WRITE : 0);

        // Huge pages are reserved now, so that a pool that is empty refuses here and does not fault later.
        int flags = huge ? Libc.MAP_SHARED : Libc.MAP_SHARED | Libc.MAP_NORESERVE;
        void* address = Libc.mmap(null, length, protection, flags, descriptor.Number, (long)offset);
        int errno = Libc.LastError();
        if ((nint)address == -1)
        {
            string remedy = huge ? " of huge pages: raise vm.nr_hugepages" : string.Empty;
            throw new LinuxException("mmap", errno, $"{length} bytes at offset {offset}{remedy}");
        }

        // Guest memory has no place in a core dump of the back-end; a refusal is harmless.
        _ = Libc.madvise(address, length, Libc.MADV_DONTDUMP);
        return (nuint)address;
    }
}
