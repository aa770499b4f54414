// Packets from a stream: the buffer holds any part of it; whole packets are taken off its front, the rest moves there
// when the end is reached. A length that no packet has means that the peer has lost its place: the connection is ended.
using System.Buffers.Binary;
using Outboard.Linux;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Net.Backends;

internal sealed class StreamReceiver : PacketReceiver
{
    /// <summary>Several of the longest packets, so that a read takes many short ones.</summary>
    private const int BufferBytes = 256 << 10;

    private readonly byte[] _buffer = GC.AllocateUninitializedArray<byte>(BufferBytes);
    private int _start;
    private int _end;
    private ConnectionSlot _slot;
    private bool _isOver = true;

    public override FileDescriptor? Waitable => _slot.Current?.Stream.Descriptor;

    /// <summary>From any thread: a connection to go over to.</summary>
    internal void Offer(StreamConnection connection)
    {
        _slot.Offer(connection);
        Renewed?.Invoke();
    }

    /// <remarks>The last packet stays where it is until the next is received.</remarks>
    public override void Renew()
    {
        if (_slot.TryTake())
        {
            _start = 0;
            _end = 0;
            _isOver = false;
        }
    }

    public override void Dispose()
    {
        _slot.Clear();
        base.Dispose();
    }

    public override PacketOutcome TryReceive(out NetHeader header, out ReadOnlyMemory<byte> frame)
    {
        header = default;
        frame = default;
        while (true)
        {
            int length = NextLength();
            if (length >= 0 && _end - _start - StreamBackend.LengthBytes >= length)
            {
                frame = _buffer.AsMemory(_start + StreamBackend.LengthBytes, length);
                _start += StreamBackend.LengthBytes + length;
                return length < NetOffload.MinFrameBytes ? PacketOutcome.Dropped : PacketOutcome.Done;
            }

            if (!ReadMore())
            {
                return PacketOutcome.Later;
            }
        }
    }

    /// <summary>The length of the packet at the front; -1 when not even that is there.</summary>
    private int NextLength()
    {
        if (_isOver || _end - _start < StreamBackend.LengthBytes)
        {
            return -1;
        }

        uint length = BinaryPrimitives.ReadUInt32BigEndian(_buffer.AsSpan(_start));
        if (length <= NetOffload.MaxFrameBytes)
        {
            return (int)length;
        }

        _isOver = true;
        _slot.Current!.End();
        return -1;
    }

    private bool ReadMore()
    {
        if (_isOver)
        {
            return false;
        }

        if (_start == _end)
        {
            _start = 0;
            _end = 0;
        }
        else if (BufferBytes - _start < StreamBackend.LengthBytes + NetOffload.MaxFrameBytes)
        {
            _buffer.AsSpan(_start, _end - _start).CopyTo(_buffer);
            _end -= _start;
            _start = 0;
        }

        int received = _slot.Current!.Stream.TryRead(_buffer.AsSpan(_end));
        _end += Math.Max(received, 0);
        _isOver = received == 0 || (received < 0 && received != -Errno.TryAgain);
        return received > 0;
    }
}
