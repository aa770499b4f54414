// Auxiliary notifications, as the drafts of virtio-vhost-user have them: doorbells and interrupts of a device that
// belong to no queue. Which way they take is the transport's business; over PCI they have two capabilities.
namespace Outboard.Virtio;

/// <summary>What a device with auxiliary notifications is, beside a <see cref="VirtioDevice"/>.</summary>
public interface IAuxiliaryNotifications
{
    /// <summary>Doorbells: notifications from driver to device.</summary>
    int DoorbellCount { get; }

    /// <summary>Notifications from device to driver.</summary>
    int NotificationCount { get; }

    /// <summary>
    /// Set by a transport that carries notifications: called with a notification's number, on any thread, to interrupt
    /// the driver. Null while there is none.
    /// </summary>
    Action<int>? Notified { get; set; }

    /// <summary>The driver rang a doorbell. Called on any thread; waits for nothing.</summary>
    void Ring(int doorbell);
}
