// Doorbells with a value: what the server tells of them, what the client makes of it, and what it refuses to believe.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Linux.Sockets;
using Outboard.Memory;
using Outboard.Pci;
using Outboard.Pci.Bars;
using Outboard.VfioUser.Client;
using Outboard.VfioUser.Protocol;
using Outboard.VfioUser.Server;
using Xunit;

namespace Outboard.Tests.VfioUser.Client;

public sealed class ShadowDoorbellServerTests : ServerTest
{
    private readonly BellFunction _function = new();

    private protected override PciFunction Function => _function;

    private protected override VfioUserServerOptions Options => new() { OffersShadowDoorbells = true };

    [Fact]
    public async Task Entries_and_descriptors()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        WireMessage reply = await client.CallAsync(
            VfioUserCommand.DeviceGetRegionIoFds, WireClient.Bytes(new RegionIoFdsPayload(4096, 0, 0, 0)));
        byte[] none = new byte[8];
        byte[] expected =
        [
            .. WireClient.Bytes(new RegionIoFdsPayload(160, 0, 0, 3)),
            .. WireClient.Bytes(new IoEventFdEntry(0, 4, 0, 0, 0, 0, 0)), .. none,
            .. WireClient.Bytes(new IoEventFdEntry(8, 4, 1, 2, 0, 2, 0x10)), .. none,
            .. WireClient.Bytes(new IoEventFdEntry(16, 8, 1, 2, 0, 2, 0x18)), .. none,
        ];
        Assert.Equal(expected, reply.Payload);
        Assert.Equal(3, reply.Descriptors.Length);
        Array.ForEach(reply.Descriptors, descriptor => descriptor.Dispose());
    }

    /// <summary>With room for two descriptors a shadow, which needs two, does not fit behind the first doorbell.
    /// </summary>
    [Fact]
    public async Task What_finds_no_room_is_left_out()
    {
        using WireClient client = await ConnectNegotiatedAsync("""{"capabilities":{"max_msg_fds":2}}""");
        WireMessage reply = await client.CallAsync(
            VfioUserCommand.DeviceGetRegionIoFds, WireClient.Bytes(new RegionIoFdsPayload(4096, 0, 0, 0)));
        Assert.Equal(new RegionIoFdsPayload(64, 0, 0, 1), reply.Read<RegionIoFdsPayload>());
        Assert.Single(reply.Descriptors);
        reply.Descriptors[0].Dispose();
    }

    [Fact]
    public async Task Our_client_rings_them_without_messages()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        Task serving = VfioUserServer.ServeConnectionAsync(
            _function, new Outboard.VfioUser.Channel.SocketChannel(theirs), Options, cancellation);
        await using (VfioUserClient client = await VfioUserClient.StartAsync(ours, null, cancellation))
        {
            IReadOnlyList<PciDoorbell> plain = await client.OpenDoorbellsAsync(0, cancellation);
            Assert.Equal(0UL, Assert.Single(plain).Offset);
            plain[0].Event.Dispose();
            client.Post(0, 8, BitConverter.GetBytes(1U));
            Assert.Equal(2, await client.UseShadowDoorbellsAsync(0, cancellation));
            int mapped = CountMappings();
            Assert.Equal(2, await client.UseShadowDoorbellsAsync(0, cancellation));
            Assert.Equal(mapped, CountMappings());
            client.Post(0, 8, BitConverter.GetBytes(0xcafe_f00dU));
            client.Post(0, 16, BitConverter.GetBytes(0x1122_3344_5566_7788UL));
            Assert.NotEqual(0UL, _function.Rung.Wait(20_000));
            Assert.Equal(0xcafe_f00dU, BitConverter.ToUInt32(_function.View[0x10..]));
            Assert.Equal(0x1122_3344_5566_7788UL, BitConverter.ToUInt64(_function.View[0x18..]));

            // another width is another write: by a message
            client.Post(0, 8, [1, 2]);
            client.Post(0, 12, BitConverter.GetBytes(2U));
            await client.ReadAsync(0, 0, new byte[4], cancellation);
            Assert.Equal([(8UL, 4), (8UL, 2), (12UL, 4)], _function.Writes);
        }

        await serving;
    }

    private static int CountMappings() => File.ReadLines("/proc/self/maps")
        .Count(line => line.Contains("memfd:outboard-bells", StringComparison.Ordinal));

    private protected override ValueTask EndFunctionAsync()
    {
        _function.Dispose();
        return default;
    }

    private sealed class BellFunction : PciFunction, IDisposable
    {
        private readonly EventFd _plain = new();
        private readonly FileSharedMemory _memory = new(MemFd.Create("outboard-bells", 4096));
        private readonly MemoryMapping _view;

        public BellFunction()
            : base(new PciIdentity(1, 2))
        {
            _view = _memory.Map(0, 4096);
            AddBar(new PciBar(0, PciBarKind.Memory32, 4096)
            {
                Doorbells =
                [
                    new PciDoorbell(0, 4, _plain),
                    new PciDoorbell(8, 4, Rung) { Shadow = new DoorbellShadow(_memory, 0x10) },
                    new PciDoorbell(16, 8, Rung) { Shadow = new DoorbellShadow(_memory, 0x18) },
                ],
            });
        }

        public EventFd Rung { get; } = new();

        public Span<byte> View => _view.Segment.Span;

        public List<(ulong Offset, int Length)> Writes { get; } = [];

        public void Dispose()
        {
            _view.Dispose();
            _memory.Dispose();
            _plain.Dispose();
            Rung.Dispose();
        }

        protected override ValueTask WriteBar(int bar, ulong offset, ReadOnlySpan<byte> source)
        {
            Writes.Add((offset, source.Length));
            return default;
        }
    }
}

public sealed class ShadowDoorbellClientTests
{
    /// <summary>Indices beyond what came, of the wrong kind, places that cannot be: no such doorbells.</summary>
    [Fact]
    public async Task What_cannot_be_is_left_out()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
        using WireClient server = new(theirs);
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        Task<VfioUserClient> connecting = VfioUserClient.StartAsync(ours, null, cancellation);
        await AnswerAsync(server, WireClient.Version("{}"));
        await using VfioUserClient client = await connecting;
        Task<int> asking = client.UseShadowDoorbellsAsync(0, cancellation);
        IoEventFdEntry good = new(0, 4, 0, IoEventFdEntry.Shadow, 0, 1, 0);
        IoEventFdEntry[] entries =
        [
            good with { Offset = 0x40, SizeBytes = 0 }, good with { Offset = 0x44, SizeBytes = 3 },
            good with { Offset = 0x48, Match = 2 }, good with { Offset = 0x4c, Match = 4096 },
            good with { Offset = 0x50, Match = ulong.MaxValue - 3 }, good with { Offset = 0x54, DescriptorIndex = 2 },
            good with { Offset = 0x58, Padding = 2 }, good with { Offset = 0x5c, Padding = 0 },
            good with { Offset = 0x60, DescriptorIndex = uint.MaxValue }, good with { Offset = 0x64, Type = 1 }, good,
            good with { Offset = 0x68, DescriptorIndex = 1, Padding = 0 }, good with { Match = 8 },
        ];
        byte[] payload =
        [
            .. WireClient.Bytes(new RegionIoFdsPayload(16, 0, 0, (uint)entries.Length)),
            .. entries.SelectMany(entry => (byte[])[.. WireClient.Bytes(entry), .. new byte[8]]),
        ];
        using EventFd rung = new();
        using FileDescriptor memory = MemFd.Create("outboard-others-bells", 4096);
        await AnswerAsync(server, payload, rung.Descriptor, memory);
        Assert.Equal(1, await asking);
        client.Post(0, 0, BitConverter.GetBytes(7U));
        Assert.NotEqual(0UL, rung.Wait(20_000));
    }

    private static async Task AnswerAsync(WireClient server, byte[] payload, params FileDescriptor[] descriptors)
    {
        WireMessage asked = await server.ReceiveAsync();
        await server.SendRawAsync(
            [
                .. WireClient.Bytes(new MessageHeader(
                    asked.Header.Id, asked.Header.Command, (uint)(16 + payload.Length), MessageFlags.Reply, 0)),
                .. payload,
            ],
            descriptors);
    }
}
