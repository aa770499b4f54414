// How a front-end gets its back-end back, and why it may refuse it.
using Outboard.VhostUser.Channel;

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

    /// <summary>"features", "protocol features", "queues", "memory slots" or "config".</summary>
    public string Field { get; }
}

/// <summary>What a driver relies on, and each back-end must have.</summary>
internal sealed record BackendIdentity(
    ulong Features, Protocol.ProtocolFeatures ProtocolFeatures, int QueueCount, ulong MemorySlots, byte[] Config)
{
    /// <summary>Reads it from a back-end after negotiation.</summary>
    internal static async Task<BackendIdentity> ReadAsync(
        VhostUserFrontend frontend, int configSizeBytes, CancellationToken cancellation)
    {
        ulong slots = frontend.Has(Protocol.ProtocolFeatures.ConfigureMemSlots)
            ? await frontend.GetMaxMemSlotsAsync(cancellation).ConfigureAwait(false) : 0;
        byte[] config = configSizeBytes > 0 && frontend.Has(Protocol.ProtocolFeatures.Config)
            ? await frontend.GetConfigAsync(0, configSizeBytes, cancellation).ConfigureAwait(false) : [];
        return new BackendIdentity(
            frontend.Features, frontend.ProtocolFeatures, frontend.QueueCount, slots, config);
    }

    /// <summary>Checks a successor. More than before is no hindrance: it is not used.</summary>
    /// <exception cref="BackendMismatchException">It lacks something, or its configuration differs.</exception>
    internal void Check(BackendIdentity successor)
    {
        Expect("features", (Features & ~successor.Features) == 0,
            $"0x{Features:x} are in use, 0x{Features & ~successor.Features:x} of them are not offered any more");
        Protocol.ProtocolFeatures missing = ProtocolFeatures & ~successor.ProtocolFeatures;
        Expect("protocol features", missing == 0,
            $"0x{(ulong)ProtocolFeatures:x} are in use, {missing} is not offered any more");
        Expect("queues", successor.QueueCount >= QueueCount, $"{successor.QueueCount}, there were {QueueCount}");
        Expect("memory slots", successor.MemorySlots >= MemorySlots,
            $"{successor.MemorySlots}, there were {MemorySlots}");
        int differing = Config.AsSpan().CommonPrefixLength(successor.Config);
        Expect("config", differing == Config.Length, $"differs from byte {differing} on");
    }

    private static void Expect(string field, bool holds, string problem)
    {
        if (!holds)
        {
            throw new BackendMismatchException(field, problem);
        }
    }
}
