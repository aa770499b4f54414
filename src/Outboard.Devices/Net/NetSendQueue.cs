// A transmit queue: each chain is a header and a packet, sent in one call, from guest memory as it lies.
//
//   Drain -> Take: header copied once and checked, length checked -> sender -> completed
//         -> the sender has no room: the chain is kept, WantsChains is false until the descriptor tells
//
// A chain that holds no packet, and a packet that the back-end refuses, are counted and completed: a driver gets every
// buffer back. While the ring is disabled nothing is taken (chains wait; the specification would like them discarded).
// When the queue stops, a chain that was kept goes back into the ring, unsent. The first pair's queue also sends what
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

    private Kept? _kept;
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

    public override void OnReady()
    {
        _isFull = false;
        _sender.OnWritable();
    }

    public override int Drain(int limit)
    {
        int sent = 0;
        limit = Math.Min(limit, NetDevice.BurstPackets);
        if (_kept is { } kept)
        {
            if (_isFull || !TrySend(in kept))
            {
                return 0;
            }

            _kept = null;
            sent++;
        }

        if (_announcing is { HasAnnouncement: true } device)
        {
            Announce(device);
        }

        while (sent < limit && !_isFull)
        {
            ushort position = _queue.Position;
            if (!_queue.TryTake(out DescriptorChain chain))
            {
                break;
            }

            sent++;
            Send(in chain, position);
        }

        return sent;
    }

    public override void Quiesce()
    {
        if (_kept is { } kept)
        {
            _queue.PutBack(kept.Request, kept.Position);
            _kept = null;
        }
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

    private void Send(scoped in DescriptorChain chain, ushort position)
    {
        if (!TryTakeHeader(in chain, out NetHeader header))
        {
            _counters.CountMalformed();
            chain.Complete(0);
            return;
        }

        long length = chain.Readable.Length;
        if (length is < NetOffload.MinFrameBytes or > NetOffload.MaxFrameBytes)
        {
            if (length < NetOffload.MinFrameBytes)
            {
                _counters.CountMalformed();
            }
            else
            {
                _counters.CountOversize();
            }

            chain.Complete(0);
            return;
        }

        if (!NetOffload.IsSendable(ref header, _features, (int)length))
        {
            _counters.CountMalformed();
            chain.Complete(0);
            return;
        }

        Kept packet = new(chain.Detach(), header, (int)length, position);
        if (!TrySend(in packet))
        {
            _kept = packet;
        }
    }

    /// <summary>Sends and completes, unless the sender is full.</summary>
    private bool TrySend(in Kept packet)
    {
        PacketOutcome outcome = _sender.TrySend(in packet.Header, packet.Request.Readable.Segments, packet.Length);
        if (outcome == PacketOutcome.Later)
        {
            _isFull = true;
            return false;
        }

        if (outcome == PacketOutcome.Done)
        {
            _counters.CountPacket(packet.Length);
        }
        else
        {
            _counters.CountRefused();
        }

        packet.Request.Complete(0);
        return true;
    }

    private bool TryTakeHeader(scoped in DescriptorChain chain, out NetHeader header)
    {
        if (_headerBytes == NetHeader.Bytes)
        {
            return chain.TryTakeHeader(out header);
        }

        bool taken = chain.TryTakeHeader(out LegacyHeader legacy);
        header = default;
        MemoryMarshal.Write(MemoryMarshal.AsBytes(new Span<NetHeader>(ref header)), in legacy);
        return taken;
    }

    /// <summary>A packet that was taken.</summary>
    private readonly record struct Kept(PendingRequest Request, NetHeader Header, int Length, ushort Position)
    {
        internal readonly NetHeader Header = Header;
    }

    /// <summary>The header without its last field.</summary>
    [StructLayout(LayoutKind.Sequential, Pack = 2, Size = NetHeader.LegacyBytes)]
    private struct LegacyHeader
    {
        internal ulong First;
        internal ushort Last;
    }
}
