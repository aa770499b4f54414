// The front-end's half of the IOMMU: it tells translations when the back-end asks, and withdraws them.
//
// A miss is answered while other requests may be waiting for the back-end: those wait for nothing that a missing
// translation holds up, since a back-end's queue that lacks one has taken nothing.
using Outboard.Memory;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend;

public sealed partial class VhostUserFrontend
{
    /// <summary>
    /// Raised, on a pool thread, when the back-end tells of an access that the IOMMU does not allow: the address, and
    /// what it wanted to do.
    /// </summary>
    public event Action<ulong, MemoryAccess>? AccessFailed;

    /// <summary>Whether rings and buffers are given in addresses of <see cref="VhostUserFrontendOptions.Iommu"/>.
    /// </summary>
    public bool HasIommu => (Features & VirtioFeatures.AccessPlatform) != 0;

    /// <summary>IOTLB_MSG: one translation, or a range that is withdrawn.</summary>
    /// <exception cref="ProtocolException">The back-end refuses it.</exception>
    public async Task IotlbMsgAsync(IotlbPayload payload, CancellationToken cancellation = default)
    {
        ReadOnlyMemory<byte> reply = await RequestAsync(
            FrontendRequest.IotlbMsg, VhostUserMessage.PayloadOf(payload), cancellation).ConfigureAwait(false);
        ulong status = Value(RequestTable.Frontend(FrontendRequest.IotlbMsg), reply);
        if (status != 0)
        {
            throw new ProtocolException("IOTLB_MSG", "reply", $"the back-end refused the request ({status})");
        }
    }

    /// <summary>Withdraws bus addresses. Afterwards the device uses them no more.</summary>
    /// <param name="iova">First bus address.</param>
    /// <param name="sizeBytes">Bytes, not 0; mappings lie in the range as a whole or not at all.</param>
    /// <param name="cancellation">Gives up waiting for requests in flight, and ends the connection.</param>
    public Task UnmapAsync(ulong iova, ulong sizeBytes, CancellationToken cancellation = default)
    {
        FrontendIommu iommu = _options.Iommu
            ?? throw new InvalidOperationException("this front-end was given no IOMMU");
        ArgumentOutOfRangeException.ThrowIfZero(sizeBytes);
        iommu.Unmap(iova, sizeBytes);
        return HasIommu
            ? IotlbMsgAsync(new IotlbPayload(iova, sizeBytes, 0, 0, IotlbMessageType.Invalidate), cancellation)
            : Task.CompletedTask;
    }

    /// <summary>Serves BACKEND_IOTLB_MSG.</summary>
    private async ValueTask<bool> IotlbMsgAsync(VhostUserMessage message)
    {
        IotlbPayload payload = message.Read<IotlbPayload>();
        if (!HasIommu || _options.Iommu is not { } iommu || payload.Permission is 0 or > (byte)MemoryAccess.ReadWrite)
        {
            return false;
        }

        MemoryAccess access = (MemoryAccess)payload.Permission;
        switch (payload.Type)
        {
            case IotlbMessageType.Miss:
                iommu.CountMiss();
                return await TryTellAsync(iommu, payload.Iova, access, default).ConfigureAwait(false);
            case IotlbMessageType.AccessFail:
                AccessFailed?.Invoke(payload.Iova, access);
                return true;
            default:
                return false;
        }
    }

    /// <summary>Tells the translation of an address.</summary>
    /// <returns>False when there is none that allows the access, or when the back-end refuses it.</returns>
    private async ValueTask<bool> TryTellAsync(
        FrontendIommu iommu, ulong iova, MemoryAccess access, CancellationToken cancellation)
    {
        if (!iommu.TryTranslate(iova, access, out FrontendIommu.Mapping piece))
        {
            return false;
        }

        IotlbPayload update = new(
            piece.Start, piece.Last - piece.Start + 1, ToldAddress(piece.Memory) + piece.Offset, (byte)piece.Access,
            IotlbMessageType.Update);
        try
        {
            await IotlbMsgAsync(update, cancellation).ConfigureAwait(false);
            return true;
        }
        catch (ProtocolException error) when (!error.IsFatal)
        {
            return false;
        }
    }

    /// <summary>Tells where the used ring is before a queue starts, as other front-ends do.</summary>
    private async Task TranslateUsedRingAsync(FrontendQueue queue, CancellationToken cancellation)
    {
        if (HasIommu && _options.Iommu is { } iommu)
        {
            await TryTellAsync(
                iommu, queue.Ring.Addresses.Used, MemoryAccess.ReadWrite, cancellation).ConfigureAwait(false);
        }
    }
}
