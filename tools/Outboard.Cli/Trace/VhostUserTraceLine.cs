// What a line says of an entry of a vhost-user trace.
//
//   0.000153  1     F>B  #1 GET_FEATURES
//   0.000301  1     B>F  #2 GET_FEATURES reply to #1 after 148 us: features=0x140000000(PROTOCOL_FEATURES|VERSION_1)
using Outboard.VhostUser.Protocol;
using Outboard.VhostUser.Tracing;

namespace Outboard.Cli.Trace;

internal static class VhostUserTraceLine
{
    public static TraceLine Of(TraceEntry entry) => new(
        entry.Time, entry.Channel.Connection, entry.Channel.Name, (entry as ChannelEntry)?.What,
        entry is MessageEntry message ? Of(message) : null);

    private static TracedMessage Of(MessageEntry message) => new()
    {
        Arrow = message.IsFromFrontend ? "F>B" : "B>F",
        From = message.IsFromFrontend ? "front-end" : "back-end",
        Number = message.Number,
        Title = message.Name ?? $"request {message.Header.Request}",
        Flags = FlagsOf(message.Header.Flags),
        WriteHeader = json =>
        {
            json.WriteNumber("request", message.Header.Request);
            json.WriteString("name", message.Name);
            json.WriteNumber("flags", (uint)message.Header.Flags);
            json.WriteBoolean("reply", message.IsReply);
            json.WriteBoolean("need_reply", (message.Header.Flags & MessageFlags.NeedReply) != 0);
            json.WriteNumber("size", message.Header.SizeBytes);
        },
        IsReply = message.IsReply,
        Answers = message.Answers,
        Latency = message.Latency,
        Fields = message.Fields,
        Payload = message.Payload,
        PayloadBytes = message.Header.SizeBytes,
        DescriptorCount = message.DescriptorCount,
        Problem = message.Problem,
    };

    private static string FlagsOf(MessageFlags flags)
    {
        const MessageFlags known = MessageFlags.VersionMask | MessageFlags.Reply | MessageFlags.NeedReply;
        string text = (flags & MessageFlags.NeedReply) != 0 ? " need_reply" : "";
        bool isRemarkable = (flags & ~known) != 0 || (flags & MessageFlags.VersionMask) > MessageFlags.Version1;
        return isRemarkable ? $"{text} flags=0x{(uint)flags:x}" : text;
    }
}
