// What a trace consists of: connections that come and go, and the messages on them.
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Tracing;

/// <summary>Which channel of a connection.</summary>
public enum TracedChannelKind
{
    /// <summary>The connection itself: requests of the front-end.</summary>
    Main,

    /// <summary>The channel that SET_BACKEND_REQ_FD handed over: requests of the back-end.</summary>
    Backend,

    /// <summary>The channel that GPU_SET_SOCKET handed over: requests of the back-end to the display.</summary>
    Display,
}

/// <summary>A channel.</summary>
/// <param name="Connection">The connection's number, from 1.</param>
/// <param name="Kind">Which of its channels.</param>
/// <param name="Index">The how many-th of its kind on this connection, from 1.</param>
public sealed record TracedChannel(int Connection, TracedChannelKind Kind, int Index)
{
    /// <summary>Short and unique: "1", or "1.b2" for the second back-end channel of connection 1.</summary>
    public string Name => Kind switch
    {
        TracedChannelKind.Main => $"{Connection}",
        TracedChannelKind.Backend => $"{Connection}.b{Index}",
        _ => $"{Connection}.d{Index}",
    };
}

/// <summary>Something that happened.</summary>
/// <param name="Time">Since the trace began.</param>
/// <param name="Channel">Where.</param>
public abstract record TraceEntry(TimeSpan Time, TracedChannel Channel);

/// <summary>A channel was opened, or ended.</summary>
/// <param name="Time">Since the trace began.</param>
/// <param name="Channel">Which.</param>
/// <param name="What">What happened to it.</param>
public sealed record ChannelEntry(TimeSpan Time, TracedChannel Channel, string What) : TraceEntry(Time, Channel);

/// <summary>A message was seen.</summary>
/// <param name="Time">Since the trace began.</param>
/// <param name="Channel">Where.</param>
public sealed record MessageEntry(TimeSpan Time, TracedChannel Channel) : TraceEntry(Time, Channel)
{
    /// <summary>Its number in the trace, from 1.</summary>
    public required long Number { get; init; }

    /// <summary>Whether the front-end sent it.</summary>
    public required bool IsFromFrontend { get; init; }

    /// <summary>Its header.</summary>
    public required MessageHeader Header { get; init; }

    /// <summary>The request's name; null when the number is unknown.</summary>
    public required string? Name { get; init; }

    /// <summary>Its payload, or the beginning of one that is very long.</summary>
    public required ReadOnlyMemory<byte> Payload { get; init; }

    /// <summary>Descriptors that came with it.</summary>
    public required int DescriptorCount { get; init; }

    /// <summary>The payload's fields.</summary>
    public required IReadOnlyList<FieldValue> Fields { get; init; }

    /// <summary>The number of the request that it answers; null when it answers none.</summary>
    public long? Answers { get; init; }

    /// <summary>Time since that request.</summary>
    public TimeSpan Latency { get; init; }

    /// <summary>What is wrong with it by the table; null when nothing is.</summary>
    public string? Problem { get; init; }

    /// <summary>Whether the flag for replies is set.</summary>
    public bool IsReply => (Header.Flags & MessageFlags.Reply) != 0;
}
