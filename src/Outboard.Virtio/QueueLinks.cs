// How a running queue is connected to the outside: kicks in, calls and faults out.
using Outboard.Memory;
using Outboard.Virtio.Queue;

namespace Outboard.Virtio;

/// <summary>The connections of a running queue.</summary>
/// <remarks>
/// The queue takes ownership of the notifiers and disposes them when it is stopped or they are replaced.
/// </remarks>
public sealed class QueueLinks
{
    /// <summary>Driver to device; null when the driver does not kick and the ring is to be polled.</summary>
    public Notifier? Kick { get; init; }

    /// <summary>
    /// Whether kicks come by <see cref="RunningQueue.StartAsync"/> instead of <see cref="Kick"/>, so that a ring
    /// without
    /// one need not be polled.
    /// </summary>
    public bool IsKickedByMessage { get; init; }

    /// <summary>Device to driver; null when the driver polls.</summary>
    public Notifier? Call { get; init; }

    /// <summary>Whether the ring counts as started before the first kick arrives.</summary>
    public bool IsStarted { get; init; }

    /// <summary>Whether the ring is enabled from the beginning.</summary>
    public bool IsEnabled { get; init; }

    /// <summary>Called on the queue's thread when the driver broke the ring; it is parked then.</summary>
    public Action<int, VirtqueueFault>? Faulted { get; init; }

    /// <summary>
    /// Called on the queue's thread when it needs translations: whoever set the queue up gets them, and hands them to
    /// <see cref="RunningQueue.Translate(IommuEntry)"/> or tells <see cref="RunningQueue.RefuseTranslation"/>.
    /// </summary>
    public Action<RunningQueue, IReadOnlyList<IovaMiss>>? Untranslated { get; init; }

    /// <summary>Called on the queue's thread when the IOMMU does not allow an access; the ring is parked.</summary>
    public Action<int, IovaMiss>? AccessFailed { get; init; }

    /// <summary>Called on the queue's thread when this program broke; the queue is parked then.</summary>
    public Action<int, Exception>? Failed { get; init; }
}
