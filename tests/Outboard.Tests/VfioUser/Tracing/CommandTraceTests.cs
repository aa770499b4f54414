// A relay between a client and a server: everything works as without it, the twin socket included, and every message is
// told, with what is wrong about it.
using System.Collections.Concurrent;
using Outboard.Devices.TestCard;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Linux.Sockets;
using Outboard.Memory;
using Outboard.Pci.Interrupts;
using Outboard.Tests.VhostUser;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Client;
using Outboard.VfioUser.Protocol;
using Outboard.VfioUser.Server;
using Outboard.VfioUser.Tracing;
using Xunit;

namespace Outboard.Tests.VfioUser.Tracing;

public sealed class CommandTraceTests : IDisposable
{
    private readonly TestCardFunction _card = new();
    private readonly ConcurrentQueue<CommandTraceEntry> _entries = new();
    private readonly List<Task> _tasks = [];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private TracedMessageEntry[] Messages => [.. _entries.OfType<TracedMessageEntry>()];

    public void Dispose() => _card.Dispose();

    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_conversation_goes_through_with_descriptors_and_both_directions(bool hasTwin)
    {
        using FileSharedMemory memory = new(MemFd.Create("traced", 0x2000));
        using MemoryMapping mapping = memory.Map(0, 0x2000);
        mapping.Segment.Span.Slice(0x1000, 16).Fill(7);
        VfioUserClientOptions options = new() { WantsTwinSocket = hasTwin };
        await using (VfioUserClient client = await VfioUserClient.StartAsync(Connect(), options, Cancellation))
        {
            await client.MapAsync(0, memory, 0, 0x1000, Cancellation);
            await client.MapAsync(
                0x1000, memory.Descriptor, 0x1000, 0x1000, isShared: false, cancellation: Cancellation);
            using RegionInfo buffer = await client.GetRegionInfoAsync(2, Cancellation);
            Assert.NotNull(buffer.Memory);
            EventFd[] events = [.. Enumerable.Range(0, 8).Select(_ => new EventFd())];
            await client.BindAsync(InterruptKind.Msix, 0, events, Cancellation);
            await client.SetIrqsAsync(
                InterruptKind.Msix, SetIrqsFlags.DataNone | SetIrqsFlags.Trigger, 3, 1, Cancellation);
            Assert.Equal(1UL, events[3].Take());

            // the card reads the window without memory, which only messages reach
            await client.WriteAsync(0, 0x40, BitConverter.GetBytes(0x1000UL), Cancellation);
            await client.WriteAsync(0, 0x48, BitConverter.GetBytes(16u), Cancellation);
            await client.WriteAsync(0, 0x4c, BitConverter.GetBytes(1u), Cancellation);
            byte[] read = new byte[16];
            await client.ReadAsync(2, 0, read, Cancellation);
            Assert.Equal(Enumerable.Repeat((byte)7, 16), read);
            await Assert.ThrowsAsync<VfioUserException>(() => client.ReadAsync(3, 0, read, Cancellation));
            Array.ForEach(events, eventFd => eventFd.Dispose());
        }

        await Task.WhenAll(_tasks).WaitAsync(Eventually.Limit, Cancellation);
        Assert.All(Messages, message => Assert.Null(message.Problem));
        Assert.All(Messages.Where(message => message.Header.IsReply), message => Assert.NotNull(message.Answers));
        TracedMessageEntry asked = Messages.Single(
            message => message is { Header: { Command: VfioUserCommand.DmaRead, IsReply: false } });
        Assert.Equal((hasTwin ? "1.t" : "1", false), (asked.Channel.Name, asked.IsFromClient));
        TracedMessageEntry bound = Messages.First(
            message => message is { Header.Command: VfioUserCommand.DeviceSetIrqs, DescriptorCount: 8 });
        Assert.Equal("DEVICE_SET_IRQS", bound.Row!.Name);
        TracedMessageEntry failure =
            Messages.Single(message => (message.Header.Flags & MessageFlags.Error) != 0);
        Assert.Equal(VfioUserCommand.RegionRead, failure.Header.Command);
        Assert.Equal(
            Messages.Single(message => message.Number == failure.Answers).Header.Id, failure.Header.Id);
        Assert.Equal(hasTwin ? 2 : 1, _entries.OfType<TracedChannelEntry>().Count(entry => entry.What == "opened"));
        Assert.Equal(hasTwin ? 2 : 1, _entries.OfType<TracedChannelEntry>().Count(entry => entry.What == "closed"));
    }

    [Fact]
    public async Task What_is_wrong_is_told_and_passed_on()
    {
        using (WireClient client = new(Connect()))
        {
            await client.NegotiateAsync("""{"capabilities":{}}""");
            await client.RefusedAsync(WireClient.Inval, (VfioUserCommand)14, []);
            await client.RefusedAsync(WireClient.Inval, VfioUserCommand.DmaRead, new byte[16]);
            await client.RefusedAsync(WireClient.Inval, VfioUserCommand.DeviceGetInfo, new byte[8]);
            await client.RefusedAsync(WireClient.Inval, VfioUserCommand.RegionWriteMulti, new byte[8]);
            using EventFd extra = new();
            await client.RefusedAsync(
                WireClient.Inval, VfioUserCommand.DeviceReset, [], extra.Descriptor);
            await client.SendRawAsync(WireClient.Bytes(
                new MessageHeader(1, VfioUserCommand.DeviceReset, 16, MessageFlags.Reply, 0)));
            await client.ReceiveAsync();
            await client.SendAsync(VfioUserCommand.RegionWrite, WireClient.Write(0, 0x40, [1]), MessageFlags.NoReply);
            await client.ExpectServedAsync();
            await client.SendRawAsync(WireClient.Bytes(
                new MessageHeader(2, VfioUserCommand.DeviceReset, 15, MessageFlags.None, 0)));
            await client.ReceiveAsync();
        }

        await Task.WhenAll(_tasks).WaitAsync(Eventually.Limit, Cancellation);
        Assert.Equal(
            [
                "unknown command", "a command of the server", "8 bytes, the layout has 16 to 1048608",
                "write_multiple was not negotiated", "1 descriptors, at most 0 belong to it", "answers no command",
                "size 15, and a header has 16 bytes",
            ],
            Messages.Where(message => message is { IsFromClient: true, Problem: not null })
                .Select(message => message.Problem));
    }

    [Fact]
    public async Task Connections_are_told_apart_and_a_silent_one_is_counted()
    {
        CommandTraceRelay relay = new(_entries.Enqueue);
        for (int i = 0; i < 2; i++)
        {
            (UnixSocket client, UnixSocket near) = UnixSocket.CreatePair();
            (UnixSocket far, UnixSocket server) = UnixSocket.CreatePair();
            Task relaying = relay.RelayAsync(near, far, Cancellation);
            using (WireClient wire = new(client))
            {
                await wire.SendAsync(VfioUserCommand.DeviceReset, []);
                await Eventually.TrueAsync(() => Messages.Length == i + 1, "the command passes");
            }

            server.Dispose();
            await relaying.WaitAsync(Eventually.Limit, Cancellation);
        }

        Assert.Equal(
            ["1 opened", "1 closed, 1 commands unanswered", "2 opened", "2 closed, 1 commands unanswered"],
            _entries.OfType<TracedChannelEntry>().Select(entry => $"{entry.Channel.Name} {entry.What}"));
    }

    /// <summary>A client's end of a connection to the card, with a relay on the way.</summary>
    private UnixSocket Connect()
    {
        CommandTraceRelay relay = new(_entries.Enqueue);
        (UnixSocket client, UnixSocket near) = UnixSocket.CreatePair();
        (UnixSocket far, UnixSocket server) = UnixSocket.CreatePair();
        _tasks.Add(relay.RelayAsync(near, far, Cancellation));
        _tasks.Add(VfioUserServer.ServeConnectionAsync(_card, new SocketChannel(server), null, Cancellation));
        return client;
    }
}
