// What a line says of an entry of a vfio-user trace.
//
//   0.000153  1     C>S  #1 DEVICE_GET_INFO id=3 argsz=16 flags=0x0 num_regions=0 num_irqs=0
//   0.000301  1     S>C  #2 DEVICE_GET_INFO id=3 reply to #1 after 148 us: argsz=16 flags=0x3(RESET|PCI) ...
using Outboard.VfioUser.Protocol;
using Outboard.VfioUser.Tracing;

namespace Outboard.Cli.Trace;

internal static class VfioUserTraceLine
{
    public static TraceLine Of(CommandTraceEntry entry) => new(
        entry.Time, entry.Channel.Connection, entry.Channel.Name, (entry as TracedChannelEntry)?.What,
        entry is TracedMessageEntry message ? Of(message) : null);

    private static TracedMessage Of(TracedMessageEntry message)
    {
        MessageHeader header = message.Header;
        return new()
        {
            Arrow = message.IsFromClient ? "C>S" : "S>C",
            From = message.IsFromClient ? "client" : "server",
            Number = message.Number,
            Title = $"{message.Row?.Name ?? $"command {(ushort)header.Command}"} id={header.Id}",
            Flags = FlagsOf(header),
            WriteHeader = json =>
            {
                json.WriteNumber("command", (ushort)header.Command);
                json.WriteString("name", message.Row?.Name);
                json.WriteNumber("id", header.Id);
                json.WriteNumber("flags", (uint)header.Flags);
                json.WriteBoolean("reply", header.IsReply);
                json.WriteBoolean("no_reply", !header.WantsReply);
                json.WriteNumber("size", header.SizeBytes);
            },
            IsReply = header.IsReply,
            Answers = message.Answers,
            Latency = message.Latency,
            Error = (header.Flags & MessageFlags.Error) != 0 ? header.Error : null,
            Fields = CommandFields.Of(message),
            Payload = message.Payload,
            PayloadBytes = message.Payload.Length,
            DescriptorCount = message.DescriptorCount,
            Problem = message.Problem,
        };
    }

    private static string FlagsOf(in MessageHeader header)
    {
        const MessageFlags known = MessageFlags.TypeMask | MessageFlags.NoReply | MessageFlags.Error;
        string text = header.WantsReply ? "" : " no_reply";
        bool isRemarkable = (header.Flags & ~known) != 0 || !(header.IsReply || header.IsCommand);
        return isRemarkable ? $"{text} flags=0x{(uint)header.Flags:x}" : text;
    }
}
