// The stream: messages in pieces, several at once, sizes that lie, descriptors in odd places. Whatever comes, the
// server keeps its place or ends the connection.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Sockets;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Channel;

public sealed class StreamTests : ServerTest
{
    private static readonly byte[] s_getInfo = Message(
        1, VfioUserCommand.DeviceGetInfo, WireClient.Bytes(new DeviceInfoPayload(16, 0, 0, 0)));

    [Fact]
    public async Task Byte_by_byte()
    {
        using WireClient client = Connect();
        byte[] version = Message(7, VfioUserCommand.Version, WireClient.Version("{}"));
        foreach (byte single in version)
        {
            await client.SendRawAsync([single]);
        }

        await client.ReplyAsync(VfioUserCommand.Version, 7);
        foreach (byte single in s_getInfo)
        {
            await client.SendRawAsync([single]);
        }

        await client.ReplyAsync(VfioUserCommand.DeviceGetInfo, 1);
    }

    [Fact]
    public async Task Many_at_once_are_answered_in_order()
    {
        const int count = 3000;
        using WireClient client = await ConnectNegotiatedAsync();
        Task sending = client.SendRawAsync([.. Enumerable.Range(0, count).SelectMany(id => Message(
            (ushort)id, VfioUserCommand.RegionRead, WireClient.Bytes(new RegionAccessPayload(0, 0, 4))))]);
        for (int id = 0; id < count; id++)
        {
            await client.ReplyAsync(VfioUserCommand.RegionRead, (ushort)id);
        }

        await sending;
    }

    /// <summary>More than waits in line, before anything is read back; then a message that ends the
    /// connection.</summary>
    [Fact]
    public async Task Large_messages_wait_until_there_is_room()
    {
        const int count = 30;
        using WireClient client = await ConnectNegotiatedAsync();
        byte[] large = Message(3, VfioUserCommand.RegionWrite, WireClient.Write(4, 0, new byte[1 << 20]));
        Task sending = Task.Run(async () =>
        {
            for (int i = 0; i < count; i++)
            {
                await client.SendRawAsync(large);
            }

            await client.SendRawAsync(Header(4, VfioUserCommand.RegionWrite, uint.MaxValue));
        });
        for (int i = 0; i < count; i++)
        {
            await client.ReplyAsync(VfioUserCommand.RegionWrite, 3);
        }

        await client.FailureAsync(WireClient.Inval, VfioUserCommand.RegionWrite, 4);
        await sending;
        await client.ExpectClosedAsync();
    }

    [Theory]
    [InlineData(0)]
    [InlineData(15)]
    public async Task A_size_below_the_header_is_refused_and_the_next_message_found(uint size)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.SendRawAsync([.. Header(9, VfioUserCommand.DeviceGetInfo, size), .. s_getInfo]);
        await client.FailureAsync(WireClient.Inval, VfioUserCommand.DeviceGetInfo, 9);
        await client.ReplyAsync(VfioUserCommand.DeviceGetInfo, 1);
    }

    [Theory]
    [InlineData((1 << 20) + 48 + 1)]
    [InlineData(uint.MaxValue)]
    public async Task A_size_beyond_the_limit_is_refused_and_ends_the_connection(uint size)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.SendRawAsync(Header(9, VfioUserCommand.RegionWrite, size));
        await client.FailureAsync(WireClient.Inval, VfioUserCommand.RegionWrite, 9);
        await client.ExpectClosedAsync();
        using WireClient next = await ConnectNegotiatedAsync();
        await next.ExpectServedAsync();
    }

    [Fact]
    public async Task Descriptors_may_come_with_any_byte_of_their_message()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd one = new();
        using EventFd two = new();
        byte[] message = Message(9, VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(0x24, 2, 0, 2));
        await client.SendRawAsync(message[..5], one.Descriptor);
        await client.SendRawAsync(message[5..20]);
        await client.SendRawAsync(message[20..], two.Descriptor);
        await client.ReplyAsync(VfioUserCommand.DeviceSetIrqs, 9);
        await client.WriteRegionAsync(0, 0x10, (2u << 16) | 1);
        Assert.Equal(1UL, two.Take());
    }

    [Fact]
    public async Task Hundreds_of_descriptors_end_the_connection()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd extra = new();
        FileDescriptor[] many = [.. Enumerable.Repeat(extra.Descriptor, 200)];
        byte[] message = Message(9, VfioUserCommand.DeviceSetIrqs, new byte[100]);
        await client.SendRawAsync(message[..40], many);
        await client.SendRawAsync(message[40..50], many);
        await client.FailureAsync(WireClient.Inval, VfioUserCommand.DeviceSetIrqs, 9);
        await client.ExpectClosedAsync();
    }

    [Fact]
    public async Task A_client_that_ends_within_a_message_is_followed_by_the_next()
    {
        foreach (int cut in (int[])[0, 1, 15, 16, 17, 31])
        {
            using (WireClient client = await ConnectNegotiatedAsync())
            {
                using EventFd extra = new();
                await client.SendRawAsync(s_getInfo[..Math.Max(cut, 1)], extra.Descriptor);
            }
        }

        using WireClient next = await ConnectNegotiatedAsync();
        Assert.Equal(6u, await next.ReadRegionAsync<uint>(0, 0x2c));
    }

    /// <summary>Whatever was not read of what came, descriptors too, is taken before the socket is closed.</summary>
    [Fact]
    public async Task A_channel_that_is_closed_with_messages_unread_resets_nothing()
    {
        (UnixSocket own, UnixSocket other) = UnixSocket.CreatePair();
        SocketChannel channel = new(own);
        using WireClient client = new(other);
        using EventFd extra = new();
        byte[] large = Message(3, VfioUserCommand.RegionWrite, WireClient.Write(4, 0, new byte[100_000]));
        await client.SendRawAsync(large, extra.Descriptor);
        await client.SendRawAsync(s_getInfo, extra.Descriptor);
        using (await channel.ReceiveAsync(TestContext.Current.CancellationToken))
        {
            await channel.DisposeAsync();
        }

        await client.ExpectClosedAsync();
    }

    private static byte[] Header(ushort id, VfioUserCommand command, uint size) =>
        WireClient.Bytes(new MessageHeader(id, command, size, 0, 0));

    private static byte[] Message(ushort id, VfioUserCommand command, byte[] payload) =>
        [.. Header(id, command, (uint)(16 + payload.Length)), .. payload];
}
