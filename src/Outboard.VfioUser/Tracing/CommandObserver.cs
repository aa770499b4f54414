// Makes entries of a trace from the messages of one channel: replies matched to the commands that they answer, and what
// is wrong with a message by the rules of the table. It changes nothing. What the fields of a payload are called is the
// business of whoever shows them.
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Tracing;

/// <summary>Describes the messages of a channel. Used by both directions; its callers take turns.</summary>
internal sealed class CommandObserver(TracedChannel channel)
{
    /// <summary>Commands that may wait for an answer; QEMU has a whole machine's memory in flight at a time.</summary>
    private const int MaxUnanswered = 65536;

    private readonly LinkedList<Asked> _ofClient = [];
    private readonly LinkedList<Asked> _ofServer = [];
    private bool _mayWriteMultiple = true;

    /// <summary>Commands that nobody has answered, although an answer was due.</summary>
    internal int Unanswered => _ofClient.Count + _ofServer.Count;

    /// <summary>Describes a message.</summary>
    internal TracedMessageEntry Describe(
        TimeSpan time, long number, bool isFromClient, MessageHeader header, byte[] payload, int descriptors)
    {
        TracedMessageEntry entry = new(time, channel)
        {
            Number = number,
            IsFromClient = isFromClient,
            Header = header,
            Row = CommandTable.Find(header.Command),
            Payload = payload,
            DescriptorCount = descriptors,
        };
        return header.IsReply ? Match(entry) : Remember(entry);
    }

    private TracedMessageEntry Remember(TracedMessageEntry command)
    {
        LinkedList<Asked> asked = command.IsFromClient ? _ofClient : _ofServer;
        if (command.Header.WantsReply && asked.Count < MaxUnanswered)
        {
            asked.AddLast(new Asked(command.Header.Id, command.Header.Command, command.Number, command.Time));
        }

        return command with { Problem = ProblemOf(command) };
    }

    private TracedMessageEntry Match(TracedMessageEntry reply)
    {
        LinkedList<Asked> asked = reply.IsFromClient ? _ofServer : _ofClient;
        bool isFailure = (reply.Header.Flags & MessageFlags.Error) != 0;
        string? problem = isFailure && reply.Header.SizeBytes != MessageHeader.Bytes
            ? "a reply that tells of a failure has a payload"
            : null;
        for (LinkedListNode<Asked>? node = asked.First; node is not null; node = node.Next)
        {
            if (node.Value.Id == reply.Header.Id && node.Value.Command == reply.Header.Command)
            {
                asked.Remove(node);
                Learn(reply);
                return reply with
                {
                    Answers = node.Value.Number, Latency = reply.Time - node.Value.Time, Problem = problem,
                };
            }
        }

        return reply with { Problem = "answers no command" };
    }

    private void Learn(TracedMessageEntry reply)
    {
        if (reply.Header.Command != VfioUserCommand.Version || reply.Payload.Length < VersionPayload.Bytes)
        {
            return;
        }

        try
        {
            VersionCapabilities server = VersionCapabilities.Parse(reply.Payload.Span[VersionPayload.Bytes..]);
            _mayWriteMultiple = server.WriteMultiple == true;
        }
        catch (ProtocolException)
        {
            // The client will complain.
        }
    }

    private string? ProblemOf(TracedMessageEntry command)
    {
        MessageHeader header = command.Header;
        if (header.SizeBytes < MessageHeader.Bytes)
        {
            return $"size {header.SizeBytes}, and a header has {MessageHeader.Bytes} bytes";
        }

        if (!header.IsCommand)
        {
            return "neither a command nor a reply";
        }

        if (command.Row is not { } row)
        {
            return "unknown command";
        }

        bool isOfClient = row.Sender == CommandSender.Client;
        uint size = header.SizeBytes - MessageHeader.Bytes;
        return isOfClient != command.IsFromClient
            ? $"a command of the {(isOfClient ? "client" : "server")}"
            : size < row.MinBytes || size > row.MaxBytes
            ? $"{size} bytes, the layout has {row.MinBytes} to {row.MaxBytes}"
            : row.MaxDescriptors <= 1 && command.DescriptorCount > row.MaxDescriptors
            ? $"{command.DescriptorCount} descriptors, at most {row.MaxDescriptors} belong to it"
            : row.Gate == CommandGate.WriteMultiple && !_mayWriteMultiple ? "write_multiple was not negotiated"
            : null;
    }

    private readonly record struct Asked(ushort Id, VfioUserCommand Command, long Number, TimeSpan Time);
}
