// A transmit queue: each chain is a header and a packet, sent in one call, from guest memory as it lies.
//
//   Drain -> Take: a burst of chains; the processor is told to fetch their headers, which lie in the driver's cache
//         -> Send, one after the other: header copied once and checked, length checked -> sender -> completed
//         -> the sender has no room: the rest of the burst is kept, WantsChains is false until the descriptor tells
//
// A chain that holds no packet, and a packet that the back-end refuses, are counted and completed: a driver gets every
// buffer back. While the ring is disabled nothing is taken (chains wait; the specification would like them discarded).
// When the queue stops, chains that were kept go back into the ring, unsent. The first pair's queue also sends what
// the device announces.
using System.Runtime.InteropServices;
using Outboard.Devices.Net.Backends;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Net;

internal sealed class NetSendQueue : QueueHandler
{
    private readonly QueueContext _context;
    private readonly Virtqueue _queue;
    private readonly PacketSender _sender;
    private readonly NetCounters _counters;
    private readonly ulong _features;
    private readonly int _headerBytes;

    private readonly NetDevice? _announcing;
    private readonly AlignedBuffer? _announcement;

    private readonly Taken[] _burst = new Taken[NetDevice.BurstPackets];
    private int _next;
    private int _count;

    /// <summary>The header of the next packet, when that was taken off it for an attempt in vain.</summary>
    private NetHeader? _header;

    private bool _isFull;

    internal NetSendQueue(NetDevice device, int pair, NetCounters counters, QueueContext context)
    {
        PacketSender sender = device.Backend.Sender(pair);
        _context = context;
        _queue = context.Queue;
        _sender = sender;
        _counters = counters;
        _features = device.NegotiatedFeatures;
        _headerBytes = device.HeaderBytes;
        sender.Renewed = () => context.Post(Renew);
        Renew();
        if (pair == 0)
        {
            _announcing = device;
            _announcement = new AlignedBuffer(RarpFrame.Bytes);
            device.SetSender(context.Wake);
        }
    }

    public override bool WantsChains => !_isFull;

    public override int EarlyLimit => NetDevice.BurstPackets;

    public override void OnReady()
    {
        _isFull = false;
        _sender.OnWritable();
    }

    public override int Drain(int limit)
    {
        if (_isFull)
        {
            return 0;
        }

        int sent = SendBurst();
        if (_announcing is { HasAnnouncement: true } device)
        {
            Announce(device);
        }

        if (!_isFull && TakeBurst(limit))
        {
            sent += SendBurst();
        }

        return sent;
    }

    public override void Quiesce()
    {
        while (_count > _next)
        {
            ref readonly Taken last = ref _burst[--_count];
            _queue.PutBack(last.Request, last.Position);
        }

        _header = null;
    }

    public override void Dispose()
    {
        _sender.Renewed = null;
        _announcing?.SetSender(null);
        _announcement?.Dispose();
        base.Dispose();
    }

    /// <summary>Sends to where packets go now, and waits for room there.</summary>
    private void Renew()
    {
        _context.EndWatches();
        _sender.Renew();
        _isFull = false;
        if (_sender.Waitable is { } waitable)
        {
            _context.Watch(waitable, Readiness.Writable);
        }
    }

    /// <summary>Sends what the device wants to be known; once more at the next turn when there is no room.</summary>
    private void Announce(NetDevice device)
    {
        if (_isFull || device.TakeAnnouncement() is not { } frame)
        {
            return;
        }

        frame.CopyTo(_announcement!.Span);
        if (_sender.TrySend(default, [_announcement.Segment], frame.Length) == PacketOutcome.Later)
        {
            _isFull = true;
            device.PutBackAnnouncement(frame);
        }
    }

    /// <summary>Takes chains; the burst is empty.</summary>
    private bool TakeBurst(int limit)
    {
        Taken[] burst = _burst;
        limit = Math.Min(limit, burst.Length);
        int count = 0;
        while (count < limit)
        {
            ushort position = _queue.Position;
            if (!_queue.TryTake(out DescriptorChain chain))
            {
                break;
            }

            chain.Readable.Prefetch();
            burst[count++] = new Taken(chain.Detach(), position);
        }

        _next = 0;
        _count = count;
        return count > 0;
    }

    /// <summary>Sends what was taken, in its order, until the sender is full.</summary>
    private int SendBurst()
    {
        int first = _next;
        while (_next < _count && TrySend(_burst[_next].Request))
        {
            _next++;
        }

        return _next - first;
    }

    /// <summary>Sends a packet and completes its chain, unless the sender is full.</summary>
    private bool TrySend(PendingRequest request)
    {
        NetHeader header = default;
        if (_header is { } kept)
        {
            header = kept;
            _header = null;
        }
        else if (!TryTakeHeader(request, out header))
        {
            _counters.CountMalformed();
            request.Complete(0);
            return true;
        }

        ReadableBuffers packet = request.Readable;
        long length = packet.Length;
        if (length > NetOffload.MaxFrameBytes)
        {
            _counters.CountOversize();
        }
        else if (length < NetOffload.MinFrameBytes || !NetOffload.IsSendable(ref header, _features, (int)length))
        {
            _counters.CountMalformed();
        }
        else
        {
            switch (_sender.TrySend(in header, packet.Segments, (int)length))
            {
                case PacketOutcome.Done:
                    _counters.CountPacket((int)length);
                    break;
                case PacketOutcome.Later:
                    _header = header;
                    _isFull = true;
                    return false;
                default:
                    _counters.CountRefused();
                    break;
            }
        }

        request.Complete(0);
        return true;
    }

    private bool TryTakeHeader(PendingRequest request, out NetHeader header)
    {
        if (_headerBytes == NetHeader.Bytes)
        {
            return request.TryTakeHeader(out header);
        }

        bool taken = request.TryTakeHeader(out LegacyHeader legacy);
        header = default;
        MemoryMarshal.Write(MemoryMarshal.AsBytes(new Span<NetHeader>(ref header)), in legacy);
        return taken;
    }

    /// <summary>A chain that was taken, and where.</summary>
    private readonly record struct Taken(PendingRequest Request, ushort Position);

    /// <summary>The header without its last field.</summary>
    [StructLayout(LayoutKind.Sequential, Pack = 2, Size = NetHeader.LegacyBytes)]
    private struct LegacyHeader
    {
        internal ulong First;
        internal ushort Last;
    }
}
