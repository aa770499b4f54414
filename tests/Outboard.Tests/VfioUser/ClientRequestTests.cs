// Our commands to a client while something gets in between: whoever asked gives up, the socket is full, the reply comes
// at that moment. The stream keeps its order.
using Outboard.Linux.Sockets;
using Outboard.Pci;
using Outboard.Pci.Dma;
using Outboard.Tests.VhostUser;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser;

public sealed class ClientRequestTests : ServerTest
{
    private const int LargestBytes = VersionCapabilities.MaxTransferBytes;
    private readonly FakeFunction _function = new();

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private protected override PciFunction Function => _function;

    /// <summary>The message is far larger than what a socket holds, so a part of it is out when its sender gives up.
    /// </summary>
    [Fact]
    public async Task A_message_that_has_begun_is_sent_as_a_whole_although_its_sender_gives_up()
    {
        using WireClient client = await ConnectWithWindowAsync();
        using CancellationTokenSource givingUp = new();
        byte[] data = new byte[LargestBytes];
        Random.Shared.NextBytes(data);
        Task writing = _function.Dma.WriteAsync(0, data, DmaRoute.Messages, givingUp.Token).AsTask();
        MessageHeader header = await client.ReceiveHeaderAsync();
        Assert.Equal(VfioUserCommand.DmaWrite, header.Command);
        await givingUp.CancelAsync();
        await GivesUpAsync(writing);

        WireMessage message = await client.ReceiveRestAsync(header);
        Assert.Equal(data, message.Payload[DmaAccessPayload.Bytes..]);
        await client.ExpectServedAsync();
        await AnswerAsync(client, header, message.Payload[..DmaAccessPayload.Bytes]);
        await client.ExpectServedAsync();
    }

    [Fact]
    public async Task A_message_that_waits_for_its_turn_is_never_sent_when_its_sender_gives_up()
    {
        using WireClient client = await ConnectWithWindowAsync();
        using CancellationTokenSource givingUp = new();
        Task first = _function.Dma.WriteAsync(
            0, new byte[LargestBytes], DmaRoute.Messages, Cancellation).AsTask();
        MessageHeader header = await client.ReceiveHeaderAsync();
        Task second = _function.Dma.ReadAsync(0, new byte[4], DmaRoute.Messages, givingUp.Token).AsTask();
        await givingUp.CancelAsync();
        await GivesUpAsync(second);
        WireMessage message = await client.ReceiveRestAsync(header);
        await client.ExpectServedAsync();
        await AnswerAsync(client, header, message.Payload[..DmaAccessPayload.Bytes]);
        await first.WaitAsync(Eventually.Limit, Cancellation);
    }

    /// <summary>Nobody waits for the reply any more; it is none to nothing, which would be answered as a mistake.
    /// </summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_reply_may_come_when_nobody_waits_for_it_any_more(bool atOnce)
    {
        using WireClient client = await ConnectWithWindowAsync();
        for (int round = 0; round < 100; round++)
        {
            using CancellationTokenSource givingUp = new();
            Task reading = _function.Dma.ReadAsync(0, new byte[4], DmaRoute.Messages, givingUp.Token).AsTask();
            WireMessage asked = await client.ReceiveAsync();
            Task cancelling = givingUp.CancelAsync();
            if (!atOnce)
            {
                await GivesUpAsync(reading);
            }

            await AnswerAsync(client, asked.Header, [.. asked.Payload, 1, 2, 3, 4]);
            await cancelling;
            await client.ExpectServedAsync();
            await ((Task)Task.WhenAny(reading)).WaitAsync(Eventually.Limit, Cancellation);
        }
    }

    [Fact]
    public async Task Large_reads_are_cut_where_replies_come_between_the_clients_commands()
    {
        using WireClient client = await ConnectWithWindowAsync();
        byte[] read = new byte[100_000];
        Task reading = _function.Dma.ReadAsync(0, read, DmaRoute.Messages, Cancellation).AsTask();
        byte[] data = new byte[read.Length];
        Random.Shared.NextBytes(data);
        for (int done = 0; done < data.Length;)
        {
            WireMessage asked = await client.ReceiveAsync();
            DmaAccessPayload access = asked.Read<DmaAccessPayload>();
            Assert.Equal(new DmaAccessPayload((ulong)done, (ulong)Math.Min(32 << 10, data.Length - done)), access);
            await AnswerAsync(client, asked.Header, [.. asked.Payload, .. data.AsSpan(done, (int)access.Count)]);
            done += (int)access.Count;
        }

        await reading.WaitAsync(Eventually.Limit, Cancellation);
        Assert.Equal(data, read);
    }

    [Fact]
    public async Task Large_reads_over_the_second_socket_are_not_cut()
    {
        using WireClient client = Connect();
        WireMessage version = await client.NegotiateAsync("""{"capabilities":{"twin_socket":{"supported":true}}}""");
        using WireClient twin = new(new UnixSocket(version.Descriptors[0]));
        await client.MapAsync(0, LargestBytes, null);
        Task reading = _function.Dma.ReadAsync(0, new byte[100_000], DmaRoute.Messages, Cancellation).AsTask();
        WireMessage asked = await twin.ReceiveAsync();
        Assert.Equal(new DmaAccessPayload(0, 100_000), asked.Read<DmaAccessPayload>());
        await AnswerAsync(twin, asked.Header, [.. asked.Payload, .. new byte[100_000]]);
        await reading.WaitAsync(Eventually.Limit, Cancellation);
    }

    private async Task<WireClient> ConnectWithWindowAsync()
    {
        WireClient client = await ConnectNegotiatedAsync();
        await client.MapAsync(0, LargestBytes, null);
        return client;
    }

    private static Task<OperationCanceledException> GivesUpAsync(Task task) =>
        Assert.ThrowsAnyAsync<OperationCanceledException>(() => task.WaitAsync(Eventually.Limit, Cancellation));

    private static Task AnswerAsync(WireClient client, MessageHeader asked, byte[] payload)
    {
        MessageHeader header = new(asked.Id, asked.Command, (uint)(16 + payload.Length), MessageFlags.Reply, 0);
        return client.SendRawAsync([.. WireClient.Bytes(header), .. payload]);
    }
}
