// How a client behaves.
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Client;

/// <summary>How a client behaves towards its server.</summary>
public sealed record VfioUserClientOptions
{
    /// <summary>How long the server may take to answer.</summary>
    public TimeSpan AnswerLimit { get; init; } = TimeSpan.FromSeconds(10);

    /// <summary>Whether a second socket for the server's commands is asked for.</summary>
    public bool WantsTwinSocket { get; init; } = true;

    /// <summary>Bytes of data that a message may have in the server's direction of asking.</summary>
    public int MaxTransferBytes { get; init; } = VersionCapabilities.MaxTransferBytes;

    /// <summary>
    /// How long a lost server is waited for: it is connected to again, and gets windows and interrupts again. Zero: a
    /// loss is final.
    /// </summary>
    public TimeSpan ReconnectLimit { get; init; }
}
