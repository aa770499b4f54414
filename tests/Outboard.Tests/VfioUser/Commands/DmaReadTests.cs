// DMA_READ: the server asks, the client answers. The card does it when told to go by messages.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Linux.Sockets;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class DmaReadTests : ServerTest
{
    private const uint ByMessages = 0x100;

    [Fact]
    public async Task From_a_client_it_is_not_known()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.RefusedAsync(
            WireClient.Inval, VfioUserCommand.DmaRead, WireClient.Bytes(new DmaAccessPayload(0, 4)));
        await client.ExpectServedAsync();
    }

    [Fact]
    public async Task Comes_between_commands_of_the_client_and_stays_in_step()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.MapAsync(0x1000, 0x1000, null);
        ushort start = await StartAsync(client, 0x1ff0, 16);
        ushort other = await client.SendAsync(
            VfioUserCommand.DeviceGetInfo, WireClient.Bytes(new DeviceInfoPayload(16, 0, 0, 0)));
        WireMessage asked = await client.ReceiveAsync();
        Assert.Equal(VfioUserCommand.DmaRead, asked.Header.Command);
        Assert.Equal(MessageFlags.None, asked.Header.Flags);
        Assert.Equal(new DmaAccessPayload(0x1ff0, 16), asked.Read<DmaAccessPayload>());
        await AnswerAsync(client, asked, [.. WireClient.Bytes(new DmaAccessPayload(0x1ff0, 16)), .. Data(16)]);
        await client.ReplyAsync(VfioUserCommand.RegionWrite, start);
        await client.ReplyAsync(VfioUserCommand.DeviceGetInfo, other);
        Assert.Equal(0u, await client.ReadRegionAsync<uint>(0, 0x50));
        Assert.Equal(Data(16), await client.ReadRegionAsync(2, 0, 16));
    }

    [Fact]
    public async Task Is_cut_to_what_the_client_takes()
    {
        using WireClient client = await ConnectNegotiatedAsync("""{"capabilities":{"max_data_xfer_size":100}}""");
        await client.MapAsync(0, 0x1000, null);
        await StartAsync(client, 0, 250);
        foreach (ulong expected in (ulong[])[100, 100, 50])
        {
            WireMessage asked = await client.ReceiveAsync();
            DmaAccessPayload access = asked.Read<DmaAccessPayload>();
            Assert.Equal(expected, access.Count);
            await AnswerAsync(client, asked, [.. asked.Payload, .. Data((int)expected)]);
        }

        await client.ReceiveAsync();
        Assert.Equal(0u, await client.ReadRegionAsync<uint>(0, 0x50));
    }

    [Fact]
    public async Task Short_answers_are_gone_on_with()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.MapAsync(0, 0x1000, null);
        await StartAsync(client, 0, 16);
        WireMessage first = await client.ReceiveAsync();
        await AnswerAsync(client, first, [.. WireClient.Bytes(new DmaAccessPayload(0, 12)), .. Data(12)]);
        WireMessage second = await client.ReceiveAsync();
        Assert.Equal(new DmaAccessPayload(12, 4), second.Read<DmaAccessPayload>());
        await AnswerAsync(client, second, [.. second.Payload, .. Data(4)]);
        await client.ReceiveAsync();
        byte[] expected = [.. Data(12), .. Data(4)];
        Assert.Equal(expected, await client.ReadRegionAsync(2, 0, 16));
    }

    /// <summary>QEMU 10 has a count of 32 bits, and the data begins behind it.</summary>
    [Fact]
    public async Task A_short_head_is_understood()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.MapAsync(0, 0x1000, null);
        await StartAsync(client, 0, 16);
        await AnswerAsync(
            client, await client.ReceiveAsync(), [.. WireClient.Bytes(0UL), .. WireClient.Bytes(16u), .. Data(16)]);
        await client.ReceiveAsync();
        Assert.Equal(Data(16), await client.ReadRegionAsync(2, 0, 16));
    }

    [Fact]
    public async Task Bad_answers_fail_the_transfer_only()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.MapAsync(0, 0x1000, null);
        byte[][] answers =
        [
            [], [1, 2, 3], [.. WireClient.Bytes(new DmaAccessPayload(0, 0))],
            [.. WireClient.Bytes(new DmaAccessPayload(8, 16)), .. Data(16)],
            [.. WireClient.Bytes(new DmaAccessPayload(0, 17)), .. Data(17)],
            [.. WireClient.Bytes(new DmaAccessPayload(0, ulong.MaxValue)), .. Data(16)],
            [.. WireClient.Bytes(new DmaAccessPayload(0, 8)), .. Data(16)],
        ];
        foreach (byte[] answer in answers)
        {
            ushort start = await StartAsync(client, 0, 16);
            await AnswerAsync(client, await client.ReceiveAsync(), answer);
            await client.ReplyAsync(VfioUserCommand.RegionWrite, start);
            Assert.NotEqual(0u, await client.ReadRegionAsync<uint>(0, 0x50));
        }
    }

    [Theory]
    [InlineData(5, 5)]
    [InlineData(0, Errno.InputOutput)]
    public async Task The_clients_refusal_is_the_status(uint error, uint status)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.MapAsync(0, 0x1000, null);
        await StartAsync(client, 0, 16);
        WireMessage asked = await client.ReceiveAsync();
        MessageHeader refusal = new(asked.Header.Id, VfioUserCommand.DmaRead, 16, (MessageFlags)0x21, error);
        await client.SendRawAsync(WireClient.Bytes(refusal));
        await client.ReceiveAsync();
        Assert.Equal(status, await client.ReadRegionAsync<uint>(0, 0x50));
    }

    [Theory]
    [InlineData(0x1000, 16, 2)]
    [InlineData(0x0ff8, 16, 2)]
    [InlineData(0x2000, 16, 13)]
    [InlineData(0, 0, 22)]
    [InlineData(0, 0x4001, 22)]
    public async Task What_may_not_be_read_is_not_asked_for(ulong address, uint length, uint status)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x1000);
        await client.MapAsync(0, 0x1000, memory);
        await client.MapAsync(0x2000, 0x1000, null, flags: 2);
        await client.WriteRegionAsync(0, 0x40, address);
        await client.WriteRegionAsync(0, 0x48, length);
        await client.WriteRegionAsync(0, 0x4c, 1u);
        Assert.Equal(status, await client.ReadRegionAsync<uint>(0, 0x50));
    }

    [Fact]
    public async Task Goes_over_the_second_socket_when_there_is_one()
    {
        using WireClient client = Connect();
        WireMessage version = await client.NegotiateAsync("""{"capabilities":{"twin_socket":{"supported":true}}}""");
        using WireClient twin = new(new UnixSocket(version.Descriptors[0]));
        await client.MapAsync(0, 0x1000, null);
        ushort start = await StartAsync(client, 0, 16);
        WireMessage asked = await twin.ReceiveAsync();
        await AnswerAsync(twin, asked, [.. asked.Payload, .. Data(16)]);
        await client.ReplyAsync(VfioUserCommand.RegionWrite, start);
        Assert.Equal(Data(16), await client.ReadRegionAsync(2, 0, 16));
    }

    [Fact]
    public async Task A_client_that_goes_away_leaves_nothing_waiting()
    {
        using (WireClient client = await ConnectNegotiatedAsync())
        {
            await client.MapAsync(0, 0x1000, null);
            await StartAsync(client, 0, 16);
            await client.ReceiveAsync();
        }

        using WireClient next = await ConnectNegotiatedAsync();
        Assert.Equal((uint)Errno.InputOutput, await next.ReadRegionAsync<uint>(0, 0x50));
        Assert.Equal(1u, await next.ReadRegionAsync<uint>(0, 0x2c));
        Assert.Equal(0u, await next.ReadRegionAsync<uint>(0, 0x34));
    }

    private static byte[] Data(int count) => [.. Enumerable.Range(1, count).Select(i => (byte)i)];

    private static async Task<ushort> StartAsync(WireClient client, ulong address, uint length)
    {
        await client.WriteRegionAsync(0, 0x40, address);
        await client.WriteRegionAsync(0, 0x48, length);
        return await client.SendAsync(
            VfioUserCommand.RegionWrite, WireClient.Write(0, 0x4c, WireClient.Bytes(1u | ByMessages)));
    }

    private static Task AnswerAsync(WireClient client, WireMessage asked, byte[] payload)
    {
        MessageHeader header = new(
            asked.Header.Id, asked.Header.Command, (uint)(16 + payload.Length), MessageFlags.Reply, 0);
        return client.SendRawAsync([.. WireClient.Bytes(header), .. payload]);
    }
}
