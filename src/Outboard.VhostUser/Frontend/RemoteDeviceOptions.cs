// How somebody else's back-end becomes a device.
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;

namespace Outboard.VhostUser.Frontend;

/// <summary>How a back-end becomes a device.</summary>
public sealed record RemoteDeviceOptions
{
    /// <summary>Where the control plane tells what happens.</summary>
    public ILogger Logger { get; init; } = NullLogger.Instance;

    /// <summary>The device type; null to tell it from the features, which works for some types.</summary>
    public VirtioDeviceId? Type { get; init; }

    /// <summary>Queues; null for as many as the configuration space and the back-end tell.</summary>
    public int? QueueCount { get; init; }

    /// <summary>Largest size of a queue. Back-ends do not tell theirs; every one takes 256.</summary>
    public int QueueSize { get; init; } = 256;

    /// <summary>A network device's address, 6 bytes, where the back-end has no configuration space; null for a random
    /// one.</summary>
    public IReadOnlyList<byte>? Mac { get; init; }

    /// <summary>A file system's tag, where the back-end has none.</summary>
    public string? Tag { get; init; }

    /// <summary>Features that are not offered although the back-end has them.</summary>
    public ulong WithheldFeatures { get; init; }

    /// <summary>Protocol features to do without.</summary>
    public ProtocolFeatures WithheldProtocolFeatures { get; init; }

    /// <summary>Longest wait for a back-end's answer.</summary>
    public TimeSpan ReplyTimeout { get; init; } = TimeSpan.FromSeconds(30);

    /// <summary>How long the first back-end may take to appear.</summary>
    public TimeSpan ConnectLimit { get; init; } = TimeSpan.FromSeconds(60);
}
