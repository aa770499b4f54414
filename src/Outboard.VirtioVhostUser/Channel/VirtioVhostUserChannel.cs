// The channel of a front-end that is reached through a virtio-vhost-user device: messages come and go by the device's
// queues, and what would be descriptors on a socket is resolved to parts of its regions, doorbells and kicks.
//
// Two conversations share the queues: the front-end's requests, and the back-end's own ones (SET_BACKEND_REQ_FD opens
// those). On the way in, replies belong to the second; on the way out, requests do.
using System.Threading.Channels;
using System.Runtime.InteropServices;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.Channel;

/// <summary>A front-end behind a virtio-vhost-user device.</summary>
internal sealed class VirtioVhostUserChannel : VhostUserChannel
{
    private readonly VirtioVhostUserSource _source;
    private readonly DriverAccess _access;
    private readonly Channel<VhostUserMessage> _inbox =
        System.Threading.Channels.Channel.CreateUnbounded<VhostUserMessage>();

    private readonly TaskCompletionSource _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly Lock _lock = new();
    private BackChannel? _back;
    private InflightPayload? _record;

    internal VirtioVhostUserChannel(VirtioVhostUserSource source, DriverAccess access)
    {
        _source = source;
        _access = access;
    }

    public override bool HasEnded => _ended.Task.IsCompleted;

    private bool HasExplicitOffsets => (_access.Features & VirtioVhostUserSpec.ExplicitOffsets) != 0;

    public override async ValueTask<VhostUserMessage?> ReceiveAsync(CancellationToken cancellation = default) =>
        await ReadAsync(_inbox, cancellation).ConfigureAwait(false);

    public override Task WaitForCloseAsync(CancellationToken cancellation = default) =>
        _ended.Task.WaitAsync(cancellation);

    public override async ValueTask SendAsync(VhostUserMessage message, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(message);
        using (message)
        {
            MessageFlags flags = message.Flags | MessageFlags.Reply;
            await _source.SendAsync(this, new DriverFrame(message.Request, flags, message.Payload), cancellation)
                .ConfigureAwait(false);
        }
    }

    /// <summary>Only what the device has made can be shared: the record of GET_INFLIGHT_FD.</summary>
    public override SharedMemory CreateSharedMemory(string name, ulong sizeBytes) =>
        _record is { } record && record.MmapSizeBytes >= sizeBytes
            ? Slice(VirtioVhostUserSpec.InflightWindow, record.MmapOffset, sizeBytes)
            : throw new IOException($"memory cannot be given to a front-end behind {_access.Description}");

    /// <summary>The device adds the descriptor by itself.</summary>
    public override Attachment Attach(SharedMemory memory) => new ResolvedAttachment();

    public override (StateStream Kept, Attachment Passed) CreateStateStream(bool peerWrites) =>
        throw new IOException($"a stream cannot be given to a front-end behind {_access.Description}");

    public override void Close() => End();

    public override async ValueTask DisposeAsync()
    {
        End();
        await _source.LeaveAsync(this).ConfigureAwait(false);
        while (_inbox.Reader.TryRead(out VhostUserMessage? left))
        {
            left.Dispose();
        }
    }

    /// <summary>No message comes any more; what came before can still be received.</summary>
    internal void End()
    {
        _inbox.Writer.TryComplete();
        _ended.TrySetResult();
        lock (_lock)
        {
            _back?.Close();
        }
    }

    /// <summary>Takes what came by the device's queue.</summary>
    internal void Take(DriverFrame frame)
    {
        if (frame.IsReply)
        {
            lock (_lock)
            {
                _back?.Take(frame);
            }

            return;
        }

        try
        {
            _inbox.Writer.TryWrite(new VhostUserMessage(
                frame.Request, frame.Flags, Adapt(frame), [.. Resolve(frame)]));
        }
        catch (IOException)
        {
            // A device without the region that a message speaks of: nothing can be made of it.
            End();
        }
    }

    private static async ValueTask<VhostUserMessage?> ReadAsync(
        Channel<VhostUserMessage> inbox, CancellationToken cancellation)
    {
        while (await inbox.Reader.WaitToReadAsync(cancellation).ConfigureAwait(false))
        {
            if (inbox.Reader.TryRead(out VhostUserMessage? message))
            {
                return message;
            }
        }

        return null;
    }

    /// <summary>The message as the session is to see it: the record that is offered is noted, and nobody's business.
    /// </summary>
    private ReadOnlyMemory<byte> Adapt(DriverFrame frame)
    {
        if (frame.Request != (uint)FrontendRequest.GetInflightFd || frame.Payload.Length != InflightPayload.Bytes)
        {
            return frame.Payload;
        }

        InflightPayload offered = MemoryMarshal.Read<InflightPayload>(frame.Payload.Span);
        _record = offered;
        return VhostUserMessage.PayloadOf(offered with { MmapSizeBytes = 0, MmapOffset = 0 });
    }

    /// <summary>What would be descriptors on a socket. A damaged message has none, and is refused by the session.
    /// </summary>
    private IEnumerable<ResolvedAttachment> Resolve(DriverFrame frame)
    {
        ReadOnlyMemory<byte> payload = frame.Payload;
        switch ((FrontendRequest)frame.Request)
        {
            case FrontendRequest.SetMemTable:
                return ResolveTable(payload);
            case FrontendRequest.AddMemReg when payload.Length > sizeof(ulong):
                return [Window(VirtioVhostUserSpec.MemoryWindow, 0)];
            case FrontendRequest.SetLogBase:
                return [Window(VirtioVhostUserSpec.LogWindow, 0)];
            case FrontendRequest.SetInflightFd:
                return [Window(VirtioVhostUserSpec.InflightWindow, 0)];
            case FrontendRequest.SetLogFd:
                return [Doorbell(VirtioVhostUserSpec.LogOf(_access.Rings))];
            case FrontendRequest.SetBackendReqFd:
                return [new ResolvedAttachment { Channel = OpenBack }];
            case FrontendRequest.SetVringKick when RingOf(payload) is { } ring:
                return [new ResolvedAttachment { Notifier = () => Kick(ring) }];
            case FrontendRequest.SetVringCall when RingOf(payload) is { } ring:
                return [Doorbell(VirtioVhostUserSpec.CallOf(ring))];
            case FrontendRequest.SetVringErr when RingOf(payload) is { } ring:
                return [Doorbell(VirtioVhostUserSpec.ErrorOf(ring))];
            default:
                return [];
        }
    }

    private IEnumerable<ResolvedAttachment> ResolveTable(ReadOnlyMemory<byte> payload)
    {
        if (payload.Length < MemoryTablePayload.Bytes)
        {
            return [];
        }

        ReadOnlySpan<byte> rest = payload.Span[MemoryTablePayload.Bytes..];
        List<ResolvedAttachment> windows = [];
        ulong sum = 0;
        foreach (MemoryRegionPayload region in MemoryMarshal.Cast<byte, MemoryRegionPayload>(rest))
        {
            windows.Add(Window(VirtioVhostUserSpec.MemoryWindow, HasExplicitOffsets ? 0 : sum));
            sum += region.MmapOffset + region.SizeBytes;
        }

        return windows;
    }

    /// <summary>The ring that a notifier belongs to; null without one, or for a ring that cannot be.</summary>
    private int? RingOf(ReadOnlyMemory<byte> payload)
    {
        if (payload.Length != sizeof(ulong))
        {
            return null;
        }

        VringDescriptorPayload told = MemoryMarshal.Read<VringDescriptorPayload>(payload.Span);
        return told.HasDescriptor && told.Index < _access.Rings ? told.Index : null;
    }

    private ResolvedAttachment Window(byte region, ulong start) => new()
    {
        Memory = () => Slice(region, start, null),
    };

    private ResolvedAttachment Doorbell(int notification) => new()
    {
        Notifier = () => new DoorbellNotifier(_access, notification),
    };

    private WindowSlice Slice(byte region, ulong start, ulong? length)
    {
        SharedMemory window = _access.OpenWindow(region)
            ?? throw new IOException($"{_access.Description} has no shared memory region {region}");
        if (start <= window.SizeBytes)
        {
            return new WindowSlice(window, start, length ?? window.SizeBytes - start);
        }

        window.Dispose();
        throw new IOException($"0x{start:x} is beyond region {region}");
    }

    private Notifier Kick(int ring) => _access.KickOf(ring) is { } kick
        ? new EventFdNotifier(new EventFd(kick.Descriptor.Duplicate()))
        : _source.Kicks.Add();

    private BackChannel OpenBack()
    {
        lock (_lock)
        {
            _back?.Close();
            return _back = new BackChannel(this);
        }
    }

    /// <summary>The back-end's own requests.</summary>
    private sealed class BackChannel(VirtioVhostUserChannel main) : VhostUserChannel
    {
        private readonly Channel<VhostUserMessage> _replies =
            System.Threading.Channels.Channel.CreateUnbounded<VhostUserMessage>();

        private readonly TaskCompletionSource _closed = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public override bool HasEnded => _closed.Task.IsCompleted;

        public override async ValueTask<VhostUserMessage?> ReceiveAsync(CancellationToken cancellation = default) =>
            await ReadAsync(_replies, cancellation).ConfigureAwait(false);

        public override Task WaitForCloseAsync(CancellationToken cancellation = default) =>
            _closed.Task.WaitAsync(cancellation);

        public override async ValueTask SendAsync(VhostUserMessage message, CancellationToken cancellation = default)
        {
            ArgumentNullException.ThrowIfNull(message);
            using (message)
            {
                if (message.Attachments.Count > 0)
                {
                    throw new IOException($"request {message.Request} needs a descriptor, which a guest cannot send");
                }

                MessageFlags flags = message.Flags & ~MessageFlags.Reply;
                DriverFrame frame = new(message.Request, flags, message.Payload);
                await main._source.SendAsync(main, frame, cancellation).ConfigureAwait(false);
            }
        }

        public override SharedMemory CreateSharedMemory(string name, ulong sizeBytes) =>
            main.CreateSharedMemory(name, sizeBytes);

        public override Attachment Attach(SharedMemory memory) => main.Attach(memory);

        public override (StateStream Kept, Attachment Passed) CreateStateStream(bool peerWrites) =>
            main.CreateStateStream(peerWrites);

        public override void Close()
        {
            _replies.Writer.TryComplete();
            _closed.TrySetResult();
        }

        public override ValueTask DisposeAsync()
        {
            Close();
            return ValueTask.CompletedTask;
        }

        internal void Take(DriverFrame frame) =>
            _replies.Writer.TryWrite(new VhostUserMessage(frame.Request, frame.Flags, frame.Payload));
    }
}
