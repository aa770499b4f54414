// Writes the entries of a vhost-user trace, one on a line.
//
//   0.000153  1     F>B  #1 GET_FEATURES
//   0.000301  1     B>F  #2 GET_FEATURES reply to #1 after 148 us: features=0x140000000(PROTOCOL_FEATURES|VERSION_1)
using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Json;
using Outboard.Cli.Text;
using Outboard.VhostUser.Protocol;
using Outboard.VhostUser.Tracing;

namespace Outboard.Cli.Trace;

/// <summary>Writes entries. One call at a time.</summary>
internal sealed class TraceWriter(LineOutput output, bool isJson)
{
    private readonly ArrayBufferWriter<byte> _bytes = new();

    public void Write(TraceEntry entry) =>
        output.Write(isJson ? ToJson(entry) : Encoding.UTF8.GetBytes(ToText(entry)));

    /// <summary>One line of text.</summary>
    public static string ToText(TraceEntry entry)
    {
        string seconds = entry.Time.TotalSeconds.ToString("0.000000", CultureInfo.InvariantCulture);
        StringBuilder line = new($"{seconds,11}  {entry.Channel.Name,-5} ");
        if (entry is ChannelEntry channel)
        {
            return line.Append($"---  {channel.What}\n").ToString();
        }

        MessageEntry message = (MessageEntry)entry;
        line.Append(message.IsFromFrontend ? "F>B" : "B>F");
        line.Append($"  #{message.Number} {message.Name ?? $"request {message.Header.Request}"}");
        AppendFlags(line, message);
        FieldText.Append(line, message.Fields);
        if (message.Fields.Count == 0 && message.Header.SizeBytes > 0)
        {
            line.Append($" {message.Header.SizeBytes} bytes");
        }

        if (message.DescriptorCount > 0)
        {
            line.Append($" fds={message.DescriptorCount}");
        }

        if (message.Problem is { } problem)
        {
            line.Append($" !! {problem}");
        }

        return line.Append('\n').ToString();
    }

    private static void AppendFlags(StringBuilder line, MessageEntry message)
    {
        const MessageFlags known = MessageFlags.VersionMask | MessageFlags.Reply | MessageFlags.NeedReply;
        if ((message.Header.Flags & MessageFlags.NeedReply) != 0)
        {
            line.Append(" need_reply");
        }

        if ((message.Header.Flags & ~known) != 0
            || (message.Header.Flags & MessageFlags.VersionMask) > MessageFlags.Version1)
        {
            line.Append($" flags=0x{(uint)message.Header.Flags:x}");
        }

        if (message.Answers is { } number)
        {
            line.Append($" reply to #{number} after {message.Latency.TotalMicroseconds:0} us:");
        }
        else if (message.IsReply)
        {
            line.Append(" reply:");
        }
    }

    private byte[] ToJson(TraceEntry entry)
    {
        _bytes.ResetWrittenCount();
        using (Utf8JsonWriter json = new(_bytes))
        {
            json.WriteStartObject();
            json.WriteNumber("time", Math.Round(entry.Time.TotalSeconds, 6));
            json.WriteNumber("connection", entry.Channel.Connection);
            json.WriteString("channel", entry.Channel.Name);
            if (entry is ChannelEntry channel)
            {
                json.WriteString("event", channel.What);
            }
            else
            {
                WriteMessage(json, (MessageEntry)entry);
            }

            json.WriteEndObject();
        }

        return [.. _bytes.WrittenSpan, (byte)'\n'];
    }

    private static void WriteMessage(Utf8JsonWriter json, MessageEntry message)
    {
        json.WriteNumber("number", message.Number);
        json.WriteString("from", message.IsFromFrontend ? "front-end" : "back-end");
        json.WriteNumber("request", message.Header.Request);
        json.WriteString("name", message.Name);
        json.WriteNumber("flags", (uint)message.Header.Flags);
        json.WriteBoolean("reply", message.IsReply);
        json.WriteBoolean("need_reply", (message.Header.Flags & MessageFlags.NeedReply) != 0);
        json.WriteNumber("size", message.Header.SizeBytes);
        json.WriteNumber("fds", message.DescriptorCount);
        if (message.Answers is { } number)
        {
            json.WriteNumber("answers", number);
            json.WriteNumber("latency_us", Math.Round(message.Latency.TotalMicroseconds));
        }

        json.WriteStartObject("fields");
        FieldText.Write(json, message.Fields);
        json.WriteEndObject();
        if (message.Fields.Count == 0 && !message.Payload.IsEmpty)
        {
            json.WriteString("payload", Convert.ToHexStringLower(message.Payload.Span));
        }

        if (message.Problem is { } problem)
        {
            json.WriteString("problem", problem);
        }
    }
}
