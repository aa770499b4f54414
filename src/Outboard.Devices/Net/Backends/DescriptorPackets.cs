// Packets by a descriptor that keeps their borders: a queue of a tap, a datagram socket. A packet is one read or write,
// preceded by its header where the other side speaks it.
using System.Runtime.InteropServices;
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Net.Backends;

/// <summary>Receives packets from a descriptor.</summary>
/// <param name="source">The descriptor; it stays its owner's.</param>
/// <param name="headerBytes">Bytes of the header before each packet: 12 or 0.</param>
internal sealed class DescriptorReceiver(PacketDescriptor source, int headerBytes) : PacketReceiver
{
    private readonly byte[] _buffer = GC.AllocateUninitializedArray<byte>(headerBytes + NetOffload.MaxFrameBytes + 1);

    public override FileDescriptor? Waitable => source.Descriptor;

    public override PacketOutcome TryReceive(out NetHeader header, out ReadOnlyMemory<byte> frame)
    {
        header = default;
        frame = default;
        int received = source.TryRead(_buffer);
        if (received is -Errno.TryAgain)
        {
            return PacketOutcome.Later;
        }

        int length = received - headerBytes;
        if (received < 0)
        {
            // A tap that is down, or a peer that went away, is asked again when the descriptor tells.
            return PacketOutcome.Later;
        }

        if (length is < NetOffload.MinFrameBytes or > NetOffload.MaxFrameBytes)
        {
            return PacketOutcome.Dropped;
        }

        if (headerBytes != 0)
        {
            header = MemoryMarshal.Read<NetHeader>(_buffer);
        }

        frame = _buffer.AsMemory(headerBytes, length);
        return PacketOutcome.Done;
    }
}

/// <summary>Sends packets to a descriptor.</summary>
internal sealed class DescriptorSender : PacketSender
{
    private readonly Func<ReadOnlySpan<IoSegment>, int> _write;
    private readonly FileDescriptor _waitable;
    private readonly AlignedBuffer _header = new(NetHeader.Bytes);
    private readonly IoSegment[] _segments = new IoSegment[PacketDescriptor.MaxSegments];
    private readonly int _first;

    /// <param name="waitable">Becomes writable when there is room.</param>
    /// <param name="write">Writes a packet; gives a count or a negative errno.</param>
    /// <param name="hasHeader">Whether a header goes before each packet.</param>
    internal DescriptorSender(FileDescriptor waitable, Func<ReadOnlySpan<IoSegment>, int> write, bool hasHeader)
    {
        _waitable = waitable;
        _write = write;
        _first = hasHeader ? 1 : 0;
        _segments[0] = _header.Segment;
    }

    public override FileDescriptor? Waitable => _waitable;

    public override PacketOutcome TrySend(in NetHeader header, ReadOnlySpan<IoSegment> frame, int frameBytes)
    {
        if (frame.Length > _segments.Length - _first)
        {
            return PacketOutcome.Dropped;
        }

        int written;
        if (_first == 0)
        {
            written = _write(frame);
        }
        else
        {
            MemoryMarshal.Write(_header.Span, in header);
            frame.CopyTo(_segments.AsSpan(_first));
            written = _write(_segments.AsSpan(0, _first + frame.Length));
        }

        return written >= 0 ? PacketOutcome.Done
            : written == -Errno.TryAgain ? PacketOutcome.Later
            : PacketOutcome.Dropped;
    }

    public override void Dispose()
    {
        _header.Dispose();
        base.Dispose();
    }
}
