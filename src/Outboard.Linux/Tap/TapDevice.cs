// A tap: a network interface of the host whose other end is this process. Each queue is a descriptor of its own; every
// packet is preceded by a virtio network header of 12 bytes, in both directions.
// Not here: addresses, routes and bridges of the interface, which are the operator's.
using System.Text;
using Outboard.Linux.Native;

namespace Outboard.Linux.Tap;

/// <summary>What a tap's reader takes as it is; the kernel finishes the rest before (TUN_F_...).</summary>
[Flags]
public enum TapOffloads
{
    /// <summary>Nothing: whole packets with checksums.</summary>
    None = 0,

    /// <summary>TUN_F_CSUM: partial checksums. All others need it.</summary>
    Checksum = 1,

    /// <summary>TUN_F_TSO4.</summary>
    Tso4 = 2,

    /// <summary>TUN_F_TSO6.</summary>
    Tso6 = 4,

    /// <summary>TUN_F_TSO_ECN.</summary>
    Ecn = 8,

    /// <summary>TUN_F_UFO.</summary>
    Ufo = 0x10,

    /// <summary>TUN_F_USO4.</summary>
    Uso4 = 0x20,

    /// <summary>TUN_F_USO6.</summary>
    Uso6 = 0x40,
}

/// <summary>An open tap interface.</summary>
public sealed class TapDevice : IDisposable
{
    /// <summary>Most queues of a tap: the kernel's own limit (MAX_TAP_QUEUES).</summary>
    public const int MaxQueues = 256;

    /// <summary>Longest name of an interface: IFNAMSIZ less the terminating zero.</summary>
    public const int MaxNameBytes = 15;

    private const string ClonePath = "/dev/net/tun";
    private const int HeaderBytes = 12;

    /// <summary>struct ifreq: 0 name (16 bytes), 16 a union; 40 bytes.</summary>
    private const int RequestBytes = 40;

    private readonly List<PacketDescriptor> _queues;
    private readonly bool _hasSeveral;

    private TapDevice(string name, List<PacketDescriptor> queues, bool hasSeveral)
    {
        Name = name;
        _queues = queues;
        _hasSeveral = hasSeveral;
        SupportedOffloads = FindOffloads();
    }

    /// <summary>The interface's name.</summary>
    public string Name { get; }

    /// <summary>The queues.</summary>
    public IReadOnlyList<PacketDescriptor> Queues => _queues;

    /// <summary>What this kernel can leave to the reader.</summary>
    public TapOffloads SupportedOffloads { get; }

    /// <summary>The largest packet without its Ethernet header.</summary>
    /// <exception cref="LinuxException">The interface is gone, or this user may not change it.</exception>
    public int Mtu
    {
        get => InterfaceRequest(Libc.SIOCGIFMTU, "SIOCGIFMTU", 0);
        set => InterfaceRequest(Libc.SIOCSIFMTU, "SIOCSIFMTU", value);
    }

    /// <summary>Opens a tap, and makes it when there is none; one that was made here vanishes with it.</summary>
    /// <param name="name">The interface's name.</param>
    /// <param name="queues">How many queues to open; more than one needs a tap that has several.</param>
    /// <exception cref="LinuxException">It cannot be opened; the message says what to do.</exception>
    public static TapDevice Open(string name, int queues = 1)
    {
        ArgumentException.ThrowIfNullOrEmpty(name);
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(queues);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(queues, MaxQueues);
        if (Encoding.UTF8.GetByteCount(name) > MaxNameBytes)
        {
            throw new LinuxException("TUNSETIFF", Errno.NameTooLong, $"{name} has more than {MaxNameBytes} bytes");
        }

        List<PacketDescriptor> opened = [];
        try
        {
            bool hasSeveral = queues > 1;
            PacketDescriptor? first = TryOpenQueue(name, hasSeveral, out int errno);
            if (first is null && errno == Errno.InvalidArgument && !hasSeveral)
            {
                // A tap that was made with several queues is opened as such, even for one.
                hasSeveral = true;
                first = TryOpenQueue(name, hasSeveral, out errno);
            }

            opened.Add(first ?? throw Refusal(name, queues, errno));
            while (opened.Count < queues)
            {
                opened.Add(TryOpenQueue(name, hasSeveral, out errno) ?? throw Refusal(name, queues, errno));
            }

            return new TapDevice(name, opened, hasSeveral);
        }
        catch
        {
            opened.ForEach(queue => queue.Dispose());
            throw;
        }
    }

    /// <summary>Tells the kernel what the reader takes as it is. On the control plane.</summary>
    /// <returns>Whether the kernel agreed.</returns>
    // SAFETY: this request's argument is a number, not an address.
    public unsafe bool TrySetOffloads(TapOffloads offloads) =>
        Libc.ioctl(_queues[0].Descriptor.Number, Libc.TUNSETOFFLOAD, (void*)(nuint)(uint)offloads) == 0;

    /// <summary>
    /// Has the kernel use a queue or not: packets for one that nobody reads would be lost. A tap with one queue always
    /// uses it.
    /// </summary>
    // SAFETY: the kernel reads one struct ifreq from the stack.
    public unsafe void SetAttached(int queue, bool attached)
    {
        if (!_hasSeveral)
        {
            return;
        }

        byte* request = stackalloc byte[RequestBytes];
        new Span<byte>(request, RequestBytes).Clear();
        *(ushort*)(request + 16) = attached ? Libc.IFF_ATTACH_QUEUE : Libc.IFF_DETACH_QUEUE;

        // Attaching what is attached fails, and changes nothing.
        _ = Libc.ioctl(_queues[queue].Descriptor.Number, Libc.TUNSETQUEUE, request);
    }

    /// <summary>Closes all queues.</summary>
    public void Dispose() => _queues.ForEach(queue => queue.Dispose());

    // SAFETY: the kernel reads and writes one struct ifreq and two integers on the stack.
    private static unsafe PacketDescriptor? TryOpenQueue(string name, bool hasSeveral, out int errno)
    {
        int number = Libc.open(ClonePath, Libc.O_RDWR | Libc.O_CLOEXEC | Libc.O_NONBLOCK, 0);
        errno = Libc.LastError();
        if (number < 0)
        {
            throw new LinuxException("open", errno, DescribeOpen(errno));
        }

        PacketDescriptor queue = new(new FileDescriptor(number));
        byte* request = stackalloc byte[RequestBytes];
        new Span<byte>(request, RequestBytes).Clear();
        Encoding.UTF8.GetBytes(name, new Span<byte>(request, MaxNameBytes));
        int flags = Libc.IFF_TAP | Libc.IFF_NO_PI | Libc.IFF_VNET_HDR | (hasSeveral ? Libc.IFF_MULTI_QUEUE : 0);
        *(ushort*)(request + 16) = (ushort)flags;
        int result = Libc.ioctl(number, Libc.TUNSETIFF, request);
        errno = Libc.LastError();
        if (result < 0)
        {
            queue.Dispose();
            return null;
        }

        int header = HeaderBytes;
        int littleEndian = 1;
        result = Libc.ioctl(number, Libc.TUNSETVNETHDRSZ, &header);
        result = result < 0 ? result : Libc.ioctl(number, Libc.TUNSETVNETLE, &littleEndian);
        errno = Libc.LastError();
        if (result < 0)
        {
            queue.Dispose();
            throw new LinuxException("TUNSETVNETHDRSZ", errno, name);
        }

        return queue;
    }

    private static string DescribeOpen(int errno) => errno switch
    {
        Errno.NoEntry => $"{ClonePath} does not exist: load the kernel module tun",
        Errno.AccessDenied or Errno.NotPermitted => $"this user may not open {ClonePath}: change its permissions",
        _ => ClonePath,
    };

    private static LinuxException Refusal(string name, int queues, int errno)
    {
        string several = queues > 1 ? " multi_queue" : "";
        string remedy = errno switch
        {
            Errno.NotPermitted or Errno.AccessDenied =>
                $"{name}: this user may not use or make it: have it made by 'ip tuntap add dev {name} mode tap"
                + $"{several} user USER', or run with CAP_NET_ADMIN",
            Errno.Busy => $"{name} is in use by another process",
            Errno.InvalidArgument =>
                $"{name} is no tap, or has not so many queues: make it by 'ip tuntap add dev {name} mode tap{several}'",
            _ => name,
        };
        return new LinuxException("TUNSETIFF", errno, remedy);
    }

    private TapOffloads FindOffloads()
    {
        const TapOffloads basic = TapOffloads.Checksum | TapOffloads.Tso4 | TapOffloads.Tso6 | TapOffloads.Ecn;
        ReadOnlySpan<TapOffloads> candidates =
        [
            basic | TapOffloads.Ufo | TapOffloads.Uso4 | TapOffloads.Uso6, basic | TapOffloads.Ufo, basic,
        ];
        TapOffloads found = TapOffloads.None;
        foreach (TapOffloads candidate in candidates)
        {
            if (TrySetOffloads(candidate))
            {
                found = candidate;
                break;
            }
        }

        TrySetOffloads(TapOffloads.None);
        return found;
    }

    // SAFETY: the kernel reads and writes one struct ifreq on the stack.
    private unsafe int InterfaceRequest(nuint number, string call, int value)
    {
        using FileDescriptor socket = OpenSocket();
        byte* request = stackalloc byte[RequestBytes];
        new Span<byte>(request, RequestBytes).Clear();
        Encoding.UTF8.GetBytes(Name, new Span<byte>(request, MaxNameBytes));
        *(int*)(request + 16) = value;
        int result = Libc.ioctl(socket.Number, number, request);
        int errno = Libc.LastError();
        return result >= 0 ? *(int*)(request + 16) : throw new LinuxException(call, errno, $"{Name}, {value}");
    }

    private static FileDescriptor OpenSocket()
    {
        int number = Libc.socket(Libc.AF_INET, Libc.SOCK_DGRAM | Libc.SOCK_CLOEXEC, 0);
        int errno = Libc.LastError();
        return number >= 0 ? new FileDescriptor(number) : throw new LinuxException("socket", errno);
    }
}
