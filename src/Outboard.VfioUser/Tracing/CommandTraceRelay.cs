// A relay between clients and servers that shows what they say to each other. It also stands in the middle of the twin
// socket that a server may hand over in its reply to VERSION: a socket of its own goes on instead. Guest memory and
// interrupts are descriptors that go through: they cost nothing once they are passed.
using System.Diagnostics;
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Linux.Sockets;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Tracing;

/// <summary>Relays connections and reports their messages.</summary>
/// <param name="report">
/// Called with each entry, in order, one call at a time, before a message is passed on. From any thread.
/// </param>
public sealed class CommandTraceRelay(Action<CommandTraceEntry> report)
{
    private readonly Lock _lock = new();
    private readonly long _begin = Stopwatch.GetTimestamp();
    private int _connections;
    private long _messages;

    /// <summary>Relays one connection until both sides have ended it.</summary>
    /// <param name="client">The client's connection; closed at the end.</param>
    /// <param name="server">A connection to the server; closed at the end.</param>
    /// <param name="ending">Ends the relay; what was received by then is passed on first.</param>
    public async Task RelayAsync(UnixSocket client, UnixSocket server, CancellationToken ending = default)
    {
        ArgumentNullException.ThrowIfNull(client);
        ArgumentNullException.ThrowIfNull(server);
        Connection connection = new(this, Interlocked.Increment(ref _connections), ending);
        await connection.RunAsync(client, server).ConfigureAwait(false);
    }

    private void Report(Func<TimeSpan, CommandTraceEntry> describe)
    {
        lock (_lock)
        {
            report(describe(Stopwatch.GetElapsedTime(_begin)));
        }
    }

    private sealed class Connection(CommandTraceRelay relay, int number, CancellationToken ending)
    {
        private Task _twin = Task.CompletedTask;

        internal async Task RunAsync(UnixSocket client, UnixSocket server)
        {
            await RelayAsync(client, server, isTwin: false).ConfigureAwait(false);
            await _twin.ConfigureAwait(false);
        }

        private static StreamCutter Cutter() => new(
            MessageHeader.Bytes,
            static header => Math.Max(
                MemoryMarshal.Read<MessageHeader>(header).SizeBytes, MessageHeader.Bytes) - MessageHeader.Bytes);

        private async Task RelayAsync(UnixSocket client, UnixSocket server, bool isTwin)
        {
            TracedChannel channel = new(number, isTwin);
            CommandObserver observer = new(channel);
            relay.Report(time => new TracedChannelEntry(time, channel, "opened"));
            try
            {
                RelayDirection forth = new(
                    client, server, Cutter(),
                    (message, count, descriptors) => Observe(true, message, count, descriptors));
                RelayDirection back = new(
                    server, client, Cutter(),
                    (message, count, descriptors) => Observe(false, message, count, descriptors));
                await Task.WhenAll(forth.RunAsync(ending), back.RunAsync(ending)).ConfigureAwait(false);
            }
            finally
            {
                client.Dispose();
                server.Dispose();
                string unanswered = observer.Unanswered > 0 ? $", {observer.Unanswered} commands unanswered" : "";
                relay.Report(time => new TracedChannelEntry(time, channel, $"closed{unanswered}"));
            }

            void Observe(bool isFromClient, StreamCutter message, int count, IList<FileDescriptor> descriptors)
            {
                MessageHeader header = MemoryMarshal.Read<MessageHeader>(message.Header);
                relay.Report(time => observer.Describe(
                    time, ++relay._messages, isFromClient, header, message.TakePayload(), count));
                if (!isTwin && !isFromClient && header is { IsReply: true, Command: VfioUserCommand.Version })
                {
                    Interpose(descriptors);
                }
            }
        }

        private void Interpose(IList<FileDescriptor> descriptors)
        {
            if (descriptors.Count != 1 || !UnixSocket.IsUnixStream(descriptors[0]) || !_twin.IsCompleted)
            {
                return;
            }

            (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
            using (theirs)
            {
                UnixSocket server = new(descriptors[0]);
                descriptors[0] = theirs.DuplicateDescriptor();
                _twin = RelayAsync(ours, server, isTwin: true);
            }
        }
    }
}
