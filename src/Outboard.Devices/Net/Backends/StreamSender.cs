// Packets into a stream: one write; what the socket does not take at once is copied and goes first, when there is room
// again.
using System.Buffers.Binary;
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Net.Backends;

internal sealed class StreamSender : PacketSender
{
    private readonly AlignedBuffer _length = new(StreamBackend.LengthBytes);
    private readonly AlignedBuffer _rest = new(StreamBackend.LengthBytes + NetOffload.MaxFrameBytes);
    private readonly IoSegment[] _segments = new IoSegment[PacketDescriptor.MaxSegments];
    private ConnectionSlot _slot;
    private int _restStart;
    private int _restEnd;

    public override FileDescriptor? Waitable => _slot.Current?.Stream.Descriptor;

    /// <summary>From any thread: a connection to go over to.</summary>
    internal void Offer(StreamConnection connection)
    {
        _slot.Offer(connection);
        Renewed?.Invoke();
    }

    public override void Renew() => TryGoOver();

    public override PacketOutcome TrySend(in NetHeader header, ReadOnlySpan<IoSegment> frame, int frameBytes)
    {
        PacketOutcome outcome = TrySend(frame, frameBytes);

        // The next connection may be there already, and the queue not told yet.
        return outcome == PacketOutcome.Dropped && TryGoOver() ? TrySend(frame, frameBytes) : outcome;
    }

    private bool TryGoOver()
    {
        if (!_slot.TryTake())
        {
            return false;
        }

        _restStart = 0;
        _restEnd = 0;
        return true;
    }

    private PacketOutcome TrySend(ReadOnlySpan<IoSegment> frame, int frameBytes)
    {
        if (_slot.Current is not { Stream: var stream })
        {
            return PacketOutcome.Dropped;
        }

        if (_restStart < _restEnd)
        {
            PacketOutcome outcome = SendRest();
            if (outcome != PacketOutcome.Done)
            {
                return outcome;
            }
        }

        if (frame.Length >= _segments.Length)
        {
            return PacketOutcome.Dropped;
        }

        BinaryPrimitives.WriteUInt32BigEndian(_length.Span, (uint)frameBytes);
        _segments[0] = _length.Segment;
        frame.CopyTo(_segments.AsSpan(1));
        int written = stream.TryWrite(_segments.AsSpan(0, frame.Length + 1));
        if (written < 0)
        {
            return written == -Errno.TryAgain ? PacketOutcome.Later : PacketOutcome.Dropped;
        }

        Keep(written, frame);
        return PacketOutcome.Done;
    }

    public override void OnWritable()
    {
        if (_restStart < _restEnd)
        {
            _ = SendRest();
        }
    }

    public override void Dispose()
    {
        _slot.Clear();
        _length.Dispose();
        _rest.Dispose();
        base.Dispose();
    }

    private PacketOutcome SendRest()
    {
        _segments[0] = _rest.Segment.Slice(_restStart, _restEnd - _restStart);
        int written = _slot.Current!.Stream.TryWrite(_segments.AsSpan(0, 1));
        if (written < 0)
        {
            return written == -Errno.TryAgain ? PacketOutcome.Later : PacketOutcome.Dropped;
        }

        _restStart += written;
        return _restStart == _restEnd ? PacketOutcome.Done : PacketOutcome.Later;
    }

    /// <summary>Copies what a write left over.</summary>
    private void Keep(int written, ReadOnlySpan<IoSegment> frame)
    {
        _restStart = 0;
        _restEnd = 0;
        Span<byte> rest = _rest.Span;
        foreach (ref readonly IoSegment segment in _segments.AsSpan(0, frame.Length + 1))
        {
            int skipped = (int)Math.Min(written, segment.Length);
            written -= skipped;
            if (skipped < segment.Length)
            {
                Span<byte> left = segment.Span[skipped..];
                left.CopyTo(rest[_restEnd..]);
                _restEnd += left.Length;
            }
        }
    }
}
