// DpdkTests.cs - DPDK's testpmd at both ends: its net_vhost as back-end of our front-end, and its net_virtio_user as
// front-end of "outboard net". No huge pages, no device, lowest priority: it polls.
using System.Text.Json;
using System.Text.RegularExpressions;
using Outboard.InteropTests.Lab;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.InteropTests.Frontend;

public sealed partial class DpdkTests
{
    private const int Packets = 200;
    private const int Burst = 25;

    /// <summary>More than the four bursts that testpmd begins with: packets went round and round.</summary>
    private const long EnoughPackets = 2000;

    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(90);
    private static readonly TimeSpan s_askInterval = TimeSpan.FromMilliseconds(300);

    [Fact]
    public async Task Its_back_end_is_inspected()
    {
        using TempFolder folder = new();
        await using PeerProcess testpmd = await StartBackendAsync(folder);
        JsonElement offer = await Inspection.RunAsync(folder.Combine("net.sock"), "net");
        string ring = Inspection.Words(offer, "features", "ring");
        Assert.Contains("RING_PACKED", ring, StringComparison.Ordinal);
        Assert.Contains("IN_ORDER", ring, StringComparison.Ordinal);
        Assert.Contains("MRG_RXBUF", Inspection.Words(offer, "features", "device"), StringComparison.Ordinal);
        string protocol = Inspection.Words(offer, "protocol_features", "names");
        Assert.StartsWith("MQ LOG_SHMFD RARP REPLY_ACK MTU BACKEND_REQ", protocol, StringComparison.Ordinal);
        Assert.EndsWith("STATUS", protocol, StringComparison.Ordinal);
        Assert.Empty(offer.GetProperty("problems").EnumerateArray());
    }

    [Theory]
    [InlineData(false, false)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    [InlineData(true, true)]
    public async Task Its_back_end_gives_every_packet_back(bool packed, bool inOrder)
    {
        using TempFolder folder = new();
        await using PeerProcess testpmd = await StartBackendAsync(folder);
        await using NetFrontend net = await NetFrontend.ConnectAsync(
            folder.Combine("net.sock"), packed, inOrder);
        Assert.Equal(packed, (net.Features & VirtioFeatures.RingPacked) != 0);
        Assert.Equal(inOrder, (net.Features & VirtioFeatures.InOrder) != 0);
        Random random = new(1);
        for (int i = 0; i < Packets; i++)
        {
            byte[] packet = new byte[random.Next(60, 1500)];
            random.NextBytes(packet);
            packet[0] &= 0xFE;
            net.Send(packet);
            Assert.Equal(packet, net.Receive(_ => true));
        }

        // Many at a time: a back-end returns such a batch by one used entry, when it may.
        for (int i = 0; i < Packets / Burst; i++)
        {
            byte[][] packets = [.. Enumerable.Range(0, Burst).Select(number => Numbered(i, number))];
            net.Send(packets);
            foreach (byte[] packet in packets)
            {
                Assert.Equal(packet, net.Receive(_ => true));
            }
        }
    }

    private static byte[] Numbered(int burst, int number)
    {
        byte[] packet = new byte[100 + number];
        Array.Fill(packet, (byte)(2 * burst));
        packet[^1] = (byte)number;
        return packet;
    }

    [Theory]
    [InlineData("", false)]
    [InlineData(",packed_vq=1", false)]
    [InlineData(",mrg_rxbuf=0,in_order=0", true)]
    [InlineData(",in_order=1", true)]
    [InlineData(",in_order=1,mrg_rxbuf=0", true)]
    [InlineData(",in_order=1,packed_vq=1", true)]
    [InlineData(",in_order=1,packed_vq=1,mrg_rxbuf=0", true)]
    public async Task Its_front_end_sends_through_our_network_device(string ring, bool offersInOrder)
    {
        string[] options = offersInOrder ? ["--in-order", "--verbose"] : ["--verbose"];
        using TempFolder folder = new();
        string socket = folder.Combine("net.sock");
        await using PeerProcess backend = PeerProcess.StartProgram(
            "dotnet", [OutboardProgram.Path, "net", $"--socket-path={socket}", "--loopback", .. options]);
        await backend.WaitForSocketAsync(socket, s_startLimit);
        await using PeerProcess testpmd = await StartAsync(
            "fe", $"net_virtio_user0,path={socket},queues=1,queue_size=256{ring}");
        await testpmd.Input.WriteLineAsync("start tx_first 4");
        long received = 0;
        for (int attempt = 0; received < EnoughPackets; attempt++)
        {
            Assert.True(attempt < 300 && !testpmd.HasExited, testpmd.Describe());
            await Task.Delay(s_askInterval);
            await testpmd.Input.WriteLineAsync("show port stats 0");
            await testpmd.Input.FlushAsync();
            received = ReceivedPackets().Matches(testpmd.Output.Text)
                .Select(match => long.Parse(match.Groups[1].Value, null)).DefaultIfEmpty(0).Max();
        }

        await testpmd.Input.WriteLineAsync("stop");
        await testpmd.Input.WriteLineAsync("quit");
        await testpmd.Input.FlushAsync();
        Assert.Equal(0, await testpmd.WaitForExitAsync(s_startLimit));
        await backend.TerminateAsync();
        Assert.Matches(@"queue 0: received \d{4,} packets", backend.Errors.Text);
        Assert.Contains("0 malformed, 0 too long", backend.Errors.Text, StringComparison.Ordinal);
        Assert.DoesNotContain("refused:", backend.Errors.Text, StringComparison.Ordinal);
        bool usesInOrder = offersInOrder && !ring.Contains("in_order=0", StringComparison.Ordinal);
        Assert.Equal(usesInOrder, backend.Errors.Text.Contains(" IN_ORDER", StringComparison.Ordinal));
    }

    private static async Task<PeerProcess> StartBackendAsync(TempFolder folder)
    {
        string socket = folder.Combine("net.sock");
        PeerProcess testpmd = await StartAsync(
            "be", $"net_vhost0,iface={socket},queues=1", "--auto-start", "--no-flush-rx");
        await testpmd.WaitForSocketAsync(socket, s_startLimit);
        return testpmd;
    }

    private static async Task<PeerProcess> StartAsync(string prefix, string device, params string[] more)
    {
        await Peers.RequireAsync("dpdk");
        string cores = Environment.ProcessorCount > 1 ? "(0-1)@(0,1)" : "(0-1)@0";
        return await PeerProcess.StartPeerAsync(
            "nice",
            [
                "-n", "19", "dpdk-testpmd", $"--lcores={cores}", "--no-huge", "-m", "256", "--no-pci", "--no-telemetry",
                "--single-file-segments", $"--file-prefix=outboard-{prefix}-{Guid.NewGuid():N}", $"--vdev={device}",
                "--", "-i", "--forward-mode=io", "--total-num-mbufs=4096", "--nb-cores=1", "--no-mlockall", .. more,
            ]);
    }

    [GeneratedRegex(@"RX-packets: (\d+)")]
    private static partial Regex ReceivedPackets();
}
