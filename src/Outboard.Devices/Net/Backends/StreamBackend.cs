// A stream socket as the other side: each packet behind its length, 4 bytes, big-endian. It is what QEMU's "-netdev
// stream" and "-netdev socket" speak.
//
//   receive: the buffer holds any part of the stream; whole packets are taken off its front, the rest moves there when
//            the end is reached. A length that no packet has means that the peer has lost its place: the stream is over
//   send:    one write; what the socket does not take at once is copied and goes first, when there is room again
//
// Not here: reconnection. When the stream is over, packets are dropped.
using System.Buffers.Binary;
using System.Net.Sockets;
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Linux.Sockets;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Net.Backends;

/// <summary>A peer at the other end of a stream.</summary>
public sealed class StreamBackend : NetBackend
{
    private readonly PacketDescriptor _stream;
    private readonly StreamReceiver _receiver;
    private readonly StreamSender _sender;
    private readonly string _name;

    /// <summary>Takes ownership of a connected stream socket.</summary>
    /// <param name="descriptor">The socket.</param>
    /// <param name="name">What it is, for logs.</param>
    public StreamBackend(FileDescriptor descriptor, string name)
    {
        _stream = new PacketDescriptor(descriptor);
        _name = name;
        _receiver = new StreamReceiver(_stream);
        _sender = new StreamSender(_stream);
    }

    /// <inheritdoc/>
    public override string Description => _name;

    /// <summary>Connects to a UNIX socket.</summary>
    /// <exception cref="LinuxException">Nobody listens there.</exception>
    public static async Task<StreamBackend> ConnectAsync(string path, CancellationToken cancellation = default)
    {
        try
        {
            using UnixSocket socket = await UnixSocket.ConnectAsync(path, cancellation).ConfigureAwait(false);
            return new StreamBackend(socket.DuplicateDescriptor(), $"stream to {path}");
        }
        catch (SocketException error)
        {
            throw new LinuxException("connect", error.NativeErrorCode, $"{path}: start the peer first");
        }
    }

    /// <inheritdoc/>
    public override PacketReceiver Receiver(int pair) => _receiver;

    /// <inheritdoc/>
    public override PacketSender Sender(int pair) => _sender;

    /// <inheritdoc/>
    public override void Dispose()
    {
        _receiver.Dispose();
        _sender.Dispose();
        _stream.Dispose();
    }

    private sealed class StreamReceiver(PacketDescriptor stream) : PacketReceiver
    {
        /// <summary>Several of the longest packets, so that a read takes many short ones.</summary>
        private const int BufferBytes = 256 << 10;

        private readonly byte[] _buffer = GC.AllocateUninitializedArray<byte>(BufferBytes);
        private int _start;
        private int _end;
        private bool _isOver;

        public override FileDescriptor? Waitable => stream.Descriptor;

        public override PacketOutcome TryReceive(out NetHeader header, out ReadOnlyMemory<byte> frame)
        {
            header = default;
            frame = default;
            while (true)
            {
                int length = NextLength();
                if (length >= 0 && _end - _start - LengthBytes >= length)
                {
                    frame = _buffer.AsMemory(_start + LengthBytes, length);
                    _start += LengthBytes + length;
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
            if (_isOver || _end - _start < LengthBytes)
            {
                return -1;
            }

            uint length = BinaryPrimitives.ReadUInt32BigEndian(_buffer.AsSpan(_start));
            if (length <= NetOffload.MaxFrameBytes)
            {
                return (int)length;
            }

            _isOver = true;
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
            else if (BufferBytes - _start < LengthBytes + NetOffload.MaxFrameBytes)
            {
                _buffer.AsSpan(_start, _end - _start).CopyTo(_buffer);
                _end -= _start;
                _start = 0;
            }

            int received = stream.TryRead(_buffer.AsSpan(_end));
            _end += Math.Max(received, 0);
            _isOver = received == 0 || (received < 0 && received != -Errno.TryAgain);
            return received > 0;
        }
    }

    private sealed class StreamSender(PacketDescriptor stream) : PacketSender
    {
        private readonly AlignedBuffer _length = new(LengthBytes);
        private readonly AlignedBuffer _rest = new(LengthBytes + NetOffload.MaxFrameBytes);
        private readonly IoSegment[] _segments = new IoSegment[PacketDescriptor.MaxSegments];
        private int _restStart;
        private int _restEnd;

        public override FileDescriptor? Waitable => stream.Descriptor;

        public override PacketOutcome TrySend(in NetHeader header, ReadOnlySpan<IoSegment> frame, int frameBytes)
        {
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
            _length.Dispose();
            _rest.Dispose();
            base.Dispose();
        }

        private PacketOutcome SendRest()
        {
            _segments[0] = _rest.Segment.Slice(_restStart, _restEnd - _restStart);
            int written = stream.TryWrite(_segments.AsSpan(0, 1));
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

    /// <summary>Bytes of the length before a packet.</summary>
    private const int LengthBytes = 4;
}
