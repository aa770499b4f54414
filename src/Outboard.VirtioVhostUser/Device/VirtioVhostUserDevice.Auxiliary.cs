// The notifications of the drafts of 2022, for a transport that has them (PCI: capabilities 6 and 7):
//
//   doorbells      0 .. N-1 call of ring i     N .. 2N-1 ring i is broken     2N the log has changed
//   notifications  0 .. N-1 kick of ring i
//
// A driver that took AUX_BY_QUEUE has its kicks by queues; doorbells of either kind reach the same slots.
using Outboard.Virtio;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.Device;

public sealed partial class VirtioVhostUserDevice : IAuxiliaryNotifications
{
    private KickWatch? _kicks;

    /// <inheritdoc/>
    int IAuxiliaryNotifications.DoorbellCount => (2 * Rings) + 1;

    /// <inheritdoc/>
    int IAuxiliaryNotifications.NotificationCount => Rings;

    /// <inheritdoc/>
    public Action<int>? Notified { get; set; }

    /// <inheritdoc/>
    void IAuxiliaryNotifications.Ring(int doorbell)
    {
        int slot = VirtioVhostUserSpec.SlotOfDoorbell(doorbell, Rings);
        if ((uint)slot < (uint)_slots.Length)
        {
            _slots[slot].Ring();
        }
    }

    /// <summary>Who waits for kicks where no queue does; null where queues are to do it.</summary>
    internal KickWatch? Kicks => Notified is null
        || (NegotiatedFeatures & VirtioVhostUserSpec.AuxiliaryByQueue) != 0
        ? null
        : LazyInitializer.EnsureInitialized(ref _kicks, () => new KickWatch(ring => Notified?.Invoke(ring)));
}
