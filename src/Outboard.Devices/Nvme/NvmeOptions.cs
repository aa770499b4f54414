// What an operator can choose about an NVMe controller.
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Outboard.Virtio;

namespace Outboard.Devices.Nvme;

/// <summary>How an NVMe controller presents itself.</summary>
public sealed record NvmeOptions
{
    /// <summary>Most I/O queue pairs: a driver with one for each CPU rarely has more, and each has a vector.</summary>
    public const int MaxQueuePairs = 255;

    /// <summary>Longest serial number.</summary>
    public const int SerialBytes = 20;

    /// <summary>Longest model number.</summary>
    public const int ModelBytes = 40;

    /// <summary>
    /// The serial number, up to 20 ASCII characters. The name of the subsystem is made of it, so controllers of one
    /// guest must have different ones.
    /// </summary>
    public string Serial { get; init; } = "outboard";

    /// <summary>The model number, up to 40 ASCII characters.</summary>
    public string Model { get; init; } = "Outboard NVMe Controller";

    /// <summary>I/O queue pairs that a driver may make.</summary>
    public int QueuePairs { get; init; } = 32;

    /// <summary>Most entries of an I/O queue: 2 to 4096, a power of two.</summary>
    public int QueueSize { get; init; } = 1024;

    /// <summary>Distance between doorbells: 4 bytes shifted left by this, 0 to 10.</summary>
    public int DoorbellStride { get; init; }

    /// <summary>Threads that serve I/O queues; 0 for one for each CPU, at most one for each queue pair.</summary>
    public int WorkerCount { get; init; }

    /// <summary>How the threads behave.</summary>
    public QueueWorkerOptions Worker { get; init; } = new();

    /// <summary>Whether completed writes may stay in a volatile cache until a flush, at first.</summary>
    public bool WriteCache { get; init; } = true;

    /// <summary>Whether drivers may keep doorbells in memory (shadow doorbells).</summary>
    public bool ShadowDoorbells { get; init; } = true;

    /// <summary>
    /// Whether the controller has MSI-X, with a vector for each queue; otherwise it has MSI, with one for all. A
    /// function without MSI-X can be unplugged from QEMU 11.1, which ends itself when one with MSI-X is.
    /// </summary>
    public bool HasMsix { get; init; } = true;

    /// <summary>Where the control plane tells what happens.</summary>
    public ILogger Logger { get; init; } = NullLogger.Instance;
}
