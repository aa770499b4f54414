// For tests and measurements: what is sent comes back, header and all (LoopbackBackend); or what is sent vanishes and
// nothing ever comes (NullBackend).
using Outboard.Linux;
using Outboard.Linux.Sockets;
using Outboard.Virtio.Spec;

namespace Outboard.Devices.Net.Backends;

/// <summary>Gives back what it is sent, in each pair, by way of the kernel.</summary>
public sealed class LoopbackBackend : NetBackend
{
    private readonly PacketDescriptor[] _ends;
    private readonly DescriptorReceiver[] _receivers;
    private readonly DescriptorSender[] _senders;

    /// <summary>Makes it.</summary>
    /// <param name="pairs">Pairs of queues.</param>
    public LoopbackBackend(int pairs = 1)
    {
        _ends = new PacketDescriptor[2 * pairs];
        _receivers = new DescriptorReceiver[pairs];
        _senders = new DescriptorSender[pairs];
        for (int i = 0; i < pairs; i++)
        {
            (PacketDescriptor first, PacketDescriptor second) = UnixDatagramSocket.CreatePair();
            (_ends[2 * i], _ends[(2 * i) + 1]) = (first, second);
            _receivers[i] = new DescriptorReceiver(second, NetHeader.Bytes);
            _senders[i] = new DescriptorSender(first.Descriptor, first.TryWrite, hasHeader: true);
        }
    }

    /// <inheritdoc/>
    public override string Description => "loopback";

    /// <inheritdoc/>
    public override int PairCount => _receivers.Length;

    /// <inheritdoc/>
    public override ulong Features => NetOffload.All;

    /// <inheritdoc/>
    public override PacketReceiver Receiver(int pair) => _receivers[pair];

    /// <inheritdoc/>
    public override PacketSender Sender(int pair) => _senders[pair];

    /// <inheritdoc/>
    public override void Dispose()
    {
        Array.ForEach(_receivers, receiver => receiver.Dispose());
        Array.ForEach(_senders, sender => sender.Dispose());
        Array.ForEach(_ends, end => end.Dispose());
    }
}

/// <summary>Drops what it is sent.</summary>
public sealed class NullBackend : NetBackend
{
    private readonly Receiving _receiver = new();
    private readonly Sending _sender = new();

    /// <inheritdoc/>
    public override string Description => "nothing";

    /// <inheritdoc/>
    public override int PairCount => int.MaxValue;

    /// <inheritdoc/>
    public override PacketReceiver Receiver(int pair) => _receiver;

    /// <inheritdoc/>
    public override PacketSender Sender(int pair) => _sender;

    /// <inheritdoc/>
    public override void Dispose()
    {
        _receiver.Dispose();
        _sender.Dispose();
    }

    private sealed class Receiving : PacketReceiver
    {
        public override FileDescriptor? Waitable => null;

        public override PacketOutcome TryReceive(out NetHeader header, out ReadOnlyMemory<byte> frame)
        {
            header = default;
            frame = default;
            return PacketOutcome.Later;
        }
    }

    private sealed class Sending : PacketSender
    {
        public override FileDescriptor? Waitable => null;

        public override PacketOutcome TrySend(in NetHeader header, ReadOnlySpan<IoSegment> frame, int frameBytes) =>
            PacketOutcome.Done;
    }
}
