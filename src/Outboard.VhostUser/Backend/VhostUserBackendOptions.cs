// How a back-end serves.
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Outboard.Virtio;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Backend;

/// <summary>How a back-end serves its front-ends.</summary>
public sealed record VhostUserBackendOptions
{
    /// <summary>Where the control plane tells what happens. Nothing is logged on the data path.</summary>
    public ILogger Logger { get; init; } = NullLogger.Instance;

    /// <summary>How the threads of the data plane behave.</summary>
    public QueueWorkerOptions Worker { get; init; } = new();

    /// <summary>
    /// Threads for the device's queues; 0 means one for each queue, but not more than there are CPUs.
    /// </summary>
    public int WorkerCount { get; init; }

    /// <summary>
    /// Workers that several devices share, for many devices on few threads; <see cref="Worker"/> and
    /// <see cref="WorkerCount"/> mean nothing then. They belong to the caller, who disposes them after all devices.
    /// </summary>
    public QueueWorkerSet? Workers { get; init; }

    /// <summary>
    /// Protocol features that are offered only when they stand here, since front-ends accept them without having them,
    /// or since they are of little use: INBAND_NOTIFICATIONS and CROSS_ENDIAN. Others have no effect here.
    /// </summary>
    public ProtocolFeatures AdditionalProtocolFeatures { get; init; }

    /// <summary>Protocol features that are not offered although they are built; for tests of a front-end.</summary>
    public ProtocolFeatures WithheldProtocolFeatures { get; init; }

    /// <summary>
    /// Virtio features of the ring that are offered only when they stand here: IN_ORDER, which makes a device that
    /// completes requests in another order than they came slower. Others have no effect here.
    /// </summary>
    public ulong AdditionalFeatures { get; init; }

    /// <summary>
    /// Virtio features that are not offered although ring and device have them; for tests of a driver.
    /// </summary>
    public ulong WithheldFeatures { get; init; }

    /// <summary>Called when the socket accepts connections.</summary>
    public Action? OnListening { get; init; }
}
