// A UNIX datagram socket as the other side, one packet in each datagram: what QEMU's "-netdev dgram" speaks with
// local.type=unix and remote.type=unix, the paths the other way round.
using Outboard.Linux;
using Outboard.Linux.Sockets;

namespace Outboard.Devices.Net.Backends;

/// <summary>A peer at a UNIX datagram socket, which may come and go.</summary>
public sealed class DatagramBackend : NetBackend
{
    private readonly UnixDatagramSocket _socket;
    private readonly DescriptorReceiver _receiver;
    private readonly DescriptorSender _sender;
    private readonly string _name;

    private DatagramBackend(UnixDatagramSocket socket, string name)
    {
        _socket = socket;
        _name = name;
        _receiver = new DescriptorReceiver(socket.Packets, headerBytes: 0);
        _sender = new DescriptorSender(socket.Packets.Descriptor, socket.TrySend, hasHeader: false);
    }

    /// <inheritdoc/>
    public override string Description => _name;

    /// <summary>Binds to a path, and sends to another, where nobody need be yet.</summary>
    /// <exception cref="LinuxException">The path cannot be bound; the message says what to do.</exception>
    public static DatagramBackend Open(string localPath, string remotePath) =>
        new(UnixDatagramSocket.Bind(localPath, remotePath), $"datagrams at {localPath}, to {remotePath}");

    /// <inheritdoc/>
    public override PacketReceiver Receiver(int pair) => _receiver;

    /// <inheritdoc/>
    public override PacketSender Sender(int pair) => _sender;

    /// <inheritdoc/>
    public override void Dispose()
    {
        _receiver.Dispose();
        _sender.Dispose();
        _socket.Dispose();
    }
}
