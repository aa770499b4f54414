// How a virtio device behaves as a PCI function.
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;

namespace Outboard.Virtio.Pci;

/// <summary>How a device is served as a PCI function.</summary>
public sealed record VirtioPciOptions
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
    /// Virtio features of the ring that are offered only when they stand here: IN_ORDER, which makes a device that
    /// completes requests in another order than they came slower. Others have no effect here.
    /// </summary>
    public ulong AdditionalFeatures { get; init; }

    /// <summary>
    /// Whether the function has MSI-X; otherwise drivers use the pin, which costs more for each interrupt. A function
    /// without can be unplugged from QEMU 11.1, which ends itself when one with MSI-X is.
    /// </summary>
    public bool HasMsix { get; init; } = true;

    /// <summary>Features that are not offered although ring and device have them; for tests of a driver.</summary>
    public ulong WithheldFeatures { get; init; }
}
