// What comes with a front-end's messages, laid out before the driver hears of it: memory as parts of the shared memory
// regions, notifiers as doorbells and vectors, the second socket as the other half of the driver's queues.
//
// A change of memory keeps what was there until the driver has answered (or, without acknowledgements, until it answers
// anything that was sent later): both generations lie side by side. A driver without EXPLICIT_OFFSETS computes places
// by itself, so there the old one has to go first.
using System.Collections.Immutable;
using System.Runtime.InteropServices;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Protocol;
using Outboard.VirtioVhostUser.Protocol;

namespace Outboard.VirtioVhostUser.Device;

internal sealed partial class FrontendSession
{
    /// <summary>
    /// Memory regions that a front-end is told it may add: each takes a memory slot of the driver's machine, of which
    /// Linux KVM has 509 for everything.
    /// </summary>
    private const ulong MaxSlots = 256;

    private readonly List<WindowPart> _retired = [];
    private ImmutableList<MemoryEntry> _memory = [];
    private IReadOnlyList<WindowPart> _logParts = [];
    private IReadOnlyList<WindowPart> _inflightParts = [];
    private ulong _frontendFeatures;

    /// <summary>What a front-end without acknowledgements is told beside the driver's own reply: nothing.</summary>
    private Task<Delivery> LayOutAsync(VhostUserMessage message) => (FrontendRequest)message.Request switch
    {
        FrontendRequest.SetProtocolFeatures => Task.FromResult(SetProtocolFeatures(message)),
        FrontendRequest.SetFeatures => Task.FromResult(SetFeatures(message)),
        FrontendRequest.SetMemTable => SetMemTableAsync(message),
        FrontendRequest.AddMemReg => AddMemRegAsync(message),
        FrontendRequest.RemMemReg => Task.FromResult(RemMemReg(message)),
        FrontendRequest.SetLogBase => SetLogBaseAsync(message),
        FrontendRequest.SetLogFd => Task.FromResult(SetLogFd(message)),
        FrontendRequest.SetVringKick => Task.FromResult(SetVringKick(message)),
        FrontendRequest.SetVringCall => Task.FromResult(SetVringCall(message)),
        FrontendRequest.SetVringErr => Task.FromResult(SetVringErr(message)),
        FrontendRequest.GetVringBase or FrontendRequest.GetVringBaseSkipDrain => Task.FromResult(GetVringBase(message)),
        FrontendRequest.SetBackendReqFd => Task.FromResult(SetBackendReqFd(message)),
        FrontendRequest.GetInflightFd => GetInflightFdAsync(message),
        FrontendRequest.SetInflightFd => SetInflightFdAsync(message),
        _ => Task.FromResult(new Delivery(message.Payload)),
    };

    private Delivery SetProtocolFeatures(VhostUserMessage message)
    {
        ProtocolFeatures wanted = (ProtocolFeatures)message.Read<ulong>();
        ProtocolFeatures unknown = wanted & ~_offered;
        if (unknown != 0)
        {
            string names = string.Join('|', PayloadTable.NamesOf(unknown));
            throw new ProtocolException("SET_PROTOCOL_FEATURES", "features", $"{names} was not offered");
        }

        // The acknowledgement of this very message already follows what it negotiates.
        _negotiated = wanted;
        return new Delivery(message.Payload);
    }

    private Delivery SetFeatures(VhostUserMessage message)
    {
        _frontendFeatures = message.Read<ulong>();
        return new Delivery(message.Payload);
    }

    private async Task<Delivery> SetMemTableAsync(VhostUserMessage message)
    {
        ReadOnlyMemory<byte> rest = message.Payload[MemoryTablePayload.Bytes..];
        MemoryRegionPayload[] entries = MemoryMarshal.Cast<byte, MemoryRegionPayload>(rest.Span).ToArray();
        ImmutableList<MemoryEntry> before = _memory;
        if (!HasExplicitOffsets)
        {
            _memory = [];
            await ReleaseAsync(before.Select(entry => entry.Part)).ConfigureAwait(false);
            before = [];
        }

        List<MemoryEntry> after = [];
        try
        {
            ulong sum = 0;
            for (int i = 0; i < entries.Length; i++)
            {
                WindowPart part = await MapAsync(
                    VirtioVhostUserSpec.MemoryWindow, message.Attachments[i], entries[i].MmapOffset,
                    entries[i].SizeBytes, sum).ConfigureAwait(false);
                after.Add(new MemoryEntry(entries[i], part));
                sum += entries[i].SizeBytes;
                entries[i] = entries[i] with { MmapOffset = HasExplicitOffsets ? part.Offset : 0 };
            }
        }
        catch
        {
            await ReleaseAsync(after.Select(entry => entry.Part)).ConfigureAwait(false);
            throw;
        }

        if (!HasExplicitOffsets && _device.Windows.FileOf(VirtioVhostUserSpec.MemoryWindow) is not null)
        {
            entries = WithGaps(after);
        }

        MemoryTablePayload head = new((uint)entries.Length, 0);
        _memory = [.. after];
        return new Delivery(VhostUserMessage.PayloadOf(head, MemoryMarshal.AsBytes<MemoryRegionPayload>(entries)))
        {
            Retired = [.. before.Select(entry => entry.Part)],
            Added = [.. after.Select(entry => entry.Part)],
            Undo = () => Change(_ => before),
        };
    }

    /// <summary>
    /// A table for a driver that lays regions out one behind the other, each with its offset before it, where places
    /// are not of our choice: told in the order in which they lie, with the gaps as offsets.
    /// </summary>
    private static MemoryRegionPayload[] WithGaps(List<MemoryEntry> entries)
    {
        ulong end = 0;
        List<MemoryRegionPayload> told = [];
        foreach (MemoryEntry entry in entries.OrderBy(entry => entry.Part.Offset))
        {
            if (entry.Part.Offset < end)
            {
                throw new ProtocolException(
                    "SET_MEM_TABLE", "offset", "regions share a part of the file: that needs a driver with "
                    + "EXPLICIT_OFFSETS");
            }

            told.Add(entry.Told with { MmapOffset = entry.Part.Offset - end });
            end = entry.Part.Offset + entry.Told.SizeBytes;
        }

        return [.. told];
    }

    private async Task<Delivery> AddMemRegAsync(VhostUserMessage message)
    {
        if (message.Payload.Length != SingleBytes)
        {
            throw new ProtocolException("ADD_MEM_REG", "size", $"{message.Payload.Length} bytes describe no region");
        }

        SingleMemoryRegionPayload added = message.Read<SingleMemoryRegionPayload>();
        WindowPart part = await MapAsync(
            VirtioVhostUserSpec.MemoryWindow, message.Attachments[0], added.Region.MmapOffset,
            added.Region.SizeBytes, null).ConfigureAwait(false);
        MemoryEntry entry = new(added.Region, part);
        Change(memory => memory.Add(entry));
        SingleMemoryRegionPayload told = added with { Region = added.Region with { MmapOffset = part.Offset } };
        return new Delivery(VhostUserMessage.PayloadOf(told))
        {
            Added = [part],
            Undo = () => Change(memory => memory.Remove(entry)),
        };
    }

    /// <summary>Changes what is known of the front-end's memory: a refusal may come while the next message is read.
    /// </summary>
    private void Change(Func<ImmutableList<MemoryEntry>, ImmutableList<MemoryEntry>> change)
    {
        lock (_lock)
        {
            _memory = change(_memory);
        }
    }

    private Delivery RemMemReg(VhostUserMessage message)
    {
        SingleMemoryRegionPayload wanted = message.Read<SingleMemoryRegionPayload>();
        MemoryEntry entry = _memory.Find(known => known.Told.GuestAddress == wanted.Region.GuestAddress
                && known.Told.UserAddress == wanted.Region.UserAddress
                && known.Told.SizeBytes == wanted.Region.SizeBytes)
            ?? throw new ProtocolException(
                "REM_MEM_REG", "region", $"guest address 0x{wanted.Region.GuestAddress:x} was never added");
        Change(memory => memory.Remove(entry));
        SingleMemoryRegionPayload told = wanted with { Region = wanted.Region with { MmapOffset = entry.Part.Offset } };
        return new Delivery(VhostUserMessage.PayloadOf(told))
        {
            Retired = [entry.Part],
            Undo = () => Change(memory => memory.Add(entry)),
        };
    }

    private async Task<Delivery> SetLogBaseAsync(VhostUserMessage message)
    {
        LogPayload log = message.Read<LogPayload>();
        IReadOnlyList<WindowPart> before = await MakeRoomAsync(_logParts).ConfigureAwait(false);
        WindowPart part = await MapAsync(
            VirtioVhostUserSpec.LogWindow, message.Attachments[0], log.Offset, log.SizeBytes, 0)
            .ConfigureAwait(false);
        _logParts = [part];
        LogPayload told = log with { Offset = HasExplicitOffsets ? part.Offset : 0 };
        return new Delivery(VhostUserMessage.PayloadOf(told)) { Retired = before };
    }

    private async Task<Delivery> SetInflightFdAsync(VhostUserMessage message)
    {
        InflightPayload record = message.Read<InflightPayload>();
        IReadOnlyList<WindowPart> before = await MakeRoomAsync(_inflightParts).ConfigureAwait(false);
        WindowPart part = await MapAsync(
            VirtioVhostUserSpec.InflightWindow, message.Attachments[0], record.MmapOffset, record.MmapSizeBytes, 0)
            .ConfigureAwait(false);

        // In a file it lies where GET_INFLIGHT_FD has put it: that part goes on being the record's.
        WindowPart? same = before.FirstOrDefault(
            known => known.FileOffset is not null && known.FileOffset == part.FileOffset);
        IReadOnlyList<WindowPart> after = [same ?? part];
        _inflightParts = after;
        InflightPayload told = record with { MmapOffset = OffsetOf(part) };
        return new Delivery(VhostUserMessage.PayloadOf(told))
        {
            Retired = [.. before.Where(known => known != same)],
            Added = same is null ? [part] : [],
            Undo = () => Interlocked.CompareExchange(ref _inflightParts, before, after),
        };
    }

    /// <summary>
    /// A driver cannot make memory that its front-end could map, so the record is made here, and the driver is asked
    /// whether it will use it. It waits with the reply that is due; the front-end gives it back by SET_INFLIGHT_FD.
    /// </summary>
    private async Task<Delivery> GetInflightFdAsync(VhostUserMessage message)
    {
        InflightPayload wanted = message.Read<InflightPayload>();
        if (wanted.QueueCount == 0 || wanted.QueueCount > _device.Rings
            || wanted.QueueSize is 0 or > SplitRing.MaxSize)
        {
            throw new ProtocolException("GET_INFLIGHT_FD", "queues", $"{wanted.QueueCount} of {wanted.QueueSize}");
        }

        // Features may be told later: the larger format fits both.
        ulong queue = (ulong)Math.Max(
            InflightSpec.QueueBytes(false, wanted.QueueSize), InflightSpec.QueueBytes(true, wanted.QueueSize));
        ulong page = (ulong)Environment.SystemPageSize;
        ulong size = ((queue * wanted.QueueCount) + page - 1) / page * page;
        if (size > _device.Options.MaxInflightBytes)
        {
            throw new ProtocolException(
                "GET_INFLIGHT_FD", "size", $"{size} bytes, at most {_device.Options.MaxInflightBytes} are given");
        }

        IReadOnlyList<WindowPart> before = await MakeRoomAsync(_inflightParts).ConfigureAwait(false);
        FileSharedMemory? file = _device.Windows.FileOf(VirtioVhostUserSpec.InflightWindow);
        FileSharedMemory memory = new(
            file?.Descriptor.Duplicate() ?? MemFd.Create("outboard-inflight", size));
        try
        {
            WindowPart part = await PlaceRecordAsync(memory, size, file is not null).ConfigureAwait(false);

            // What runs by now uses the parts of before: they go when the next record is set.
            _inflightParts = [.. before, part];
            InflightPayload told = wanted with { MmapSizeBytes = size, MmapOffset = OffsetOf(part) };
            return new Delivery(VhostUserMessage.PayloadOf(told))
            {
                Record = new InflightRecord(memory, told with { MmapOffset = part.FileOffset ?? 0 }),
            };
        }
        catch
        {
            memory.Dispose();
            throw;
        }
    }

    private async Task<WindowPart> PlaceRecordAsync(FileSharedMemory memory, ulong size, bool isInFile)
    {
        const byte region = VirtioVhostUserSpec.InflightWindow;
        if (!isInFile)
        {
            return await _device.Windows
                .MapAsync(this, region, memory, 0, size, HasExplicitOffsets ? null : 0).ConfigureAwait(false);
        }

        WindowPart part = _device.Windows.TakeRoom(this, region, size);
        try
        {
            MemFd.PunchHole(memory.Descriptor, part.FileOffset!.Value, size);
            return part;
        }
        catch
        {
            await ReleaseAsync([part]).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>What a driver is told of where a part lies, if it takes offsets. The record has one place for others,
    /// which in a file is not the first: they take an offset, too.</summary>
    private ulong OffsetOf(WindowPart part) => HasExplicitOffsets || part.FileOffset is not null ? part.Offset : 0;

    private Delivery SetLogFd(VhostUserMessage message)
    {
        Notifier log = message.Attachments[0].ToNotifier();
        Hand(() => _device.Slot(VirtioVhostUserSpec.LogOf(_device.Rings)).SetDoorbell(log), log);
        return new Delivery(message.Payload);
    }

    /// <summary>The kick is looked at when the driver can know of it.</summary>
    private Delivery SetVringKick(VhostUserMessage message)
    {
        int ring = message.Read<VringDescriptorPayload>().Index;
        AuxiliarySlot slot = _device.Slot(VirtioVhostUserSpec.CallOf(ring));
        Hand(() => slot.SetKick(null), null);
        Notifier? kick = NotifierOf(message);
        return new Delivery(message.Payload)
        {
            Delivered = () => Hand(() => slot.SetKick(kick), kick),
            Dropped = kick,
        };
    }

    private Delivery SetVringCall(VhostUserMessage message)
    {
        int ring = message.Read<VringDescriptorPayload>().Index;
        Notifier? call = NotifierOf(message);
        Hand(() => _device.Slot(VirtioVhostUserSpec.CallOf(ring)).SetDoorbell(call), call);
        return new Delivery(message.Payload);
    }

    private Delivery SetVringErr(VhostUserMessage message)
    {
        int ring = message.Read<VringDescriptorPayload>().Index;
        Notifier? error = NotifierOf(message);
        Hand(() => _device.Slot(VirtioVhostUserSpec.ErrorOf(ring)).SetDoorbell(error), error);
        return new Delivery(message.Payload);
    }

    /// <summary>A stopped ring has no kick; its call stays, as the driver may use it until it has stopped.</summary>
    private Delivery GetVringBase(VhostUserMessage message)
    {
        int ring = (int)message.Read<VringStatePayload>().Index;
        return new Delivery(message.Payload)
        {
            Settled = () => Hand(
                () => _device.Slot(VirtioVhostUserSpec.CallOf(ring)).SetKick(null), null),
        };
    }

    private Delivery SetBackendReqFd(VhostUserMessage message)
    {
        VhostUserChannel channel = message.Attachments[0].ToChannel();
        VhostUserChannel? before;
        lock (_lock)
        {
            before = _backendChannel;
            _backendChannel = channel;
        }

        before?.Close();
        _relaying = RelayRepliesAsync(channel, EndRelayAsync(_relaying, before));
        return new Delivery(message.Payload);
    }

    private static async Task EndRelayAsync(Task relaying, VhostUserChannel? channel)
    {
        await relaying.ConfigureAwait(false);
        if (channel is not null)
        {
            await channel.DisposeAsync().ConfigureAwait(false);
        }
    }

    /// <summary>Hands a notifier to a slot, unless the session was ended meanwhile: nothing of it may reach the next.
    /// </summary>
    private void Hand(Action give, Notifier? notifier)
    {
        if (!_device.TryWithSession(this, give))
        {
            notifier?.Dispose();
        }
    }

    private static Notifier? NotifierOf(VhostUserMessage message) =>
        message.Attachments.Count == 1 ? message.Attachments[0].ToNotifier() : null;

    /// <summary>What has to go before something new takes its place: with places of our own choice, nothing.</summary>
    private async Task<IReadOnlyList<WindowPart>> MakeRoomAsync(IReadOnlyList<WindowPart> parts)
    {
        if (HasExplicitOffsets)
        {
            return parts;
        }

        await ReleaseAsync(parts).ConfigureAwait(false);
        return [];
    }

    private async Task<WindowPart> MapAsync(
        byte region, Attachment attachment, ulong offset, ulong length, ulong? place)
    {
        using SharedMemory memory = attachment.ToSharedMemory();
        return await _device.Windows
            .MapAsync(this, region, memory, offset, length, HasExplicitOffsets ? null : place).ConfigureAwait(false);
    }

    private Task ReleaseAsync(IEnumerable<WindowPart> parts) => _device.Windows.UnmapAsync([.. parts]);

    /// <summary>The driver has answered: the generation that nobody uses any more goes, and so does what was to go
    /// before it.</summary>
    private async Task SettleAsync(RequestRow row, Due due, ReadOnlyMemory<byte> reply)
    {
        Delivery delivery = due.Delivery!;
        List<WindowPart> gone = [.. due.Retired];
        bool isRefused = row.Reply == ReplyKind.Acknowledge && MemoryMarshal.Read<ulong>(reply.Span) != 0;
        if (isRefused)
        {
            delivery.Undo?.Invoke();
            gone.AddRange(delivery.Added);
        }
        else
        {
            gone.AddRange(delivery.Retired);
        }

        delivery.Settled?.Invoke();
        await ReleaseAsync(gone).ConfigureAwait(false);
    }

    /// <summary>What the front-end gets instead of the driver's reply, where they differ.</summary>
    private (ReadOnlyMemory<byte> Payload, Attachment[] Attachments) Rewrite(
        FrontendRequest request, InflightRecord? record, ReadOnlyMemory<byte> payload)
    {
        switch (request)
        {
            case FrontendRequest.GetProtocolFeatures:
                _offered = (ProtocolFeatures)MemoryMarshal.Read<ulong>(payload.Span) & _passed;
                return (VhostUserMessage.PayloadOf((ulong)_offered), []);
            case FrontendRequest.GetQueueNum:
                ulong queues = Math.Min(MemoryMarshal.Read<ulong>(payload.Span), (ulong)_device.Rings);
                return (VhostUserMessage.PayloadOf(queues), []);
            case FrontendRequest.GetMaxMemSlots:
                ulong slots = Math.Min(MemoryMarshal.Read<ulong>(payload.Span), MaxSlots);
                return (VhostUserMessage.PayloadOf(slots), []);
            case FrontendRequest.GetInflightFd:
                return InflightReply(record!, payload);
            default:
                return (payload, []);
        }
    }

    /// <summary>The driver keeps the record's size or makes it smaller; 0 refuses it.</summary>
    private (ReadOnlyMemory<byte> Payload, Attachment[] Attachments) InflightReply(
        InflightRecord record, ReadOnlyMemory<byte> payload)
    {
        InflightPayload told = payload.Length == InflightPayload.Bytes
            ? MemoryMarshal.Read<InflightPayload>(payload.Span) : default;
        return told.MmapSizeBytes == 0 || told.MmapSizeBytes > record.Told.MmapSizeBytes
            ? (VhostUserMessage.PayloadOf(told with { MmapSizeBytes = 0, MmapOffset = 0 }), [])
            : (VhostUserMessage.PayloadOf(told with { MmapOffset = record.Told.MmapOffset }),
                [_channel.Attach(record.Memory)]);
    }

    private static int SingleBytes => 8 + MemoryRegionPayload.Bytes;

    private sealed record MemoryEntry(MemoryRegionPayload Told, WindowPart Part);

    /// <summary>Memory for a record of requests in flight, and what the front-end is to be told of it.</summary>
    private sealed record InflightRecord(FileSharedMemory Memory, InflightPayload Told);

    /// <summary>A message as the driver gets it, and what belongs to it.</summary>
    private sealed class Delivery(ReadOnlyMemory<byte> payload)
    {
        internal ReadOnlyMemory<byte> Payload => payload;

        /// <summary>Called when the message lies in a buffer of the driver's.</summary>
        internal Action? Delivered { get; init; }

        /// <summary>Called when the driver has answered, whatever it answered.</summary>
        internal Action? Settled { get; init; }

        /// <summary>Called when the driver has refused.</summary>
        internal Action? Undo { get; init; }

        /// <summary>Closed when the message is never delivered.</summary>
        internal Notifier? Dropped { get; init; }

        /// <summary>Passed on when the driver has answered; closed in any case.</summary>
        internal InflightRecord? Record { get; init; }

        /// <summary>To be unmapped when the driver has done what it was told.</summary>
        internal IReadOnlyList<WindowPart> Retired { get; init; } = [];

        /// <summary>To be unmapped when the driver has refused.</summary>
        internal IReadOnlyList<WindowPart> Added { get; init; } = [];
    }
}
