// How a server serves.
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Server;

/// <summary>How a server serves its clients.</summary>
public sealed record VfioUserServerOptions
{
    /// <summary>Where the control plane tells what happens. Nothing is logged for an access.</summary>
    public ILogger Logger { get; init; } = NullLogger.Instance;

    /// <summary>Most windows of guest memory that a client may announce at a time.</summary>
    public int MaxDmaMaps { get; init; } = VersionCapabilities.DefaultMaxDmaMaps;

    /// <summary>
    /// How long a command may take. Then it is answered as failed, whatever the device is doing: QEMU waits 5 s for an
    /// answer, and an answer that comes later breaks its connection for good.
    /// </summary>
    public TimeSpan AnswerLimit { get; init; } = TimeSpan.FromSeconds(4);

    /// <summary>How long the client may take to answer a command of ours.</summary>
    public TimeSpan RequestLimit { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>
    /// Bytes of an entry of DEVICE_GET_REGION_IO_FDS: 40 as the specification has it, or 48 as libvfio-user.
    /// </summary>
    public int IoFdEntryBytes { get; init; } = IoEventFdEntry.Bytes;

    /// <summary>
    /// Whether doorbells with a value are offered as shadows, an addition of libvfio-user's: entries of 48 bytes.
    /// </summary>
    public bool OffersShadowDoorbells { get; init; }

    /// <summary>Called when the socket accepts connections.</summary>
    public Action? OnListening { get; init; }
}
