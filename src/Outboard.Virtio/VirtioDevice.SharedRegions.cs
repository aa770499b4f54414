// What a device can do with its shared memory regions and with doorbell pages, whichever way it is attached.
using Outboard.Memory;

namespace Outboard.Virtio;

public abstract partial class VirtioDevice
{
    private SharedRegionMap? _shared;

    /// <summary>The device's shared memory regions, which never change.</summary>
    public virtual IReadOnlyList<SharedRegion> SharedRegions => [];

    /// <summary>
    /// The transport that serves the device, while it does; set by the transport. Null when it has no regions.
    /// </summary>
    public SharedRegionHost? SharedRegionHost { get; set; }

    private SharedRegionMap Shared => LazyInitializer.EnsureInitialized(ref _shared, () => new(SharedRegions));

    /// <summary>The driver's side has dropped all mappings; called by transports at reset.</summary>
    public void ForgetSharedMappings() => Shared.Clear();

    /// <summary>Maps a part of a memory object into a region. From any thread, but a queue's does not wait.</summary>
    /// <param name="part">Where.</param>
    /// <param name="memory">What; made by the transport or passed to it.</param>
    /// <param name="memoryOffset">First byte of it; a page boundary.</param>
    /// <param name="writable">Whether the driver may write.</param>
    /// <exception cref="ArgumentException">No such region, no whole pages, out of bounds, mapped already.</exception>
    /// <exception cref="IOException">The other side refused, or cannot be asked.</exception>
    protected async Task MapSharedAsync(SharedRegionPart part, SharedMemory memory, ulong memoryOffset, bool writable)
    {
        if (Shared.TryAdd(part) is { } problem)
        {
            throw new ArgumentException(problem, nameof(part));
        }

        bool isMapped = false;
        try
        {
            isMapped = await Host().MapAsync(part, memory, memoryOffset, writable).ConfigureAwait(false);
        }
        finally
        {
            if (!isMapped)
            {
                Shared.TryRemove(part);
            }
        }

        RequireDone(isMapped, $"a mapping at 0x{part.Offset:x} of region {part.Region}");
    }

    /// <summary>Unmaps what <see cref="MapSharedAsync"/> mapped.</summary>
    /// <exception cref="ArgumentException">Nothing is mapped there, or something else.</exception>
    /// <exception cref="IOException">The other side refused, or cannot be asked.</exception>
    protected async Task UnmapSharedAsync(SharedRegionPart part)
    {
        if (!Shared.TryRemove(part))
        {
            throw new ArgumentException($"0x{part.Offset:x} of region {part.Region} is not mapped", nameof(part));
        }

        RequireDone(
            await Host().UnmapAsync(part).ConfigureAwait(false), $"unmapping 0x{part.Offset:x} of {part.Region}");
    }

    /// <summary>
    /// Offers a page of a hardware doorbell, or of memory that the device watches: the driver writes there instead of
    /// kicking. Null takes it back, and the driver kicks again.
    /// </summary>
    /// <exception cref="IOException">The other side refused, or cannot be asked.</exception>
    protected async Task OfferDoorbellAsync(int queue, SharedMemory? page, ulong offset = 0) => RequireDone(
        await Host().OfferDoorbellAsync(queue, page, offset).ConfigureAwait(false), $"a doorbell of queue {queue}");

    private static void RequireDone(bool isDone, string what)
    {
        if (!isDone)
        {
            throw new IOException($"the driver's side refused {what}");
        }
    }

    private SharedRegionHost Host() =>
        SharedRegionHost ?? throw new IOException("the device is not attached to anything that maps shared memory");
}
