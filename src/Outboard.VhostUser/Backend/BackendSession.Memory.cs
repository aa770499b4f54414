// The memory table: as one message, or region by region.
//
// A change makes a new snapshot. Running queues adopt it first: at once when only regions were added; when regions go
// away, each queue takes no new request until nothing of the old memory is in use. Only then is a region unmapped.
// Mapping touches no page: the time does not depend on the memory's size.
using System.Runtime.InteropServices;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

internal sealed partial class BackendSession
{
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
            if (_listensForPages)
            {
                return HoldMemory(message, _memory.Add(region), [region], keepsOldRegions: true);
            }

            await ReplaceAsync(_memory.Add(region), keepsOldRegions: true).ConfigureAwait(false);
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
                await running.AdoptAsync(memory, keepsOldRegions).ConfigureAwait(false);
            }
        }

        Unmap(old.Regions.Where(region => !memory.Regions.Contains(region)));
    }

    private static MemoryRegion Map(string request, MemoryRegionPayload entry, Attachment attachment)
    {
        if (entry.SizeBytes == 0)
        {
            throw new ProtocolException(request, "size", "0");
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
