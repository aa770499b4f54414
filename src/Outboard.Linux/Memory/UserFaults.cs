// Faults that another process resolves (userfaultfd): a thread, or the kernel on its behalf, that touches a page
// which is not there sleeps until whoever holds the descriptor has put the page into the file and wakes it.
//
// Two processes hold the same object: the one that faults opens it and registers its mappings; the other one reads
// the addresses (of the first one's address space) and wakes. Faults of the kernel (preadv, io_uring) must be
// included, which takes a privilege: CAP_SYS_PTRACE, vm.unprivileged_userfaultfd=1, or access to /dev/userfaultfd.
// Not here: putting pages in place by UFFDIO_COPY; a shared file needs no more than a write.
using Outboard.Linux.Events;
using Outboard.Linux.Native;

namespace Outboard.Linux.Memory;

/// <summary>A userfaultfd.</summary>
public sealed class UserFaults : IDisposable
{
    private const string DevicePath = "/dev/userfaultfd";
    private const ulong NeededFeatures = Libc.UFFD_FEATURE_MISSING_SHMEM | Libc.UFFD_FEATURE_MISSING_HUGETLBFS;

    /// <summary>Addresses that are read at a time.</summary>
    private const int BatchSize = 16;

    private readonly List<(nuint Address, nuint Length)> _registered = [];

    /// <summary>Takes ownership of a descriptor that another process opened.</summary>
    public UserFaults(FileDescriptor descriptor)
    {
        ArgumentNullException.ThrowIfNull(descriptor);
        Descriptor = descriptor;
    }

    /// <summary>The descriptor, owned by this object.</summary>
    public FileDescriptor Descriptor { get; }

    /// <summary>Opens one for this process.</summary>
    /// <exception cref="LinuxException">The system does not permit it, or cannot do it for shared memory.</exception>
    public static UserFaults Open()
    {
        UserFaults faults = new(OpenDescriptor());
        try
        {
            faults.Negotiate();
            return faults;
        }
        catch
        {
            faults.Dispose();
            throw;
        }
    }

    /// <summary>Waits for faults.</summary>
    /// <param name="addresses">Receives the addresses that were touched, in the other process.</param>
    /// <param name="timeoutMs">How long to wait.</param>
    /// <returns>How many; 0 when the time ran out.</returns>
    /// <exception cref="LinuxException">The other process closed it, or ended.</exception>
    // SAFETY: the kernel writes whole messages into the buffer on the stack.
    public unsafe int Read(Span<ulong> addresses, int timeoutMs)
    {
        if (!Poll.IsReadyOrEnded(Descriptor.Number, writes: false, timeoutMs))
        {
            return 0;
        }

        Libc.UserFaultMessage* messages = stackalloc Libc.UserFaultMessage[BatchSize];
        nuint room = (nuint)(Math.Min(BatchSize, addresses.Length) * sizeof(Libc.UserFaultMessage));
        nint bytes = Libc.read(Descriptor.Number, messages, room);
        int errno = Libc.LastError();
        if (bytes <= 0)
        {
            return bytes < 0 && errno is Errno.TryAgain or Errno.Interrupted
                ? 0
                : throw new LinuxException("read", bytes == 0 ? Errno.BadDescriptor : errno, "userfaultfd");
        }

        int count = 0;
        for (int i = 0; i < bytes / sizeof(Libc.UserFaultMessage); i++)
        {
            if (messages[i].Event == Libc.UFFD_EVENT_PAGEFAULT)
            {
                addresses[count++] = messages[i].Address;
            }
        }

        return count;
    }

    /// <summary>Wakes whoever waits for a range of the other process, whose pages are there now.</summary>
    /// <returns>False when the other process is gone.</returns>
    // SAFETY: the kernel reads one struct on the stack; the addresses mean nothing in this process.
    public unsafe bool Wake(ulong address, ulong length)
    {
        Libc.UserFaultRange range = new() { Start = address, Length = length };
        return Libc.ioctl(Descriptor.Number, Libc.UFFDIO_WAKE, &range) == 0;
    }

    /// <summary>
    /// Ends reporting: whoever waits goes on, and finds the page, or zeroes if it never came. In the process that
    /// opened it. The other one only lets go of it.
    /// </summary>
    // SAFETY: the kernel reads one struct on the stack; a range that is no mapping any more is refused, which is fine.
    public unsafe void Dispose()
    {
        foreach ((nuint address, nuint length) in _registered)
        {
            Libc.UserFaultRange range = new() { Start = address, Length = length };
            _ = Libc.ioctl(Descriptor.Number, Libc.UFFDIO_UNREGISTER, &range);
        }

        _registered.Clear();
        Descriptor.Dispose();
    }

    /// <summary>Has faults in a mapping of this process reported.</summary>
    // SAFETY: the range is a shared mapping of ours that nobody uses yet; its pages live on in the file.
    internal unsafe void Register(nuint address, nuint length)
    {
        // Translations of pages that the other side took away again must not outlive them.
        Check("madvise(MADV_DONTNEED)", Libc.madvise((void*)address, length, Libc.MADV_DONTNEED));
        _ = Libc.madvise((void*)address, length, Libc.MADV_NOHUGEPAGE);
        Libc.UserFaultRegister register = new()
        {
            Range = new Libc.UserFaultRange { Start = address, Length = length },
            Mode = Libc.UFFDIO_REGISTER_MODE_MISSING,
        };
        Check("ioctl(UFFDIO_REGISTER)", Libc.ioctl(Descriptor.Number, Libc.UFFDIO_REGISTER, &register));
        _registered.Add((address, length));
        if ((register.Calls & Libc.UFFDIO_COPY_BIT) == 0)
        {
            throw new LinuxException("ioctl(UFFDIO_REGISTER)", Errno.NotSupported, "pages cannot be put there");
        }
    }

    private static FileDescriptor OpenDescriptor()
    {
        const int flags = Libc.O_CLOEXEC | Libc.O_NONBLOCK;
        int number = Libc.UserFaultDescriptor(flags);
        int errno = Libc.LastError();
        if (number >= 0)
        {
            return new FileDescriptor(number);
        }

        return errno == Errno.NotPermitted && TryOpenByDevice(flags) is { } descriptor
            ? descriptor
            : throw new LinuxException(
                "userfaultfd", errno, $"run as root, set vm.unprivileged_userfaultfd=1, or permit {DevicePath}");
    }

    // SAFETY: the flags are passed by value in the pointer's place, as this ioctl wants them.
    private static unsafe FileDescriptor? TryOpenByDevice(int flags)
    {
        int device = Libc.open(DevicePath, Libc.O_RDWR | Libc.O_CLOEXEC, 0);
        if (device < 0)
        {
            return null;
        }

        using FileDescriptor owned = new(device);
        int number = Libc.ioctl(device, Libc.USERFAULTFD_IOC_NEW, (void*)flags);
        return number >= 0 ? new FileDescriptor(number) : null;
    }

    // SAFETY: the kernel reads and writes one struct on the stack.
    private unsafe void Negotiate()
    {
        Libc.UserFaultApi api = new() { Api = Libc.UFFD_API, Features = NeededFeatures };
        Check("ioctl(UFFDIO_API)", Libc.ioctl(Descriptor.Number, Libc.UFFDIO_API, &api));
    }

    private static void Check(string call, int result)
    {
        int errno = Libc.LastError();
        if (result < 0)
        {
            throw new LinuxException(call, errno);
        }
    }
}
