// Makes entries of a trace from the messages of one channel: names and fields from the tables, replies matched to what
// they answer, and what is wrong with a message by the rules of the table. It changes nothing.
using System.Runtime.InteropServices;
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Tracing;

/// <summary>Describes the messages of a channel. Used by both directions; its callers take turns.</summary>
internal sealed class ChannelObserver(TracedChannel channel, VirtioDeviceId? device)
{
    /// <summary>Requests that may wait for an answer; a front-end has one at a time, usually.</summary>
    private const int MaxUnanswered = 256;

    private static readonly FieldLayout s_status = FieldLayout.Parse("status u64");

    private readonly List<(uint Request, long Number, TimeSpan Time)> _unanswered = [];
    private ProtocolFeatures? _negotiated;
    private HashSet<string>? _deviceFeatures;

    /// <summary>Requests that nobody has answered, although an answer was due.</summary>
    internal int Unanswered => _unanswered.Count;

    private bool IsMain => channel.Kind == TracedChannelKind.Main;

    /// <summary>Describes a message.</summary>
    internal MessageEntry Describe(
        TimeSpan time, long number, bool isFromFrontend, MessageHeader header, byte[] payload, int descriptors)
    {
        bool isReply = (header.Flags & MessageFlags.Reply) != 0;
        RequestRow? row = channel.Kind switch
        {
            TracedChannelKind.Main => RequestTable.Frontend(header.Request),
            TracedChannelKind.Backend => RequestTable.Backend(header.Request),
            _ => null,
        };
        DisplayRequestRow? display = channel.Kind == TracedChannelKind.Display
            ? DisplayRequestTable.Find(header.Request)
            : null;
        string? name = row?.Name ?? display?.Name;
        FieldLayout layout = display is not null
            ? (isReply ? display.Reply : display.Request) ?? FieldLayout.Empty
            : LayoutOf(row, isReply, header.SizeBytes);
        MessageEntry entry = new(time, channel)
        {
            Number = number,
            IsFromFrontend = isFromFrontend,
            Header = header,
            Name = name,
            Payload = payload,
            DescriptorCount = descriptors,
            Fields = [.. layout.Decode(payload, device), .. ConfigFields(name, isReply, payload)],
            Problem = Problem(row, name, header, isReply, isFromFrontend == IsMain, descriptors),
        };
        if (isReply)
        {
            return Match(entry);
        }

        Remember(entry, row, display);
        return entry;
    }

    private static FieldLayout LayoutOf(RequestRow? row, bool isReply, uint size)
    {
        if (row is null || PayloadTable.Find(row.Name) is not { } fields)
        {
            return FieldLayout.Empty;
        }

        if (!isReply)
        {
            return fields.Request;
        }

        // A table that comes back with the back-end's addresses (post-copy); a refusal of a message with its own reply.
        bool isEcho = size != sizeof(ulong) && size != fields.Reply.SizeBytes && row.Size.Allows(size) && size > 0;
        return isEcho ? fields.Request : row.HasOwnReply ? fields.Reply : s_status;
    }

    /// <summary>The fields of a configuration space, where it goes over the wire from its beginning.</summary>
    private IReadOnlyList<FieldValue> ConfigFields(string? name, bool isReply, ReadOnlySpan<byte> payload)
    {
        bool hasSpace = (name, isReply) is ("GET_CONFIG", true) or ("SET_CONFIG", false)
            && payload.Length > ConfigPayload.Bytes
            && MemoryMarshal.Read<ConfigPayload>(payload).Offset == 0;
        return hasSpace && device is { } type && DeviceConfigLayouts.Of(type) is { } layout
            ? [new FieldValue(
                "config", FieldKind.Bytes, 0, string.Empty, [],
                [layout.Decode(payload[ConfigPayload.Bytes..], type, _deviceFeatures)])]
            : [];
    }

    private MessageEntry Match(MessageEntry reply)
    {
        int at = _unanswered.FindIndex(request => request.Request == reply.Header.Request);
        if (at < 0)
        {
            return reply with { Problem = reply.Problem ?? "answers no request" };
        }

        if (IsMain && reply is { Name: "GET_FEATURES", Payload.Length: sizeof(ulong) })
        {
            _deviceFeatures = [.. FeatureNames.Device(BitConverter.ToUInt64(reply.Payload.Span), device)];
        }

        // Answers come in order: what was asked before this one will get none any more.
        (_, long number, TimeSpan asked) = _unanswered[at];
        _unanswered.RemoveRange(0, at + 1);
        return reply with { Answers = number, Latency = reply.Time - asked };
    }

    private void Remember(MessageEntry request, RequestRow? row, DisplayRequestRow? display)
    {
        if (IsMain && row is { Name: "SET_PROTOCOL_FEATURES" } && request.Payload.Length == sizeof(ulong))
        {
            _negotiated = (ProtocolFeatures)BitConverter.ToUInt64(request.Payload.Span);
        }

        bool asks = (request.Header.Flags & MessageFlags.NeedReply) != 0;
        bool isAcknowledged = asks && (_negotiated is not { } known || (known & ProtocolFeatures.ReplyAck) != 0);
        bool hasOwn = row is { HasOwnReply: true } || display is { Reply: not null };
        if ((hasOwn || isAcknowledged) && _unanswered.Count < MaxUnanswered)
        {
            _unanswered.Add((request.Header.Request, request.Number, request.Time));
        }
    }

    private string? Problem(
        RequestRow? row, string? name, MessageHeader header, bool isReply, bool isAsker, int descriptors)
    {
        bool hasVersion = (header.Flags & MessageFlags.VersionMask) == MessageFlags.Version1;
        if (!hasVersion && channel.Kind != TracedChannelKind.Display)
        {
            return "the version is not 1";
        }

        if (name is null)
        {
            return "unknown request";
        }

        if (isReply == isAsker)
        {
            return isReply ? "a reply from the asking side" : "a request from the answering side";
        }

        if (row is null || isReply)
        {
            return null;
        }

        ProtocolFeatures missing = IsMain ? row.Gate & ~(_negotiated ?? 0) : 0;
        return !row.Size.Allows(header.SizeBytes) ? $"{header.SizeBytes} bytes, the layout has {row.Size}"
            : descriptors > row.MaxDescriptors ? $"{descriptors} descriptors, at most {row.MaxDescriptors} belong to it"
            : missing != 0 ? $"{string.Join('|', PayloadTable.NamesOf(missing))} was not negotiated"
            : null;
    }
}
