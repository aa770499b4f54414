// A relay between front-ends and back-ends that shows what they say to each other. It also stands in the middle of the
// channels that are handed over on the way (SET_BACKEND_REQ_FD, GPU_SET_SOCKET): a socket of its own goes on instead.
// Guest memory, kicks and calls are descriptors that go through: they cost nothing once they are passed.
// Not here: a virtio device as transport; a relay needs descriptors.
using System.Diagnostics;
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Linux.Sockets;
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Protocol;

namespace Outboard.VhostUser.Tracing;

/// <summary>Relays connections and reports their messages.</summary>
/// <param name="report">
/// Called with each entry, in order, one call at a time, before a message is passed on. From any thread.
/// </param>
/// <param name="device">The type of the device, for names of its feature bits; null when it is unknown.</param>
public sealed class TraceRelay(Action<TraceEntry> report, VirtioDeviceId? device = null)
{
    private readonly Lock _lock = new();
    private readonly VirtioDeviceId? _device = device;
    private readonly long _begin = Stopwatch.GetTimestamp();
    private int _connections;
    private long _messages;

    /// <summary>Relays one connection until both sides have ended it.</summary>
    /// <param name="frontend">The front-end's connection; closed at the end.</param>
    /// <param name="backend">A connection to the back-end; closed at the end.</param>
    /// <param name="ending">Ends the relay; what was received by then is passed on first.</param>
    public async Task RelayAsync(UnixSocket frontend, UnixSocket backend, CancellationToken ending = default)
    {
        ArgumentNullException.ThrowIfNull(frontend);
        ArgumentNullException.ThrowIfNull(backend);
        Connection connection = new(this, Interlocked.Increment(ref _connections), ending);
        await connection.RunAsync(frontend, backend).ConfigureAwait(false);
    }

    private void Report(Func<TimeSpan, TraceEntry> describe)
    {
        lock (_lock)
        {
            report(describe(Stopwatch.GetElapsedTime(_begin)));
        }
    }

    private sealed class Connection(TraceRelay relay, int number, CancellationToken ending)
    {
        private readonly List<Task> _channels = [];
        private readonly int[] _counts = new int[Enum.GetValues<TracedChannelKind>().Length];

        internal async Task RunAsync(UnixSocket frontend, UnixSocket backend)
        {
            await RelayAsync(frontend, backend, TracedChannelKind.Main).ConfigureAwait(false);

            // No more are handed over: the main channel has ended.
            await Task.WhenAll(_channels).ConfigureAwait(false);
        }

        private async Task RelayAsync(UnixSocket frontend, UnixSocket backend, TracedChannelKind kind)
        {
            TracedChannel channel = new(number, kind, ++_counts[(int)kind]);
            ChannelObserver observer = new(channel, relay._device);
            relay.Report(time => new ChannelEntry(time, channel, "opened"));
            try
            {
                RelayDirection forth = new(
                    frontend, backend, Cutter(),
                    (message, count, descriptors) => Observe(true, message, count, descriptors));
                RelayDirection back = new(
                    backend, frontend, Cutter(),
                    (message, count, descriptors) => Observe(false, message, count, descriptors));
                await Task.WhenAll(forth.RunAsync(ending), back.RunAsync(ending)).ConfigureAwait(false);
            }
            finally
            {
                frontend.Dispose();
                backend.Dispose();
                string unanswered = observer.Unanswered > 0 ? $", {observer.Unanswered} requests unanswered" : "";
                relay.Report(time => new ChannelEntry(time, channel, $"closed{unanswered}"));
            }

            void Observe(bool isFromFrontend, StreamCutter message, int count, IList<FileDescriptor> descriptors)
            {
                MessageHeader header = MemoryMarshal.Read<MessageHeader>(message.Header);
                relay.Report(time => observer.Describe(
                    time, ++relay._messages, isFromFrontend, header, message.TakePayload(), count));
                if (kind == TracedChannelKind.Main && isFromFrontend)
                {
                    Interpose(header, descriptors);
                }
            }
        }

        private static StreamCutter Cutter() => new(
            MessageHeader.Bytes, static header => MemoryMarshal.Read<MessageHeader>(header).SizeBytes);

        private void Interpose(MessageHeader header, IList<FileDescriptor> descriptors)
        {
            TracedChannelKind? kind = (FrontendRequest)header.Request switch
            {
                FrontendRequest.SetBackendReqFd => TracedChannelKind.Backend,
                FrontendRequest.GpuSetSocket => TracedChannelKind.Display,
                _ => null,
            };
            bool isRequest = (header.Flags & MessageFlags.Reply) == 0;
            if (kind is not { } channel || !isRequest || descriptors.Count != 1
                || !UnixSocket.IsUnixStream(descriptors[0]))
            {
                return;
            }

            (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
            using (theirs)
            {
                UnixSocket frontend = new(descriptors[0]);
                descriptors[0] = theirs.DuplicateDescriptor();
                _channels.Add(RelayAsync(frontend, ours, channel));
            }
        }
    }
}
