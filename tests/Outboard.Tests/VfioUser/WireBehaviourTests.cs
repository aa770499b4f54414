// What neither the reference's suite nor a single command's tests show: ids, ends at every byte, resets in every state,
// ranges over many windows, thousands of vectors, clients that do not read.
using System.Runtime.InteropServices;
using Outboard.Devices.TestCard;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Linux.Sockets;
using Outboard.Memory;
using Outboard.Pci;
using Outboard.Pci.Bars;
using Outboard.Pci.Capabilities;
using Outboard.Tests.VhostUser;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Protocol;
using Outboard.VfioUser.Server;
using Xunit;

namespace Outboard.Tests.VfioUser;

public sealed class WireBehaviourTests : ServerTest
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Ids_may_repeat()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        byte[] one = Message(7, VfioUserCommand.DeviceGetIrqInfo, WireClient.Bytes(new IrqInfoPayload(16, 0, 2, 0)));
        byte[] other = Message(7, VfioUserCommand.DeviceGetIrqInfo, WireClient.Bytes(new IrqInfoPayload(16, 0, 1, 0)));
        await client.SendRawAsync([.. one, .. other, .. one]);
        foreach (uint kind in (uint[])[2, 1, 2])
        {
            WireMessage reply = await client.ReplyAsync(VfioUserCommand.DeviceGetIrqInfo, 7);
            Assert.Equal(kind, reply.Read<IrqInfoPayload>().Index);
        }
    }

    [Fact]
    public async Task A_client_may_go_away_after_any_byte()
    {
        byte[] conversation =
        [
            .. Message(1, VfioUserCommand.Version, WireClient.Version(WireClient.AllCapabilities)),
            .. Message(2, VfioUserCommand.DmaMap, WireClient.Bytes(new DmaMapPayload(32, (DmaMapFlags)3, 0, 0, 4096))),
            .. Message(3, VfioUserCommand.RegionWrite, WireClient.Write(0, 0x40, new byte[12])),
            .. Message(4, VfioUserCommand.RegionWrite, WireClient.Write(0, 0x48, WireClient.Bytes(16u))),
            .. Message(5, VfioUserCommand.RegionWrite, WireClient.Write(0, 0x4c, WireClient.Bytes(0x101u))),
            .. Message(6, VfioUserCommand.DeviceReset, []),
        ];
        for (int count = 1; count <= conversation.Length; count++)
        {
            using WireClient client = Connect();
            await client.SendRawAsync(conversation[..count]);
        }

        using WireClient last = await ConnectNegotiatedAsync();
        await last.ExpectServedAsync();
        Assert.Equal(0u, await last.ReadRegionAsync<uint>(0, 0x34));
    }

    [Theory]
    [InlineData(MigrationState.Stop)]
    [InlineData(MigrationState.StopCopy)]
    [InlineData(MigrationState.PreCopy)]
    [InlineData(MigrationState.Resuming)]
    [InlineData(MigrationState.Running)]
    public async Task A_reset_leads_to_running_from_every_state(MigrationState state)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.CallAsync(VfioUserCommand.DeviceFeature, State(FeaturePayload.Set, state));
        await client.CallAsync(VfioUserCommand.DeviceReset, []);
        WireMessage reply = await client.CallAsync(
            VfioUserCommand.DeviceFeature, State(FeaturePayload.Get, MigrationState.Error));
        Assert.Equal((uint)MigrationState.Running, reply.Read<DeviceStatePayload>(8).State);
    }

    /// <summary>A transfer goes through shared memory, a file, and messages, one after another.</summary>
    [Fact]
    public async Task A_range_may_span_windows_of_every_kind()
    {
        using FileSharedMemory memory = new(MemFd.Create("windows", 0x2000));
        using MemoryMapping mapping = memory.Map(0, 0x2000);
        mapping.Segment.Span.Slice(0xff8, 8).Fill(1);
        mapping.Segment.Span.Slice(0x1000, 0x1000).Fill(2);
        using WireClient client = await ConnectNegotiatedAsync();
        await client.MapAsync(0x10000, 0x1000, memory.Descriptor);
        await client.MapAsync(0x11000, 0x1000, memory.Descriptor, flags: 3 | 8, offset: 0x1000);
        await client.MapAsync(0x12000, 0x1000, null);
        await client.WriteRegionAsync(0, 0x40, 0x10ff8UL);
        await client.WriteRegionAsync(0, 0x48, 0x1010u);
        ushort start = await client.SendAsync(
            VfioUserCommand.RegionWrite, WireClient.Write(0, 0x4c, WireClient.Bytes(1u)));
        WireMessage asked = await client.ReceiveAsync();
        Assert.Equal(new DmaAccessPayload(0x12000, 8), asked.Read<DmaAccessPayload>());
        byte[] answer = [.. asked.Payload, 3, 3, 3, 3, 3, 3, 3, 3];
        await client.SendRawAsync(
        [
            .. WireClient.Bytes(asked.Header with { SizeBytes = 16 + (uint)answer.Length, Flags = MessageFlags.Reply }),
            .. answer,
        ]);
        await client.ReplyAsync(VfioUserCommand.RegionWrite, start);
        Assert.Equal(0u, await client.ReadRegionAsync<uint>(0, 0x50));
        byte[] read = await client.ReadRegionAsync(2, 0, 0x1010);
        Assert.All(read[..8], value => Assert.Equal(1, value));
        Assert.All(read[8..0x1008], value => Assert.Equal(2, value));
        Assert.All(read[0x1008..], value => Assert.Equal(3, value));
    }

    [Theory]
    [InlineData(512UL)]
    [InlineData(1UL << 23)]
    public async Task Reports_cover_many_windows_at_any_page_size(ulong page)
    {
        const ulong window = 1UL << 20;
        using FileSharedMemory memory = new(MemFd.Create("windows", window));
        using WireClient client = await ConnectNegotiatedAsync();
        for (ulong i = 0; i < 20; i++)
        {
            await client.MapAsync(i * window, window, memory.Descriptor);
        }

        await client.CallAsync(
            VfioUserCommand.DeviceFeature,
            [.. WireClient.Bytes(new FeaturePayload(24, FeaturePayload.Set | (uint)DeviceFeature.DmaLoggingStart)),
                .. WireClient.Bytes(new LoggingStartPayload(4096, 0, 0))]);
        foreach (ulong address in (ulong[])[0, 19 * window])
        {
            await client.WriteRegionAsync(0, 0x40, address);
            await client.WriteRegionAsync(0, 0x48, 4u);
            await client.WriteRegionAsync(0, 0x4c, 2u);
        }

        int bytes = (int)(((20 * window / page) + 63) / 64 * 8) is > 8 and int large ? large : 8;
        WireMessage reply = await client.CallAsync(
            VfioUserCommand.DeviceFeature,
            [.. WireClient.Bytes(new FeaturePayload(
                (uint)(32 + bytes), FeaturePayload.Get | (uint)DeviceFeature.DmaLoggingReport)),
                .. WireClient.Bytes(new LoggingReportPayload(0, 20 * window, page))]);
        byte[] bits = reply.Payload[32..];
        ulong[] set = [.. Enumerable.Range(0, bits.Length * 8)
            .Where(bit => (bits[bit / 8] >> (bit % 8) & 1) != 0).Select(bit => (ulong)bit)];
        ulong[] expected = page == 512
            ? [.. Enumerable.Range(0, 8).Select(i => (ulong)i),
                .. Enumerable.Range(0, 8).Select(i => (19 * window / page) + (ulong)i)]
            : [0, 19 * window / page];
        Assert.Equal(expected, set);
    }

    [Fact]
    public async Task The_control_word_of_msix_keeps_two_bits()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        byte[] config = await client.ReadRegionAsync(7, 0, 256);
        int at = config[0x34];
        while (config[at] != 0x11)
        {
            at = config[at + 1];
        }

        ulong control = (ulong)at + 2;
        await client.WriteRegionAsync(7, control, (ushort)0xffff);
        Assert.Equal(0xc007, await client.ReadRegionAsync<ushort>(7, control));
        await client.WriteRegionAsync(7, control, (ushort)0);
        Assert.Equal(0x0007, await client.ReadRegionAsync<ushort>(7, control));
        await client.WriteRegionAsync(7, control + 1, (ushort)0xffff);
        Assert.Equal(0xc007, await client.ReadRegionAsync<ushort>(7, control));
        await client.WriteRegionAsync(7, control + 1, (byte)0);
        Assert.Equal(0x0007, await client.ReadRegionAsync<ushort>(7, control));
    }

    [Fact]
    public async Task Two_thousand_vectors_are_bound_in_parts()
    {
        const uint vectors = 2048;
        ManyVectors function = new((int)vectors);
        using WireClient client = Serve(function, out Task serving);
        await client.NegotiateAsync();
        EventFd[] events = [.. Enumerable.Range(0, 16).Select(_ => new EventFd())];
        for (uint start = 0; start < vectors; start += 8)
        {
            FileDescriptor[] part = [.. Enumerable.Range(0, 8).Select(i => events[(start + i) % 16].Descriptor)];
            await client.CallAsync(
                VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(0x24, 2, start, 8), part);
        }

        for (int vector = 0; vector < vectors; vector++)
        {
            function.Interrupts[Outboard.Pci.Interrupts.InterruptKind.Msix].Trigger(vector);
        }

        Assert.All(events, eventFd => Assert.Equal(vectors / 16, eventFd.Take()));
        await client.RefusedAsync(
            WireClient.Inval, VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(0x21, 2, vectors - 1, 2));
        await client.RefusedAsync(
            WireClient.Inval, VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(0x21, 2, 284, uint.MaxValue));
        Array.ForEach(events, eventFd => eventFd.Dispose());
        client.Dispose();
        await serving.WaitAsync(Eventually.Limit, Cancellation);
    }

    [Fact]
    public async Task A_client_that_reads_nothing_holds_up_nobody_else()
    {
        using TestCardFunction other = new();
        using WireClient deaf = Serve(other, out Task serving);
        await deaf.NegotiateAsync();
        byte[] large = Message(1, VfioUserCommand.RegionRead, WireClient.Bytes(new RegionAccessPayload(0, 4, 1 << 20)));
        for (int i = 0; i < 16; i++)
        {
            await deaf.SendRawAsync(large);
        }

        using WireClient client = await ConnectNegotiatedAsync();
        await client.ExpectServedAsync();
        await client.CallAsync(VfioUserCommand.DeviceReset, []);
        deaf.Dispose();
        await serving.WaitAsync(Eventually.Limit, Cancellation);
    }

    private static WireClient Serve(PciFunction function, out Task serving)
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
        serving = VfioUserServer.ServeConnectionAsync(function, new SocketChannel(theirs), null, Cancellation);
        return new WireClient(ours);
    }

    private static byte[] Message(ushort id, VfioUserCommand command, byte[] payload) =>
        [.. WireClient.Bytes(new MessageHeader(id, command, (uint)(16 + payload.Length), 0, 0)), .. payload];

    private static byte[] State(uint operation, MigrationState state)
    {
        byte[] payload = new byte[16];
        MemoryMarshal.Write(payload, new FeaturePayload(16, operation | (uint)DeviceFeature.MigrationDeviceState));
        MemoryMarshal.Write(payload.AsSpan(8), new DeviceStatePayload((uint)state, 0));
        return payload;
    }

    private sealed class ManyVectors : PciFunction
    {
        internal ManyVectors(int vectors)
            : base(new PciIdentity(0x494f, 1))
        {
            AddBar(new PciBar(0, PciBarKind.Memory32, 0x10000));
            AddCapability(new MsixCapability(vectors, 0, 0, 0x8000));
        }
    }
}
