// What a line of a trace says, whichever protocol it is of, and how it is written: as text or as JSON.
using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Json;
using Outboard.Cli.Text;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Trace;

/// <summary>A line of a trace.</summary>
/// <param name="Time">Since the beginning of the trace.</param>
/// <param name="Connection">The connection's number.</param>
/// <param name="Channel">The channel's name within it.</param>
/// <param name="Event">What happened to the channel; null for a message.</param>
/// <param name="Message">The message; null for an event.</param>
internal readonly record struct TraceLine(
    TimeSpan Time, int Connection, string Channel, string? Event, TracedMessage? Message)
{
    /// <summary>The line as text, with its end.</summary>
    public string ToText()
    {
        string seconds = Time.TotalSeconds.ToString("0.000000", CultureInfo.InvariantCulture);
        StringBuilder line = new($"{seconds,11}  {Channel,-5} ");
        if (Message is { } message)
        {
            message.Append(line);
        }
        else
        {
            line.Append($"---  {Event}");
        }

        return line.Append('\n').ToString();
    }

    /// <summary>The line as one JSON object.</summary>
    public void Write(Utf8JsonWriter json)
    {
        json.WriteStartObject();
        json.WriteNumber("time", Math.Round(Time.TotalSeconds, 6));
        json.WriteNumber("connection", Connection);
        json.WriteString("channel", Channel);
        if (Message is { } message)
        {
            message.Write(json);
        }
        else
        {
            json.WriteString("event", Event);
        }

        json.WriteEndObject();
    }
}

/// <summary>A message, in the words of its protocol.</summary>
internal sealed class TracedMessage
{
    /// <summary>The direction as text has it: three characters.</summary>
    public required string Arrow { get; init; }

    /// <summary>Who sent it, as JSON has it.</summary>
    public required string From { get; init; }

    public required long Number { get; init; }

    /// <summary>The name, or how to call what has none, and what else identifies the message.</summary>
    public required string Title { get; init; }

    /// <summary>Remarkable flags, each behind a blank.</summary>
    public required string Flags { get; init; }

    /// <summary>Writes the header's fields that only this protocol has.</summary>
    public required Action<Utf8JsonWriter> WriteHeader { get; init; }

    public required bool IsReply { get; init; }

    /// <summary>The number of the message that this one answers, when it was seen.</summary>
    public required long? Answers { get; init; }

    /// <summary>Since that message.</summary>
    public required TimeSpan Latency { get; init; }

    /// <summary>The error that a reply carries.</summary>
    public uint? Error { get; init; }

    public required IReadOnlyList<FieldValue> Fields { get; init; }

    public required ReadOnlyMemory<byte> Payload { get; init; }

    /// <summary>The payload's size as the header has it, bytes.</summary>
    public required long PayloadBytes { get; init; }

    public required int DescriptorCount { get; init; }

    /// <summary>What is wrong with the message.</summary>
    public required string? Problem { get; init; }

    public void Append(StringBuilder line)
    {
        line.Append($"{Arrow}  #{Number} {Title}{Flags}");
        if (Answers is { } number)
        {
            line.Append($" reply to #{number} after {Latency.TotalMicroseconds:0} us:");
        }
        else if (IsReply)
        {
            line.Append(" reply:");
        }

        if (Error is { } error)
        {
            line.Append($" error={error}");
        }

        FieldText.Append(line, Fields);
        if (Fields.Count == 0 && PayloadBytes > 0)
        {
            line.Append($" {PayloadBytes} bytes");
        }

        if (DescriptorCount > 0)
        {
            line.Append($" fds={DescriptorCount}");
        }

        if (Problem is { } problem)
        {
            line.Append($" !! {problem}");
        }
    }

    public void Write(Utf8JsonWriter json)
    {
        json.WriteNumber("number", Number);
        json.WriteString("from", From);
        WriteHeader(json);
        json.WriteNumber("fds", DescriptorCount);
        if (Error is { } error)
        {
            json.WriteNumber("error", error);
        }

        if (Answers is { } number)
        {
            json.WriteNumber("answers", number);
            json.WriteNumber("latency_us", Math.Round(Latency.TotalMicroseconds));
        }

        json.WriteStartObject("fields");
        FieldText.Write(json, Fields);
        json.WriteEndObject();
        if (Fields.Count == 0 && !Payload.IsEmpty)
        {
            json.WriteString("payload", Convert.ToHexStringLower(Payload.Span));
        }

        if (Problem is { } problem)
        {
            json.WriteString("problem", problem);
        }
    }
}

/// <summary>Writes lines to an output. One call at a time.</summary>
internal sealed class TraceLineWriter(LineOutput output, bool isJson)
{
    private readonly ArrayBufferWriter<byte> _bytes = new();

    public void Write(in TraceLine line) => output.Write(isJson ? ToJson(line) : Encoding.UTF8.GetBytes(line.ToText()));

    private byte[] ToJson(in TraceLine line)
    {
        _bytes.ResetWrittenCount();
        using (Utf8JsonWriter json = new(_bytes))
        {
            line.Write(json);
        }

        return [.. _bytes.WrittenSpan, (byte)'\n'];
    }
}
