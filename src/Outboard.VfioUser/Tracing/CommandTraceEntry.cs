// What a trace consists of: connections that come and go, and the messages on them.
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Tracing;

/// <summary>A channel: a connection, or the twin socket on which its server sends commands.</summary>
/// <param name="Connection">The connection's number, from 1.</param>
/// <param name="IsTwin">Whether it is the twin socket.</param>
public sealed record TracedChannel(int Connection, bool IsTwin)
{
    /// <summary>Short and unique: "1", or "1.t" for its twin socket.</summary>
    public string Name => IsTwin ? $"{Connection}.t" : $"{Connection}";
}

/// <summary>Something that happened.</summary>
/// <param name="Time">Since the trace began.</param>
/// <param name="Channel">Where.</param>
public abstract record CommandTraceEntry(TimeSpan Time, TracedChannel Channel);

/// <summary>A channel was opened, or ended.</summary>
/// <param name="Time">Since the trace began.</param>
/// <param name="Channel">Which.</param>
/// <param name="What">What happened to it.</param>
public sealed record TracedChannelEntry(TimeSpan Time, TracedChannel Channel, string What)
    : CommandTraceEntry(Time, Channel);

/// <summary>A message was seen.</summary>
/// <param name="Time">Since the trace began.</param>
/// <param name="Channel">Where.</param>
public sealed record TracedMessageEntry(TimeSpan Time, TracedChannel Channel) : CommandTraceEntry(Time, Channel)
{
    /// <summary>Its number in the trace, from 1.</summary>
    public required long Number { get; init; }

    /// <summary>Whether the client sent it.</summary>
    public required bool IsFromClient { get; init; }

    /// <summary>Its header.</summary>
    public required MessageHeader Header { get; init; }

    /// <summary>The command's row; null when the number is unknown.</summary>
    public required CommandRow? Row { get; init; }

    /// <summary>Its payload, or the beginning of one that is very long.</summary>
    public required ReadOnlyMemory<byte> Payload { get; init; }

    /// <summary>Descriptors that came with it.</summary>
    public required int DescriptorCount { get; init; }

    /// <summary>The number of the command that it answers; null when it answers none.</summary>
    public long? Answers { get; init; }

    /// <summary>Time since that command.</summary>
    public TimeSpan Latency { get; init; }

    /// <summary>What is wrong with it by the table; null when nothing is.</summary>
    public string? Problem { get; init; }
}
