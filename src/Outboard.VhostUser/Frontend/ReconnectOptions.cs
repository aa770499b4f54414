// How a front-end gets its back-end back, and why it may refuse it.

namespace Outboard.VhostUser.Frontend;

/// <summary>How a front-end gets its back-end back.</summary>
public sealed record ReconnectOptions
{
    /// <summary>How long a back-end may be away; <see cref="Timeout.InfiniteTimeSpan"/> waits for ever.</summary>
    public TimeSpan Limit { get; init; } = TimeSpan.FromSeconds(60);

    /// <summary>How long the first back-end may be away; null for <see cref="Limit"/>.</summary>
    public TimeSpan? ConnectLimit { get; init; }

    /// <summary>The first delay between two attempts.</summary>
    public TimeSpan FirstDelay { get; init; } = TimeSpan.FromMilliseconds(10);

    /// <summary>The longest delay between two attempts.</summary>
    public TimeSpan LongestDelay { get; init; } = TimeSpan.FromSeconds(1);

    /// <summary>
    /// Bytes of the configuration space, from its start, that must be the same at each back-end; 0 compares none.
    /// </summary>
    public int ConfigSizeBytes { get; init; }

    /// <summary>Whether to ask for an in-flight region, when the back-end has them.</summary>
    public bool TrackInflight { get; init; } = true;
}

/// <summary>The back-end that came back is not the one that the driver knows.</summary>
public sealed class BackendMismatchException : IOException
{
    /// <summary>Names what differs.</summary>
    /// <param name="field">The field, as <see cref="Field"/>.</param>
    /// <param name="message">What was, and what is.</param>
    public BackendMismatchException(string field, string message)
        : base($"the back-end that came back is another one: {field}: {message}") => Field = field;

    /// <summary>
    /// "features", "protocol features", "queues", "device", "memory slots", "shared memory", "config", "status",
    /// "crypto session" or "post-copy".
    /// </summary>
    public string Field { get; }
}
