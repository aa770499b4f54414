// The device's shared memory regions and doorbells, from the driver's side. A virtual machine would show them in a BAR;
// here a program reads and writes them. What is not mapped reads as zero, and writes to it are dropped.
//
// The back-end is not trusted: every request is checked for its region, bounds, page boundaries, overlaps, flags and
// number, and refused by its reply; the connection goes on.
using System.Runtime.InteropServices;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Frontend;

public sealed partial class VhostUserFrontend
{
    private readonly DoorbellPages _doorbells = new();
    private SharedRegionMemory _shared = new([]);

    /// <summary>The device's shared memory regions, after <see cref="NegotiateAsync"/>.</summary>
    public IReadOnlyList<SharedRegion> SharedRegions { get; private set; } = [];

    /// <summary>Parts that are mapped at present.</summary>
    public int SharedMappingCount => _shared.Count;

    /// <summary>GET_SHMEM_CONFIG: the regions that the device has.</summary>
    /// <exception cref="ProtocolException">The reply contradicts itself.</exception>
    public async Task<IReadOnlyList<SharedRegion>> GetShmemConfigAsync(CancellationToken cancellation = default)
    {
        ReadOnlyMemory<byte> reply =
            await RequestAsync(FrontendRequest.GetShmemConfig, [], cancellation).ConfigureAwait(false);
        if (reply.Length != ShmemConfigPayload.Bytes)
        {
            throw BrokenReply(
                "GET_SHMEM_CONFIG", "size", $"{reply.Length} bytes of reply, {ShmemConfigPayload.Bytes} are due");
        }

        List<SharedRegion> regions = [];
        for (int id = 0; id < ShmemConfigPayload.MaxRegions; id++)
        {
            ulong size = MemoryMarshal.Read<ulong>(
                reply.Span[(ShmemConfigPayload.HeadBytes + (id * sizeof(ulong)))..]);
            if (size % (ulong)Environment.SystemPageSize != 0)
            {
                throw BrokenReply("GET_SHMEM_CONFIG", "size", $"region {id} has 0x{size:x} bytes: not whole pages");
            }

            if (size != 0)
            {
                regions.Add(new SharedRegion((byte)id, size));
            }
        }

        uint count = MemoryMarshal.Read<ShmemConfigPayload>(reply.Span).Count;
        return count == regions.Count
            ? regions
            : throw BrokenReply("GET_SHMEM_CONFIG", "count", $"{count}, and {regions.Count} regions have a size");
    }

    /// <summary>Copies bytes out of a region, as a driver reads them.</summary>
    /// <param name="region">The region's number.</param>
    /// <param name="offset">First byte.</param>
    /// <param name="destination">Receives the bytes; zero where nothing is mapped.</param>
    public void ReadShared(byte region, ulong offset, Span<byte> destination) =>
        _shared.Read(region, offset, destination);

    /// <summary>Copies bytes into a region, as a driver writes them; dropped where nothing may be written.</summary>
    /// <param name="region">The region's number.</param>
    /// <param name="offset">First byte.</param>
    /// <param name="source">The bytes.</param>
    public void WriteShared(byte region, ulong offset, ReadOnlySpan<byte> source) =>
        _shared.Write(region, offset, source);

    private void OpenSharedRegions(IReadOnlyList<SharedRegion> regions)
    {
        SharedRegions = regions;
        _shared = new SharedRegionMemory(regions);
    }

    /// <summary>A reset, or the end of the connection, undoes every mapping.</summary>
    private void DropSharedMappings()
    {
        _shared.Clear();
        _doorbells.Dispose();
    }

    /// <summary>Serves BACKEND_SHMEM_MAP.</summary>
    private bool ShmemMap(VhostUserMessage message)
    {
        ShmemMapPayload payload = message.Read<ShmemMapPayload>();
        SharedRegionPart part = new(payload.Region, payload.RegionOffset, payload.Length);
        if (message.Attachments.Count != 1 || (payload.Flags & ~ShmemMapPayload.Writable) != 0)
        {
            return false;
        }

        try
        {
            using SharedMemory memory = message.Attachments[0].ToSharedMemory();
            return _shared.TryMap(part, memory, payload.FileOffset, payload.Flags == ShmemMapPayload.Writable);
        }
        catch (IOException)
        {
            return false;
        }
    }

    /// <summary>Serves BACKEND_SHMEM_UNMAP.</summary>
    private bool ShmemUnmap(VhostUserMessage message)
    {
        ShmemMapPayload payload = message.Read<ShmemMapPayload>();
        return _shared.TryUnmap(new SharedRegionPart(payload.Region, payload.RegionOffset, payload.Length));
    }

    /// <summary>Serves BACKEND_VRING_HOST_NOTIFIER_MSG.</summary>
    private bool VringHostNotifierMsg(VhostUserMessage message)
    {
        VringAreaPayload payload = message.Read<VringAreaPayload>();
        VringDescriptorPayload ring = new(payload.Value);
        ulong page = (ulong)Environment.SystemPageSize;
        if (payload.Value >> 9 != 0 || (QueueCount > 0 && ring.Index >= QueueCount)
            || ring.HasDescriptor != (message.Attachments.Count == 1))
        {
            return false;
        }

        if (!ring.HasDescriptor)
        {
            _doorbells.Set(ring.Index, null);
            return true;
        }

        if (!Has(ProtocolFeatures.BackendSendFd) || payload.SizeBytes != page || payload.Offset % page != 0)
        {
            return false;
        }

        try
        {
            using SharedMemory memory = message.Attachments[0].ToSharedMemory();
            _doorbells.Set(ring.Index, memory.Map(payload.Offset, page));
            return true;
        }
        catch (IOException)
        {
            return false;
        }
    }
}
