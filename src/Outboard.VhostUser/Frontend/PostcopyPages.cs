// The pages of a post-copy as a front-end keeps them: which have come, and which a back-end waits for. A page is put
// into the shared file once, by one write, so that whoever touches it meanwhile sees all of it or waits; then the
// back-end's threads that wait for it are woken.
//
// Not here: where pages come from. In a virtual machine monitor that is the source host; in tests and tools, a copy.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.VhostUser.Frontend;

/// <summary>The pages of a post-copy. Members may be called from any thread.</summary>
public sealed class PostcopyPages : IDisposable
{
    /// <summary>Bytes of a page: the system's, as the back-end's faults have.</summary>
    public static readonly int PageBytes = Environment.SystemPageSize;

    /// <summary>How often a wait for faults looks whether it was cancelled.</summary>
    private const int LookMs = 50;

    private readonly Lock _lock = new();
    private readonly UserFaults _faults;
    private readonly List<Area> _areas = [];

    internal PostcopyPages(UserFaults faults) => _faults = faults;

    /// <summary>Faults that the back-end had so far.</summary>
    public long FaultCount { get; private set; }

    /// <summary>Takes every page of a memory away, as at a destination where nothing has come yet.</summary>
    public static void Empty(DriverMemory memory)
    {
        ArgumentNullException.ThrowIfNull(memory);
        MemFd.PunchHole(memory.File.Descriptor, 0, memory.SizeBytes);
    }

    /// <summary>Puts a page in place, unless it has come before, and wakes who waits for it.</summary>
    /// <param name="memory">A memory that was shared in this post-copy.</param>
    /// <param name="offset">Its offset in the memory: whole pages.</param>
    /// <param name="bytes">Its content.</param>
    /// <returns>Whether it is new.</returns>
    public bool Place(DriverMemory memory, ulong offset, ReadOnlySpan<byte> bytes)
    {
        ArgumentNullException.ThrowIfNull(memory);
        ArgumentOutOfRangeException.ThrowIfNotEqual(bytes.Length, PageBytes);
        ArgumentOutOfRangeException.ThrowIfNotEqual(offset % (ulong)PageBytes, 0UL);
        lock (_lock)
        {
            Area area = _areas.Find(area => area.Memory == memory)
                ?? throw new ArgumentException("this memory was not shared in the post-copy", nameof(memory));
            bool isNew = area.Missing.Remove(offset);
            if (isNew)
            {
                MemFd.Write(memory.File.Descriptor, offset, bytes);
            }

            _faults.Wake(area.BackendBase + offset, (ulong)PageBytes);
            return isNew;
        }
    }

    /// <summary>Puts all pages in place that have not come.</summary>
    /// <returns>How many there were.</returns>
    public int PlaceRest(Func<DriverMemory, ulong, ReadOnlyMemory<byte>> source)
    {
        ArgumentNullException.ThrowIfNull(source);
        int placed = 0;
        Area[] areas;
        lock (_lock)
        {
            areas = [.. _areas];
        }

        foreach (Area area in areas)
        {
            for (ulong offset = 0; offset < area.Memory.SizeBytes; offset += (ulong)PageBytes)
            {
                placed += Place(area.Memory, offset, source(area.Memory, offset).Span) ? 1 : 0;
            }
        }

        return placed;
    }

    /// <summary>Serves the back-end's faults, on a thread of its own, until it is cancelled.</summary>
    /// <param name="source">Gives the page at an offset of a memory.</param>
    /// <param name="cancellation">Ends serving.</param>
    /// <exception cref="IOException">The back-end is gone, or faults where it has no memory.</exception>
    public Task ServeAsync(
        Func<DriverMemory, ulong, ReadOnlyMemory<byte>> source, CancellationToken cancellation) =>
        Task.Factory.StartNew(
            () => Serve(source, cancellation),
            CancellationToken.None,
            TaskCreationOptions.LongRunning,
            TaskScheduler.Default);

    /// <summary>Gives the back-end's faults up. After POSTCOPY_END; nobody serves them.</summary>
    public void Dispose() => _faults.Dispose();

    /// <summary>A memory that the back-end mapped at an address of its own; all its pages are missing.</summary>
    internal void Add(DriverMemory memory, ulong backendBase)
    {
        lock (_lock)
        {
            _areas.Add(new Area(memory, backendBase));
        }
    }

    private void Serve(Func<DriverMemory, ulong, ReadOnlyMemory<byte>> source, CancellationToken cancellation)
    {
        Span<ulong> addresses = stackalloc ulong[16];
        while (!cancellation.IsCancellationRequested)
        {
            int count = _faults.Read(addresses, LookMs);
            foreach (ulong address in addresses[..count])
            {
                (DriverMemory memory, ulong offset) = Find(address);
                Place(memory, offset, source(memory, offset).Span);
            }

            FaultCount += count;
        }
    }

    private (DriverMemory Memory, ulong Offset) Find(ulong address)
    {
        lock (_lock)
        {
            Area area = _areas.Find(area => address - area.BackendBase < area.Memory.SizeBytes)
                ?? throw new LinuxException(
                    "userfaultfd", Errno.BadAddress, $"the back-end faulted at 0x{address:x}, where it has no memory");
            return (area.Memory, (address - area.BackendBase) / (ulong)PageBytes * (ulong)PageBytes);
        }
    }

    private sealed class Area
    {
        internal Area(DriverMemory memory, ulong backendBase)
        {
            Memory = memory;
            BackendBase = backendBase;
            for (ulong offset = 0; offset < memory.SizeBytes; offset += (ulong)PageBytes)
            {
                Missing.Add(offset);
            }
        }

        internal DriverMemory Memory { get; }

        internal ulong BackendBase { get; }

        internal HashSet<ulong> Missing { get; } = [];
    }
}
