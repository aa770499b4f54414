// The device's shared memory regions and doorbells: what the front-end is told of them, and what it is asked to map.
//
// The front-end may send ADD_MEM_REG and block right after it mapped something, so nothing here is awaited by the
// control loop: a device awaits its mappings on threads of its own. Nothing is asked while no ring runs: the device is
// suspended then, vhost-user "Suspended device state" (and QEMU 11.1.3 crashes when it is asked before).
using System.Runtime.InteropServices;
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

internal sealed partial class BackendSession
{
    private const ProtocolFeatures NeededByMapping =
        ProtocolFeatures.Shmem | ProtocolFeatures.BackendReq | ProtocolFeatures.BackendSendFd;

    private const ProtocolFeatures NeededByDoorbells =
        ProtocolFeatures.HostNotifier | ProtocolFeatures.BackendReq | ProtocolFeatures.BackendSendFd;

    /// <summary>Shared memory regions are offered for devices that have some.</summary>
    private static ProtocolFeatures WithoutRegions(VirtioDevice device) =>
        device.SharedRegions.Count == 0 ? ProtocolFeatures.Shmem : ProtocolFeatures.None;

    private Reply GetShmemConfig()
    {
        ulong[] sizes = new ulong[ShmemConfigPayload.MaxRegions];
        foreach (SharedRegion region in _device.SharedRegions)
        {
            sizes[region.Id] = region.SizeBytes;
        }

        ShmemConfigPayload head = new((uint)sizes.Count(size => size != 0), 0);
        return Reply.Payload(VhostUserMessage.PayloadOf(head, MemoryMarshal.AsBytes<ulong>(sizes)));
    }

    private void AttachSharedRegions() => _device.SharedRegionHost = new RegionHost(this);

    private void DetachSharedRegions()
    {
        _device.SharedRegionHost = null;
        _device.ForgetSharedMappings();
    }

    /// <summary>The device's way to the front-end.</summary>
    private sealed class RegionHost(BackendSession session) : SharedRegionHost
    {
        public override Task<bool> MapAsync(
            SharedRegionPart part, SharedMemory memory, ulong memoryOffset, bool writable)
        {
            ShmemMapPayload payload = new(part.Region, memoryOffset, part.Offset, part.Length, writable ? 1UL : 0UL);
            return AskAsync(
                BackendRequest.ShmemMap, NeededByMapping, VhostUserMessage.PayloadOf(payload), memory);
        }

        public override Task<bool> UnmapAsync(SharedRegionPart part)
        {
            ShmemMapPayload payload = new(part.Region, 0, part.Offset, part.Length, 0);
            return AskAsync(BackendRequest.ShmemUnmap, NeededByMapping, VhostUserMessage.PayloadOf(payload), null);
        }

        public override Task<bool> OfferDoorbellAsync(int queue, SharedMemory? page, ulong offset)
        {
            ulong size = page is null ? 0 : (ulong)Environment.SystemPageSize;
            VringAreaPayload payload = new(new VringDescriptorPayload(queue, page is not null).Value, size, offset);
            return AskAsync(
                BackendRequest.VringHostNotifierMsg, NeededByDoorbells, VhostUserMessage.PayloadOf(payload), page);
        }

        private async Task<bool> AskAsync(
            BackendRequest request, ProtocolFeatures needed, byte[] payload, SharedMemory? memory)
        {
            if ((session._protocolFeatures & needed) != needed)
            {
                throw new IOException($"{needed} was not negotiated with the front-end");
            }

            if (session._vrings.All(vring => vring.Running is null))
            {
                throw new IOException("no ring runs: the driver has not started the device");
            }

            Attachment[] attachments = memory is null ? [] : [session._channel.Attach(memory)];
            using VhostUserMessage? reply =
                await session.AskFrontendAsync(request, payload, attachments).ConfigureAwait(false);
            return reply is null || (reply.Payload.Length == sizeof(ulong) && reply.Read<ulong>() == 0);
        }
    }
}
