// Requests about memory and rings that are somebody else's: a virtual machine's, which this process only hands on.
using System.Runtime.InteropServices;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue;

namespace Outboard.VhostUser.Frontend;

public sealed partial class VhostUserFrontend
{
    internal Task SetMemTableAsync(IReadOnlyList<PassedRegion> regions, CancellationToken cancellation)
    {
        MemoryRegionPayload[] payloads = [.. regions.Select(Describe)];
        byte[] payload = VhostUserMessage.PayloadOf(
            new MemoryTablePayload((uint)payloads.Length, 0), MemoryMarshal.AsBytes<MemoryRegionPayload>(payloads));
        Attachment[] attachments = [.. regions.Select(region => _channel.Attach(region.Memory))];
        return RequestAsync(FrontendRequest.SetMemTable, payload, cancellation, attachments);
    }

    internal Task AddMemRegAsync(PassedRegion region, CancellationToken cancellation)
    {
        byte[] payload = VhostUserMessage.PayloadOf(new SingleMemoryRegionPayload(0, Describe(region)));
        return RequestAsync(FrontendRequest.AddMemReg, payload, cancellation, _channel.Attach(region.Memory));
    }

    internal Task RemMemRegAsync(PassedRegion region, CancellationToken cancellation)
    {
        byte[] payload = VhostUserMessage.PayloadOf(new SingleMemoryRegionPayload(0, Describe(region)));
        return RequestAsync(FrontendRequest.RemMemReg, payload, cancellation);
    }

    /// <summary>SET_VRING_ADDR for a ring in memory that was handed on.</summary>
    internal Task SetVringAddrAsync(int index, VringAddresses ring, CancellationToken cancellation)
    {
        VringAddressPayload payload = new(
            (uint)index,
            0,
            ring.Descriptors + PassedRegion.UserShift,
            ring.Used + PassedRegion.UserShift,
            ring.Available + PassedRegion.UserShift,
            ring.Used);
        return RequestAsync(FrontendRequest.SetVringAddr, VhostUserMessage.PayloadOf(payload), cancellation);
    }

    private static MemoryRegionPayload Describe(PassedRegion region) => new(
        region.GuestAddress, region.SizeBytes, region.GuestAddress + PassedRegion.UserShift, region.Offset);
}
