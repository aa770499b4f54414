// PasstTests.cs - our front-end and passt: what it offers, who has the gateway's address, and a lease of its DHCP.
using System.Buffers.Binary;
using System.Text.Json;
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Frontend;

public sealed class PasstTests
{
    private const int EthernetBytes = 14;
    private const int IpBytes = 20;
    private const int UdpBytes = 8;
    private const int DhcpBytes = 300;
    private const int DhcpOffset = EthernetBytes + IpBytes + UdpBytes;

    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);
    private static readonly byte[] s_everybody = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF];
    private static readonly byte[] s_mac = [0x52, 0x54, 0x00, 0x12, 0x34, 0x56];
    private static readonly byte[] s_guest = [10, 11, 0, 2];
    private static readonly byte[] s_gateway = [10, 11, 0, 1];

    [Fact]
    public async Task It_is_inspected()
    {
        using TempFolder folder = new();
        await using PeerProcess passt = await StartAsync(folder);
        JsonElement offer = await Inspection.RunAsync(folder.Combine("net.sock"), "net");
        Assert.Equal("MRG_RXBUF", Inspection.Words(offer, "features", "device"));
        Assert.Equal("LOG_ALL PROTOCOL_FEATURES VERSION_1", Inspection.Words(offer, "features", "ring"));
        Assert.Equal(
            "LOG_SHMFD RARP REPLY_ACK DEVICE_STATE", Inspection.Words(offer, "protocol_features", "names"));
        Assert.Equal(JsonValueKind.Null, offer.GetProperty("queues").ValueKind);
    }

    [Fact]
    public async Task It_answers_for_the_gateway_and_gives_an_address()
    {
        using TempFolder folder = new();
        await using PeerProcess passt = await StartAsync(folder);

        // It serves the next front-end after one has left.
        await Inspection.RunAsync(folder.Combine("net.sock"), "net");
        await using NetFrontend net = await NetFrontend.ConnectAsync(folder.Combine("net.sock"));
        net.Send(WhoHasGateway());
        byte[] answer = net.Receive(packet => packet.Length >= 42 && packet[12] == 0x08 && packet[13] == 0x06);
        Assert.Equal(2, answer[21]);
        Assert.Equal(s_gateway, answer[28..32]);
        Assert.Equal(s_mac, answer[..6]);

        net.Send(Discover());
        byte[] offer = net.Receive(packet => packet.Length > DhcpOffset + 240 && packet[12] == 0x08 && packet[13] == 0
            && packet[EthernetBytes + 9] == 17);
        Assert.Equal(2, offer[DhcpOffset]);
        Assert.Equal(s_guest, offer[(DhcpOffset + 16)..(DhcpOffset + 20)]);
    }

    private static byte[] WhoHasGateway()
    {
        byte[] packet = new byte[60];
        byte[] head = [.. s_everybody, .. s_mac, 0x08, 0x06, 0, 1, 8, 0, 6, 4, 0, 1, .. s_mac, .. s_guest];
        head.CopyTo(packet, 0);
        s_gateway.CopyTo(packet, 38);
        return packet;
    }

    private static byte[] Discover()
    {
        byte[] packet = new byte[DhcpOffset + DhcpBytes];
        byte[] ethernet = [.. s_everybody, .. s_mac, 0x08, 0x00];
        ethernet.CopyTo(packet, 0);
        Span<byte> ip = packet.AsSpan(EthernetBytes, IpBytes);
        (ip[0], ip[8], ip[9]) = (0x45, 64, 17);
        BinaryPrimitives.WriteUInt16BigEndian(ip[2..], IpBytes + UdpBytes + DhcpBytes);
        ip[16..].Fill(0xFF);
        BinaryPrimitives.WriteUInt16BigEndian(ip[10..], Checksum(ip));
        Span<byte> udp = packet.AsSpan(EthernetBytes + IpBytes);
        BinaryPrimitives.WriteUInt16BigEndian(udp, 68);
        BinaryPrimitives.WriteUInt16BigEndian(udp[2..], 67);
        BinaryPrimitives.WriteUInt16BigEndian(udp[4..], UdpBytes + DhcpBytes);
        Span<byte> dhcp = packet.AsSpan(DhcpOffset);
        (dhcp[0], dhcp[1], dhcp[2], dhcp[4]) = (1, 1, 6, 0x42);
        s_mac.CopyTo(dhcp[28..]);
        byte[] options = [99, 130, 83, 99, 53, 1, 1, 55, 2, 1, 3, 255];
        options.CopyTo(dhcp[236..]);
        return packet;
    }

    private static ushort Checksum(ReadOnlySpan<byte> header)
    {
        uint sum = 0;
        for (int i = 0; i < header.Length; i += 2)
        {
            sum += BinaryPrimitives.ReadUInt16BigEndian(header[i..]);
        }

        sum = (sum >> 16) + (sum & 0xFFFF);
        return (ushort)~(sum + (sum >> 16));
    }

    private static async Task<PeerProcess> StartAsync(TempFolder folder)
    {
        await Peers.RequireAsync("passt");
        string socket = folder.Combine("net.sock");
        PeerProcess passt = await PeerProcess.StartPeerAsync(
            "passt", "--foreground", "--vhost-user", "--runas", "0", "--socket-path", socket,
            "--address", "10.11.0.2", "--netmask", "24", "--gateway", "10.11.0.1", "--ipv4-only");
        await passt.WaitForSocketAsync(socket, s_startLimit);
        return passt;
    }
}
