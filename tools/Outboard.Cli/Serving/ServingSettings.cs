// What every back-end was asked for, and what follows from it.
using Microsoft.Extensions.Logging;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Serving;

/// <summary>The settings that all back-ends share. Null means that nothing was said.</summary>
internal sealed record ServingSettings
{
    public string? SocketPath { get; init; }

    /// <summary>Where a front-end listens.</summary>
    public string? PeerPath { get; init; }

    public int? DescriptorNumber { get; init; }

    public string? VfioUserPath { get; init; }

    /// <summary>Whether the device has MSI-X as a PCI function.</summary>
    public bool HasMsix { get; init; } = true;

    /// <summary>Where a virtio-vhost-user device is.</summary>
    public string? PciAddress { get; init; }

    public ThreadSettings Threads { get; init; } = new();

    /// <summary>Whether requests are returned in the order they came, for drivers that want that.</summary>
    public bool IsInOrder { get; init; }

    public bool OffersInbandNotifications { get; init; }

    public bool OffersLifeCycle { get; init; }

    public LogLevel LogLevel { get; init; } = LogLevel.Information;

    /// <summary>Opens the socket.</summary>
    /// <exception cref="CommandLineException">None or several are given, or the descriptor is unfit.</exception>
    /// <exception cref="IOException">The path cannot be bound.</exception>
    public ServedSocket OpenSocket() => ServedSocket.Open(this);

    /// <summary>How the device is served.</summary>
    /// <param name="log">Where it is told what happens.</param>
    /// <param name="worker">What the device's threads need beyond these settings.</param>
    public VhostUserBackendOptions ToBackendOptions(ILogger log, QueueWorkerOptions? worker = null) => new()
    {
        Logger = log,
        WorkerCount = Threads.Count,
        Worker = Threads.Apply(worker ?? new QueueWorkerOptions()),
        AdditionalFeatures = IsInOrder ? VirtioFeatures.InOrder : 0,
        AdditionalProtocolFeatures =
            (OffersInbandNotifications ? ProtocolFeatures.InbandNotifications : ProtocolFeatures.None)
            | (OffersLifeCycle ? ProtocolFeatures.LifeCycle : ProtocolFeatures.None),
    };
}
