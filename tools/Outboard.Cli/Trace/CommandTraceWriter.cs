// Writes the entries of a vfio-user trace, one on a line.
//
//   0.000153  1     C>S  #1 DEVICE_GET_INFO id=3 argsz=16 flags=0x0 num_regions=0 num_irqs=0
//   0.000301  1     S>C  #2 DEVICE_GET_INFO id=3 reply to #1 after 148 us: argsz=16 flags=0x3(RESET|PCI) ...
using System.Buffers;
using System.Globalization;
using System.Text;
using System.Text.Json;
using Outboard.Cli.Text;
using Outboard.VfioUser.Protocol;
using Outboard.VfioUser.Tracing;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Trace;

/// <summary>Writes entries. One call at a time.</summary>
internal sealed class CommandTraceWriter(LineOutput output, bool isJson)
{
    private readonly ArrayBufferWriter<byte> _bytes = new();

    public void Write(CommandTraceEntry entry) =>
        output.Write(isJson ? ToJson(entry) : Encoding.UTF8.GetBytes(ToText(entry)));

    /// <summary>One line of text.</summary>
    public static string ToText(CommandTraceEntry entry)
    {
        string seconds = entry.Time.TotalSeconds.ToString("0.000000", CultureInfo.InvariantCulture);
        StringBuilder line = new($"{seconds,11}  {entry.Channel.Name,-5} ");
        if (entry is TracedChannelEntry channel)
        {
            return line.Append($"---  {channel.What}\n").ToString();
        }

        TracedMessageEntry message = (TracedMessageEntry)entry;
        MessageHeader header = message.Header;
        line.Append(message.IsFromClient ? "C>S" : "S>C");
        line.Append($"  #{message.Number} {NameOf(message)} id={header.Id}");
        AppendFlags(line, message);
        IReadOnlyList<FieldValue> fields = CommandFields.Of(message);
        FieldText.Append(line, fields);
        if (fields.Count == 0 && message.Payload.Length > 0)
        {
            line.Append($" {message.Payload.Length} bytes");
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

    private static string NameOf(TracedMessageEntry message) =>
        message.Row?.Name ?? $"command {(ushort)message.Header.Command}";

    private static void AppendFlags(StringBuilder line, TracedMessageEntry message)
    {
        const MessageFlags known = MessageFlags.TypeMask | MessageFlags.NoReply | MessageFlags.Error;
        MessageHeader header = message.Header;
        if (!header.WantsReply)
        {
            line.Append(" no_reply");
        }

        if ((header.Flags & ~known) != 0 || !(header.IsReply || header.IsCommand))
        {
            line.Append($" flags=0x{(uint)header.Flags:x}");
        }

        if (message.Answers is { } number)
        {
            line.Append($" reply to #{number} after {message.Latency.TotalMicroseconds:0} us:");
        }
        else if (header.IsReply)
        {
            line.Append(" reply:");
        }

        if ((header.Flags & MessageFlags.Error) != 0)
        {
            line.Append($" error={header.Error}");
        }
    }

    private byte[] ToJson(CommandTraceEntry entry)
    {
        _bytes.ResetWrittenCount();
        using (Utf8JsonWriter json = new(_bytes))
        {
            json.WriteStartObject();
            json.WriteNumber("time", Math.Round(entry.Time.TotalSeconds, 6));
            json.WriteNumber("connection", entry.Channel.Connection);
            json.WriteString("channel", entry.Channel.Name);
            if (entry is TracedChannelEntry channel)
            {
                json.WriteString("event", channel.What);
            }
            else
            {
                WriteMessage(json, (TracedMessageEntry)entry);
            }

            json.WriteEndObject();
        }

        return [.. _bytes.WrittenSpan, (byte)'\n'];
    }

    private static void WriteMessage(Utf8JsonWriter json, TracedMessageEntry message)
    {
        MessageHeader header = message.Header;
        json.WriteNumber("number", message.Number);
        json.WriteString("from", message.IsFromClient ? "client" : "server");
        json.WriteNumber("command", (ushort)header.Command);
        json.WriteString("name", message.Row?.Name);
        json.WriteNumber("id", header.Id);
        json.WriteNumber("flags", (uint)header.Flags);
        json.WriteBoolean("reply", header.IsReply);
        json.WriteBoolean("no_reply", !header.WantsReply);
        json.WriteNumber("size", header.SizeBytes);
        json.WriteNumber("fds", message.DescriptorCount);
        if ((header.Flags & MessageFlags.Error) != 0)
        {
            json.WriteNumber("error", header.Error);
        }

        if (message.Answers is { } number)
        {
            json.WriteNumber("answers", number);
            json.WriteNumber("latency_us", Math.Round(message.Latency.TotalMicroseconds));
        }

        IReadOnlyList<FieldValue> fields = CommandFields.Of(message);
        json.WriteStartObject("fields");
        FieldText.Write(json, fields);
        json.WriteEndObject();
        if (fields.Count == 0 && !message.Payload.IsEmpty)
        {
            json.WriteString("payload", Convert.ToHexStringLower(message.Payload.Span));
        }

        if (message.Problem is { } problem)
        {
            json.WriteString("problem", problem);
        }
    }
}
