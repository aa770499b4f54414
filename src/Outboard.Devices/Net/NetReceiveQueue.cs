// A receive queue: takes a packet from the back-end only when the driver has a buffer for it, and copies it there
// behind its header, over several buffers when those may be merged.
//
//   Drain -> a packet in hand? else from the receiver -> enough buffers held? else TryTake -> copied, completed
//
// A packet that came waits in the receiver's memory while buffers are missing; buffers that were taken and do not
// suffice are held. Nothing is published before the packet is whole. When the queue stops, what is held goes back into
// the ring. Packets longer than the driver's buffers can be are counted and dropped.
using System.Runtime.InteropServices;
using Outboard.Devices.Net.Backends;
using Outboard.Memory;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Net;

internal sealed class NetReceiveQueue : QueueHandler
{
    private readonly NetDevice _device;
    private readonly QueueContext _context;
    private readonly Virtqueue _queue;
    private readonly PacketReceiver _receiver;
    private readonly NetCounters _counters;
    private readonly int _pair;
    private readonly ulong _features;
    private readonly int _headerBytes;
    private readonly bool _merges;
    private readonly Held[] _held;

    private int _heldCount;
    private long _heldBytes;
    private NetHeader _header;
    private ReadOnlyMemory<byte> _frame;
    private bool _hasPacket;
    private bool _isReady;

    internal NetReceiveQueue(NetDevice device, int pair, NetCounters counters, QueueContext context)
    {
        _device = device;
        _context = context;
        _queue = context.Queue;
        _pair = pair;
        _receiver = device.Backend.Receiver(pair);
        _counters = counters;
        _features = device.NegotiatedFeatures;
        _headerBytes = device.HeaderBytes;
        _merges = (_features & NetFeatures.MergeableBuffers) != 0;
        _held = new Held[_queue.Size];
        _receiver.Renewed = () => context.Post(Renew);
        Renew();
    }

    public override bool WantsChains => _hasPacket || _isReady;

    public override void OnReady() => _isReady = true;

    public override void OnEnabled(bool enabled) => _device.Backend.SetActive(_pair, enabled);

    public override int Drain(int limit)
    {
        int moved = 0;
        limit = Math.Min(limit, NetDevice.BurstPackets);
        while (moved < limit && (_heldCount > 0 || _queue.HasAvailable) && (_hasPacket || TryReceive()) && TryDeliver())
        {
            moved++;
        }

        return moved;
    }

    public override void Quiesce()
    {
        while (_heldCount > 0)
        {
            ref readonly Held last = ref _held[--_heldCount];
            _queue.PutBack(last.Request, last.Position);
        }

        _heldBytes = 0;
    }

    public override void Dispose()
    {
        _receiver.Renewed = null;
        _device.Backend.SetActive(_pair, false);
        base.Dispose();
    }

    /// <summary>Waits for packets where they come from now.</summary>
    private void Renew()
    {
        _context.EndWatches();
        _receiver.Renew();
        _isReady = _receiver.Waitable is not null;
        if (_receiver.Waitable is { } waitable)
        {
            _context.Watch(waitable);
        }
    }

    private bool TryReceive()
    {
        while (_isReady)
        {
            switch (_receiver.TryReceive(out _header, out _frame))
            {
                case PacketOutcome.Done:
                    NetOffload.Restrict(ref _header, _features);
                    _hasPacket = true;
                    return true;
                case PacketOutcome.Dropped:
                    _counters.CountRefused();
                    break;
                default:
                    _isReady = false;
                    break;
            }
        }

        return false;
    }

    /// <summary>Copies the packet in hand to the driver, or drops it.</summary>
    /// <returns>False when buffers are missing.</returns>
    private bool TryDeliver()
    {
        int needed = _headerBytes + _frame.Length;
        while (_heldBytes < needed && (_merges || _heldCount == 0))
        {
            if (_heldCount == _held.Length)
            {
                break;
            }

            if (!TryHold())
            {
                return false;
            }
        }

        _hasPacket = false;
        if (_heldBytes < needed)
        {
            _counters.CountOversize();
            return true;
        }

        Deliver(needed);
        _counters.CountPacket(_frame.Length);
        return true;
    }

    /// <summary>Takes one more buffer.</summary>
    private bool TryHold()
    {
        while (true)
        {
            ushort position = _queue.Position;
            if (!_queue.TryTake(out DescriptorChain chain))
            {
                return false;
            }

            long length = chain.Writable.Length;
            if (length >= _headerBytes || _heldCount > 0)
            {
                // One without room, behind others, cannot be returned before them.
                length = length >= _headerBytes ? length : 0;
                _held[_heldCount++] = new Held(chain.Detach(), length, position);
                _heldBytes += length;
                return true;
            }

            _counters.CountMalformed();
            chain.Complete(0);
        }
    }

    private void Deliver(int needed)
    {
        int used = 0;
        int buffers = 0;
        for (long room = 0; room < needed; used++)
        {
            room += _held[used].Length;
            buffers += _held[used].Length > 0 ? 1 : 0;
        }

        _header.BufferCount = (ushort)buffers;
        ReadOnlySpan<byte> header = MemoryMarshal.AsBytes(new ReadOnlySpan<NetHeader>(in _header))[.._headerBytes];
        ReadOnlySpan<byte> frame = _frame.Span;
        int prefix = _headerBytes;
        for (int i = 0; i < used; i++)
        {
            ref readonly Held held = ref _held[i];
            WritableBuffers target = held.Request.Writable;
            int part = (int)Math.Min(held.Length - prefix, frame.Length);
            if (i == 0)
            {
                target.CopyFrom(0, header);
            }

            if (part > 0)
            {
                target.CopyFrom(prefix, frame[..part]);
                frame = frame[part..];
            }

            held.Request.Complete((uint)(prefix + Math.Max(part, 0)));
            _heldBytes -= held.Length;
            prefix = 0;
        }

        _held.AsSpan(used, _heldCount - used).CopyTo(_held);
        _heldCount -= used;
    }

    /// <summary>A buffer of the driver.</summary>
    /// <param name="Request">The chain.</param>
    /// <param name="Length">Its writable bytes; 0 for one that cannot be used.</param>
    /// <param name="Position">Where it was taken, to put it back.</param>
    private readonly record struct Held(PendingRequest Request, long Length, ushort Position);
}
