// Doorbells that are rung without a message: by an eventfd, or (libvfio-user's addition) by a value that is left in
// memory and an eventfd. What the server says of them is checked; what cannot be is rung by messages.
using System.Collections.Immutable;
using System.Runtime.InteropServices;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Pci.Bars;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;

namespace Outboard.VfioUser.Client;

public sealed partial class VfioUserClient
{
    private ImmutableDictionary<(int Region, ulong Offset), ShadowBell> _shadows =
        ImmutableDictionary<(int Region, ulong Offset), ShadowBell>.Empty;

    /// <inheritdoc/>
    public override async Task<IReadOnlyList<PciDoorbell>> OpenDoorbellsAsync(
        int bar, CancellationToken cancellation = default)
    {
        List<PciDoorbell> all = await AskDoorbellsAsync(bar, cancellation).ConfigureAwait(false);
        List<PciDoorbell> plain = [.. all.Where(bell => bell.Shadow is null)];
        foreach (PciDoorbell other in all.Where(bell => bell.Shadow is not null))
        {
            other.Shadow!.Object.Dispose();
            if (!plain.Exists(bell => ReferenceEquals(bell.Event, other.Event)))
            {
                other.Event.Dispose();
            }
        }

        return plain;
    }

    /// <summary>
    /// From now on <see cref="Post"/> rings the BAR's doorbells that have a shadow by it, and sends no message. Ends
    /// with the connection: the next server is asked anew. Nobody posts meanwhile.
    /// </summary>
    /// <returns>How many there are; none when the server was replaced meanwhile.</returns>
    public async Task<int> UseShadowDoorbellsAsync(int bar, CancellationToken cancellation = default)
    {
        int server = Volatile.Read(ref _servers);
        List<PciDoorbell> all = await AskDoorbellsAsync(bar, cancellation).ConfigureAwait(false);
        Dictionary<(int, ulong), ShadowBell> found = [];
        foreach (PciDoorbell bell in all.Where(bell => bell is { Shadow: not null, Match: null }))
        {
            try
            {
                if (!found.ContainsKey((bar, bell.Offset)))
                {
                    found.Add((bar, bell.Offset), new ShadowBell(bell));
                }
            }
            catch (IOException)
            {
                // Its memory is not there: by messages, then.
            }
        }

        foreach (PciDoorbell bell in all)
        {
            bell.Event.Dispose();
            bell.Shadow?.Object.Dispose();
        }

        lock (_barsLock)
        {
            if (server != _servers)
            {
                Dispose(found.Values);
                return 0;
            }

            KeyValuePair<(int Region, ulong Offset), ShadowBell>[] before =
                [.. _shadows.Where(known => known.Key.Region == bar)];
            _shadows = _shadows.RemoveRange(before.Select(known => known.Key)).SetItems(found);
            Dispose(before.Select(known => known.Value));
        }

        return found.Count;
    }

    private static void Dispose(IEnumerable<ShadowBell> bells)
    {
        foreach (ShadowBell bell in bells)
        {
            bell.Dispose();
        }
    }

    private async Task<List<PciDoorbell>> AskDoorbellsAsync(int bar, CancellationToken cancellation)
    {
        uint argsz = RegionIoFdsPayload.Bytes;
        while (true)
        {
            using VfioUserMessage reply = await AskAsync(
                VfioUserCommand.DeviceGetRegionIoFds, new RegionIoFdsPayload(argsz, 0, (uint)bar, 0), cancellation)
                .ConfigureAwait(false);
            RegionIoFdsPayload head = Head<RegionIoFdsPayload>(reply);
            if (head.Argsz <= argsz || head.Argsz > MessageHeader.MaxPayloadBytes)
            {
                return ReadDoorbells(head, reply);
            }

            argsz = head.Argsz;
        }
    }

    /// <summary>Entries have 40 bytes, or 48 with the value behind eight more (libvfio-user).</summary>
    private static List<PciDoorbell> ReadDoorbells(RegionIoFdsPayload head, VfioUserMessage reply)
    {
        List<PciDoorbell> doorbells = [];
        ReadOnlySpan<byte> entries = reply.Payload.Span[RegionIoFdsPayload.Bytes..];
        int stride = head.Count == 0 ? 0 : (int)((uint)entries.Length / head.Count);
        if (stride < IoEventFdEntry.Bytes)
        {
            return doorbells;
        }

        EventFd?[] events = new EventFd?[reply.Attachments.Count];
        FileSharedMemory?[] memories = new FileSharedMemory?[events.Length];
        for (int i = 0; i < head.Count; i++)
        {
            ReadOnlySpan<byte> bytes = entries.Slice(i * stride, stride);
            IoEventFdEntry entry = MemoryMarshal.Read<IoEventFdEntry>(bytes);
            bool isShadow = entry.Type == IoEventFdEntry.Shadow && stride >= IoEventFdEntry.WideBytes;
            if ((entry.Type != IoEventFdEntry.Plain && !isShadow) || entry.DescriptorIndex >= (uint)events.Length
                || memories[entry.DescriptorIndex] is not null)
            {
                continue;
            }

            EventFd? line = events[entry.DescriptorIndex] ??= TryEvent(reply.Attachments[(int)entry.DescriptorIndex]);
            if (line is null)
            {
                continue;
            }

            DoorbellShadow? shadow = null;
            if (isShadow)
            {
                // the width is needed to write a value, and one place is for one
                uint memory = entry.Padding;
                if (entry.SizeBytes is not (1 or 2 or 4 or 8) || entry.Match % entry.SizeBytes != 0
                    || memory >= (uint)memories.Length || memory == entry.DescriptorIndex || events[memory] is not null)
                {
                    continue;
                }

                memories[memory] ??= (FileSharedMemory)reply.Attachments[(int)memory].ToSharedMemory();
                shadow = new DoorbellShadow(memories[memory]!, entry.Match);
            }

            ulong match = stride == IoEventFdEntry.Bytes
                ? entry.Match
                : MemoryMarshal.Read<ulong>(bytes[(stride - sizeof(ulong))..]);
            bool matches = (entry.Flags & IoEventFdEntry.MatchesData) != 0;
            doorbells.Add(new PciDoorbell(entry.Offset, (uint)entry.SizeBytes, line, matches ? match : null)
            {
                Shadow = shadow,
            });
        }

        DisposeUnused(doorbells, events, memories);
        return doorbells;
    }

    private static EventFd? TryEvent(Attachment attachment)
    {
        try
        {
            return attachment.ToEvent();
        }
        catch (IOException)
        {
            return null;
        }
    }

    private static void DisposeUnused(List<PciDoorbell> doorbells, EventFd?[] events, FileSharedMemory?[] memories)
    {
        foreach (EventFd? line in events.Where(line => !doorbells.Exists(bell => ReferenceEquals(bell.Event, line))))
        {
            line?.Dispose();
        }

        foreach (FileSharedMemory? memory in memories.Where(
            memory => !doorbells.Exists(bell => ReferenceEquals(bell.Shadow?.Object, memory))))
        {
            memory?.Dispose();
        }
    }

    private bool TryRing(int region, ulong offset, ReadOnlySpan<byte> source) =>
        _shadows.TryGetValue((region, offset), out ShadowBell? bell) && bell.TryRing(source);

    private void ForgetShadows() => Dispose(Interlocked.Exchange(ref _shadows, _shadows.Clear()).Values);

    /// <summary>A doorbell with a value: the value first, then the signal.</summary>
    private sealed class ShadowBell : IDisposable
    {
        private readonly MemoryMapping _mapping;
        private readonly EventFd _event;

        /// <exception cref="IOException">The memory is not there.</exception>
        internal ShadowBell(PciDoorbell bell)
        {
            _mapping = bell.Shadow!.Object.Map(bell.Shadow.Offset, bell.SizeBytes);
            _event = new EventFd(bell.Event.Descriptor.Duplicate());
        }

        public void Dispose()
        {
            _mapping.Dispose();
            _event.Dispose();
        }

        internal bool TryRing(ReadOnlySpan<byte> value)
        {
            Span<byte> place = _mapping.Segment.Span;
            if (value.Length != place.Length)
            {
                return false;
            }

            switch (value.Length)
            {
                case sizeof(uint):
                    Volatile.Write(ref MemoryMarshal.AsRef<uint>(place), MemoryMarshal.Read<uint>(value));
                    break;
                case sizeof(ulong):
                    Volatile.Write(ref MemoryMarshal.AsRef<ulong>(place), MemoryMarshal.Read<ulong>(value));
                    break;
                case sizeof(ushort):
                    Volatile.Write(ref MemoryMarshal.AsRef<ushort>(place), MemoryMarshal.Read<ushort>(value));
                    break;
                default:
                    Volatile.Write(ref place[0], value[0]);
                    break;
            }

            return _event.Signal();
        }
    }
}
