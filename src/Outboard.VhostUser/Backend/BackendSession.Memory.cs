// The memory table: as one message, or region by region.
//
// A change makes a new snapshot. Running queues adopt it first: at once when only regions were added; when regions go
// away, each queue takes no new request until nothing of the old memory is in use. Only then is a region unmapped.
// Mapping touches no page: the time does not depend on the memory's size.
using System.Runtime.InteropServices;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Virtio.Queue;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

internal sealed partial class BackendSession
{
    /// <summary>No region ends there, so no ring is found there.</summary>
    private static readonly VringAddresses s_nowhere = new(ulong.MaxValue, ulong.MaxValue, ulong.MaxValue);

    private GuestMemory _memory = GuestMemory.Empty;

    private static Reply GetMaxMemSlots() => Reply.Value(GuestMemory.MaxRegions);

    private async ValueTask<Reply> SetMemTableAsync(VhostUserMessage message)
    {
        if (IsAcknowledgement(message))
        {
            return await AcknowledgeMemoryAsync(message).ConfigureAwait(false);
        }

        uint count = message.Read<MemoryTablePayload>().Count;
        ReadOnlyMemory<byte> entries = message.Payload[MemoryTablePayload.Bytes..];
        if (count is 0 or > MemoryTablePayload.MaxRegions || entries.Length != count * MemoryRegionPayload.Bytes)
        {
            throw new ProtocolException("SET_MEM_TABLE", "count", $"{count} regions in {message.Payload.Length} bytes");
        }

        if (message.Attachments.Count != count)
        {
            throw new ProtocolException(
                "SET_MEM_TABLE", "descriptors", $"{message.Attachments.Count} came for {count} regions");
        }

        List<MemoryRegion> regions = [];
        try
        {
            for (int i = 0; i < count; i++)
            {
                MemoryRegionPayload entry =
                    MemoryMarshal.Read<MemoryRegionPayload>(entries.Span[(i * MemoryRegionPayload.Bytes)..]);
                regions.Add(Map("SET_MEM_TABLE", entry, message.Attachments[i]));
            }

            GuestMemory memory = GuestMemory.Create(regions);
            memory.RequireDistinctUserAddresses();
            if (_listensForPages)
            {
                return HoldMemory(message, memory, regions, keepsOldRegions: false);
            }

            await ReplaceAsync(memory, keepsOldRegions: false).ConfigureAwait(false);
            return Reply.Done;
        }
        catch (GuestMemoryException error)
        {
            Unmap(regions);
            throw new ProtocolException("SET_MEM_TABLE", "regions", error.Message, error);
        }
        catch (ProtocolException)
        {
            Unmap(regions);
            throw;
        }
    }

    private async ValueTask<Reply> AddMemRegAsync(VhostUserMessage message)
    {
        if (IsAcknowledgement(message))
        {
            return await AcknowledgeMemoryAsync(message).ConfigureAwait(false);
        }

        if (message.Payload.Length == sizeof(ulong))
        {
            throw new ProtocolException("ADD_MEM_REG", "size", "an acknowledgement of nothing");
        }

        if (message.Attachments.Count != 1)
        {
            throw new ProtocolException(
                "ADD_MEM_REG",
                "descriptors",
                "none came: guest memory is not shared: start QEMU with memory-backend-memfd,share=on");
        }

        MemoryRegion region =
            Map("ADD_MEM_REG", message.Read<SingleMemoryRegionPayload>().Region, message.Attachments[0]);
        try
        {
            GuestMemory memory = _memory.Add(region);
            memory.RequireDistinctUserAddresses();
            if (_listensForPages)
            {
                return HoldMemory(message, memory, [region], keepsOldRegions: true);
            }

            await ReplaceAsync(memory, keepsOldRegions: true).ConfigureAwait(false);
            return Reply.Done;
        }
        catch (GuestMemoryException error)
        {
            region.Dispose();
            throw new ProtocolException("ADD_MEM_REG", "region", error.Message, error);
        }
    }

    /// <summary>A descriptor that comes along (libblkio sends one) is closed with the message.</summary>
    private async ValueTask<Reply> RemMemRegAsync(VhostUserMessage message)
    {
        MemoryRegionPayload wanted = message.Read<SingleMemoryRegionPayload>().Region;
        MemoryRegion region = _memory.Regions.FirstOrDefault(known => known.GuestAddress == wanted.GuestAddress
                && known.UserAddress == wanted.UserAddress && known.SizeBytes == wanted.SizeBytes)
            ?? throw new ProtocolException(
                "REM_MEM_REG",
                "region",
                $"guest address 0x{wanted.GuestAddress:x}, size 0x{wanted.SizeBytes:x} was never added");
        await ReplaceAsync(_memory.Remove(region), keepsOldRegions: false).ConfigureAwait(false);
        return Reply.Done;
    }

    /// <summary>Makes all running queues adopt a snapshot, then unmaps what it lacks.</summary>
    private async Task ReplaceAsync(GuestMemory memory, bool keepsOldRegions)
    {
        RequireLogged(memory);
        GuestMemory old = _memory;
        _memory = memory;
        foreach (Vring vring in _vrings)
        {
            if (vring.Running is { } running)
            {
                await running.AdoptAsync(memory, keepsOldRegions, MovedRing(vring)).ConfigureAwait(false);
            }
        }

        Unmap(old.Regions.Where(region => !memory.Regions.Contains(region)));
    }

    /// <summary>
    /// Where a running ring lies now: it was given in the front-end's addresses, which a new table may move. Null
    /// behind an IOMMU, which has addresses of its own.
    /// </summary>
    private VringAddresses? MovedRing(Vring vring)
    {
        if (_iommu is not null || vring.Addresses is not { } addresses)
        {
            return null;
        }

        bool isFound = _memory.TryTranslateUserAddress(addresses.Descriptors, out ulong descriptors)
            & _memory.TryTranslateUserAddress(addresses.Available, out ulong available)
            & _memory.TryTranslateUserAddress(addresses.Used, out ulong used);
        return isFound ? new VringAddresses(descriptors, available, used) : s_nowhere;
    }

    private MemoryRegion Map(string request, MemoryRegionPayload entry, Attachment attachment)
    {
        if (entry.SizeBytes == 0)
        {
            throw new ProtocolException(request, "size", "0");
        }

        if (_protocolFeatures.HasFlag(ProtocolFeatures.GpaAddresses) && entry.UserAddress != entry.GuestAddress)
        {
            throw new ProtocolException(
                request,
                "user address",
                $"0x{entry.UserAddress:x} is not the guest address 0x{entry.GuestAddress:x}, as GPA_ADDRESSES has it");
        }

        try
        {
            using SharedMemory memory = attachment.ToSharedMemory();
            MemoryMapping mapping = memory.Map(entry.MmapOffset, entry.SizeBytes);
            try
            {
                return new MemoryRegion(entry.GuestAddress, entry.UserAddress, mapping);
            }
            catch (GuestMemoryException error)
            {
                mapping.Dispose();
                throw new ProtocolException(request, "region", error.Message, error);
            }
        }
        catch (IOException error)
        {
            throw new ProtocolException(request, "region", error.Message, error);
        }
    }

    private static void Unmap(IEnumerable<MemoryRegion> regions)
    {
        foreach (MemoryRegion region in regions)
        {
            region.Dispose();
        }
    }
}
