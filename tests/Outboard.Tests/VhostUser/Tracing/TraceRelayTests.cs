// A relay changes nothing: bytes, descriptors, the end of the stream; whatever is said. And it tells what was said.
using System.Collections.Concurrent;
using Outboard.Linux;
using Outboard.Linux.Sockets;
using Outboard.VhostUser.Protocol;
using Outboard.VhostUser.Tracing;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Tracing;

public sealed class TraceRelayTests : BackendTest
{
    private readonly ConcurrentQueue<TraceEntry> _entries = new();
    private readonly CancellationTokenSource _ending = new();

    private IEnumerable<MessageEntry> Messages => _entries.OfType<MessageEntry>();

    [Fact]
    public async Task Messages_arrive_as_they_were_sent_and_are_told()
    {
        (WirePeer front, WirePeer back, Task relay) = Connect();
        await front.SendAsync(FrontendRequest.SetFeatures, WirePeer.NoReply, WirePeer.Bytes(0x1_0000_0000UL));
        await front.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        Assert.Equal(WirePeer.Bytes(0x1_0000_0000UL), (await back.ReceiveAsync()).Payload);
        await back.ReceiveAsync();
        await back.SendAsync(FrontendRequest.GetFeatures, WirePeer.ReplyFlags, WirePeer.Bytes(7UL));
        Assert.Equal(7UL, (await front.ReceiveAsync()).Value);
        await EndAsync(front, back, relay);
        Assert.Equal(["SET_FEATURES", "GET_FEATURES", "GET_FEATURES"], Messages.Select(entry => entry.Name));
        Assert.Equal([true, true, false], Messages.Select(entry => entry.IsFromFrontend));
        Assert.Equal([null, null, 2L], Messages.Select(entry => entry.Answers));
        Assert.Equal([1L, 2, 3], Messages.Select(entry => entry.Number));
        Assert.All(Messages, entry => Assert.Null(entry.Problem));
        Assert.Equal(["VERSION_1"], Messages.First().Fields[0].Names);
        Assert.Equal(["opened", "closed"], _entries.OfType<ChannelEntry>().Select(entry => entry.What));
    }

    [Theory]
    [InlineData(1, 0u, 8u, 8)]
    [InlineData(1, 2u, 8u, 8)]
    [InlineData(0, 1u, 0u, 0)]
    [InlineData(999, 1u, 20u, 20)]
    [InlineData(1, 0xFFFFFFF1u, 0u, 0)]
    [InlineData(1, 1u, 0xFFFFFFFFu, 100_000)]
    [InlineData(5, 1u, 4097u, 4097)]
    [InlineData(2, 1u, 8u, 3)]
    public async Task Malformed_messages_are_passed_on_as_they_are(uint request, uint flags, uint size, int sent)
    {
        (WirePeer front, WirePeer back, Task relay) = Connect();
        byte[] payload = new byte[sent];
        new Random(1).NextBytes(payload);
        byte[] frame = WirePeer.Frame(request, flags, payload, size);
        await front.SendAsync(frame);
        Assert.Equal(frame, await back.ReadAsync(frame.Length));
        front.Shutdown();
        await back.ExpectClosedAsync();
        await EndAsync(front, back, relay);
    }

    [Fact]
    public async Task A_stream_in_any_pieces_arrives_whole()
    {
        (WirePeer front, WirePeer back, Task relay) = Connect();
        Random random = new(2);
        byte[] stream = [.. Enumerable.Range(0, 50).SelectMany(i => WirePeer.Frame(24, 1, new byte[random.Next(300)]))];
        Task<byte[]> reading = back.ReadAsync(stream.Length);
        for (int at = 0; at < stream.Length;)
        {
            int count = Math.Min(random.Next(1, 700), stream.Length - at);
            await front.SendAsync(stream[at..(at + count)]);
            at += count;
        }

        Assert.Equal(stream, await reading);
        await EndAsync(front, back, relay);
        Assert.Equal(50, Messages.Count());
    }

    [Fact]
    public async Task Part_of_a_message_is_not_kept_back()
    {
        (WirePeer front, WirePeer back, Task relay) = Connect();
        byte[] frame = WirePeer.Frame(2, 1, new byte[8]);
        foreach (byte[] part in (byte[][])[frame[..5], frame[5..13], frame[13..]])
        {
            await front.SendAsync(part);
            Assert.Equal(part, await back.ReadAsync(part.Length));
        }

        await EndAsync(front, back, relay);
        Assert.Single(Messages);
    }

    [Fact]
    public async Task Descriptors_go_through_both_ways_with_their_message()
    {
        (WirePeer front, WirePeer back, Task relay) = Connect();
        FileDescriptor file = Rig.MemoryFile();
        await front.SendAsync(FrontendRequest.SetMemTable, WirePeer.NoReply, new byte[72], file, file);
        await front.SendAsync(FrontendRequest.SetVringErr, WirePeer.NoReply, new byte[8], file);
        Assert.Equal(2, Taken(await back.ReceiveAsync()));
        Assert.Equal(1, Taken(await back.ReceiveAsync()));
        await back.SendAsync(FrontendRequest.GetInflightFd, WirePeer.ReplyFlags, new byte[24], file);
        Assert.Equal(1, Taken(await front.ReceiveAsync()));
        await EndAsync(front, back, relay);
        Assert.Equal([2, 1, 1], Messages.Select(entry => entry.DescriptorCount));
    }

    [Fact]
    public async Task Descriptors_within_a_message_stay_with_their_byte()
    {
        (WirePeer front, WirePeer back, Task relay) = Connect();
        FileDescriptor file = Rig.MemoryFile();
        byte[] frame = WirePeer.Frame(2, 1, new byte[8]);
        await front.SendAsync(frame[..15]);
        List<FileDescriptor> early = [];
        await back.ReadAsync(15, early);
        Assert.Empty(early);
        await front.SendAsync(frame[15..], file);
        List<FileDescriptor> late = [];
        await back.ReadAsync(5, late);
        Assert.Single(late).Dispose();
        await EndAsync(front, back, relay);
        Assert.Equal(1, Messages.Single().DescriptorCount);
    }

    [Fact]
    public async Task Many_descriptors_go_through()
    {
        (WirePeer front, WirePeer back, Task relay) = Connect();
        FileDescriptor file = Rig.MemoryFile();
        await front.SendAsync(
            FrontendRequest.GetFeatures, WirePeer.NoReply, [], [.. Enumerable.Repeat(file, 253)]);
        Assert.Equal(253, Taken(await back.ReceiveAsync()));
        await EndAsync(front, back, relay);
        Assert.Contains("253 descriptors", Messages.Single().Problem, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Each_direction_ends_by_itself()
    {
        (UnixSocket frontSocket, UnixSocket relayFront) = UnixSocket.CreatePair();
        (UnixSocket relayBack, UnixSocket backSocket) = UnixSocket.CreatePair();
        using WirePeer front = new(frontSocket);
        using WirePeer back = new(backSocket);
        Task relay = new TraceRelay(_entries.Enqueue).RelayAsync(relayFront, relayBack, _ending.Token);
        await front.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        frontSocket.Shutdown(System.Net.Sockets.SocketShutdown.Send);
        await back.ReceiveAsync();
        await back.ExpectClosedAsync();
        await back.SendAsync(FrontendRequest.GetFeatures, WirePeer.ReplyFlags, WirePeer.Bytes(1UL));
        Assert.Equal(1UL, (await front.ReceiveAsync()).Value);
        back.Dispose();
        await front.ExpectClosedAsync();
        await relay.WaitAsync(Eventually.Limit, TestContext.Current.CancellationToken);
    }

    [Fact]
    public async Task A_back_end_that_is_gone_is_learnt_by_the_front_end()
    {
        (WirePeer front, WirePeer back, Task relay) = Connect();
        await front.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        await back.ReceiveAsync();
        back.Dispose();
        await front.ExpectClosedAsync();
        front.Dispose();
        await relay.WaitAsync(Eventually.Limit, TestContext.Current.CancellationToken);
        Assert.Contains("1 requests unanswered", _entries.OfType<ChannelEntry>().Last().What, StringComparison.Ordinal);
    }

    [Fact]
    public async Task What_was_received_is_passed_on_when_the_trace_ends()
    {
        for (int round = 0; round < 20; round++)
        {
            using CancellationTokenSource ending = new();
            (UnixSocket frontSocket, UnixSocket relayFront) = UnixSocket.CreatePair();
            (UnixSocket relayBack, UnixSocket backSocket) = UnixSocket.CreatePair();
            using WirePeer front = new(frontSocket);
            using WirePeer back = new(backSocket);
            Task relay = new TraceRelay(_entries.Enqueue).RelayAsync(relayFront, relayBack, ending.Token);
            for (ulong i = 0; i < 20; i++)
            {
                await front.SendAsync(FrontendRequest.SetFeatures, WirePeer.NoReply, WirePeer.Bytes(i));
            }

            await ending.CancelAsync();
            for (ulong i = 0; i < 20; i++)
            {
                Assert.Equal(i, (await back.ReceiveAsync()).Value);
            }

            await back.ExpectClosedAsync();
            await relay.WaitAsync(Eventually.Limit, TestContext.Current.CancellationToken);
        }

        Assert.Equal(400, Messages.Count());
    }

    [Fact]
    public async Task What_is_wrong_by_the_table_is_told()
    {
        (WirePeer front, WirePeer back, Task relay) = Connect();
        await front.SendAsync(FrontendRequest.SetProtocolFeatures, WirePeer.NoReply, WirePeer.Bytes(1UL << 3));
        await front.SendAsync(FrontendRequest.SetFeatures, WirePeer.NoReply, new byte[7]);
        await front.SendAsync(FrontendRequest.GetQueueNum, WirePeer.NoReply, []);
        await front.SendAsync(WirePeer.Frame(77, 1, []));
        await front.SendAsync(FrontendRequest.GetFeatures, WirePeer.ReplyFlags, []);
        await back.SendAsync(FrontendRequest.GetStatus, WirePeer.ReplyFlags, WirePeer.Bytes(0UL));
        await front.ReceiveAsync();
        for (int i = 0; i < 5; i++)
        {
            await back.ReceiveAsync();
        }

        await EndAsync(front, back, relay);
        string[] problems = [.. Messages.Where(entry => entry.IsFromFrontend).Select(entry => entry.Problem ?? "")];
        Assert.Equal(
            ["", "7 bytes, the layout has 8", "MQ was not negotiated", "unknown request",
                "a reply from the asking side"],
            problems);
        Assert.Equal("answers no request", Messages.Single(entry => !entry.IsFromFrontend).Problem);
    }

    [Fact]
    public async Task Refusals_and_acknowledgements_are_matched()
    {
        (WirePeer front, WirePeer back, Task relay) = Connect();
        await front.SendAsync(FrontendRequest.SetProtocolFeatures, WirePeer.NeedReply, WirePeer.Bytes(1UL << 3));
        await front.SendAsync(FrontendRequest.SetVringCall, WirePeer.NoReply, new byte[8]);
        await front.SendAsync(FrontendRequest.SetVringCall, WirePeer.NeedReply, new byte[8]);
        for (int i = 0; i < 3; i++)
        {
            await back.ReceiveAsync();
        }

        await back.SendAsync(FrontendRequest.SetProtocolFeatures, WirePeer.ReplyFlags, WirePeer.Bytes(0UL));
        await back.SendAsync(FrontendRequest.SetVringCall, WirePeer.ReplyFlags, WirePeer.Bytes(1UL));
        await front.ReceiveAsync();
        await front.ReceiveAsync();
        await EndAsync(front, back, relay);
        MessageEntry refusal = Messages.Last();
        Assert.Equal(FrontendRequest.SetVringCall, (FrontendRequest)refusal.Header.Request);
        Assert.Equal("status=1", $"{refusal.Fields[0].Name}={refusal.Fields[0].Text}");
        Assert.Equal(3, refusal.Answers);
    }

    private static int Taken(WireMessage message)
    {
        foreach (FileDescriptor descriptor in message.Descriptors)
        {
            descriptor.Dispose();
        }

        return message.Descriptors.Length;
    }

    private (WirePeer Front, WirePeer Back, Task Relay) Connect()
    {
        (UnixSocket front, UnixSocket relayFront) = UnixSocket.CreatePair();
        (UnixSocket relayBack, UnixSocket back) = UnixSocket.CreatePair();
        TraceRelay relay = new(_entries.Enqueue, VirtioDeviceId.Block);
        return (
            Rig.Own(new WirePeer(front)), Rig.Own(new WirePeer(back)),
            relay.RelayAsync(relayFront, relayBack, _ending.Token));
    }

    private static async Task EndAsync(WirePeer front, WirePeer back, Task relay)
    {
        front.Dispose();
        back.Dispose();
        await relay.WaitAsync(Eventually.Limit, TestContext.Current.CancellationToken);
    }
}
