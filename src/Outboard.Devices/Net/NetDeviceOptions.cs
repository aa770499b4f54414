// What an operator can choose about a network device.
using System.Net.NetworkInformation;

namespace Outboard.Devices.Net;

/// <summary>How a network device presents itself.</summary>
public sealed record NetDeviceOptions
{
    /// <summary>The driver's address; null leaves it to the driver, or to the front-end.</summary>
    public PhysicalAddress? Mac { get; init; }

    /// <summary>The MTU told to the driver; 0 tells none.</summary>
    public int Mtu { get; init; }

    /// <summary>Pairs of queues, as many as the back-end has at most.</summary>
    public int PairCount { get; init; } = 1;

    /// <summary>Largest size of each virtqueue.</summary>
    public int QueueSize { get; init; } = 1024;

    /// <summary>
    /// Whether the device has a control queue. QEMU answers that queue itself and passes the others on, so that a
    /// vhost-user device for it has none.
    /// </summary>
    public bool HasControlQueue { get; init; }
}
