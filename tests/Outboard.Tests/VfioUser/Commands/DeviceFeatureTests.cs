// DEVICE_FEATURE: migration states and dirty logging.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class DeviceFeatureTests : CommandTest
{
    private const uint Get = 1 << 16;
    private const uint Set = 1 << 17;
    private const uint Probe = 1 << 18;
    private const uint Stop = 1, Running = 2, StopCopy = 3, Resuming = 4, PreCopy = 6;

    protected override VfioUserCommand Command => VfioUserCommand.DeviceFeature;

    protected override byte[] GoodPayload => Feature(16, Get | 1);

    [Fact]
    public async Task Tells_what_migration_there_is()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        WireMessage reply = await client.CallAsync(Command, Feature(16, Get | 1));
        Assert.Equal([.. WireClient.Bytes(new FeaturePayload(16, Get | 1)), .. WireClient.Bytes(5UL)], reply.Payload);
        reply = await client.CallAsync(Command, Feature(4096, Get | 2));
        Assert.Equal([.. WireClient.Bytes(new FeaturePayload(16, Get | 2)), 2, 0, 0, 0, 0, 0, 0, 0], reply.Payload);
    }

    [Theory]
    [InlineData(Get | 1)]
    [InlineData(1)]
    [InlineData(Get | Set | 2)]
    [InlineData(Set | 6)]
    [InlineData(Get | 8)]
    public async Task Probe_of_what_is_there_is_echoed(uint flags)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        byte[] probe = Feature(8, Probe | flags);
        Assert.Equal(probe, (await client.CallAsync(Command, probe)).Payload);
    }

    [Fact]
    public async Task Ill_formed_ones_are_refused()
    {
        (uint Argsz, uint Flags, int Data)[] bad =
        [
            (2, Probe | 1, 0), (8, Get | 1, 0), (16, Set | 1, 8), (16, 1, 0), (16, Get | Set | 1, 0), (16, Get | 3, 0),
            (16, Get | 0xffff, 0), (16, Get | (1 << 19) | 1, 0), (16, Probe | Get | Set | 1, 0), (15, Set | 2, 8),
            (16, Set | 2, 7), (16, Set | 2, 0), (24, Set | 6, 8), (31, Get | 8, 24), (32, Get | 8, 23),
            (16, Get | 6, 16),
        ];
        foreach ((uint argsz, uint flags, int data) in bad)
        {
            await ExpectRefusedAsync(Feature(argsz, flags, new byte[data]));
        }
    }

    /// <summary>Every pair of states: the shortest way, or an error where there is none.</summary>
    [Fact]
    public async Task Ways_between_states()
    {
        Dictionary<(uint From, uint To), uint[]> ways = new()
        {
            [(Stop, Running)] = [Running],
            [(Stop, StopCopy)] = [StopCopy],
            [(Stop, Resuming)] = [Resuming],
            [(Stop, PreCopy)] = [Running, PreCopy],
            [(Running, Stop)] = [Stop],
            [(Running, StopCopy)] = [Stop, StopCopy],
            [(Running, Resuming)] = [Stop, Resuming],
            [(Running, PreCopy)] = [PreCopy],
            [(StopCopy, Stop)] = [Stop],
            [(StopCopy, Running)] = [Stop, Running],
            [(StopCopy, Resuming)] = [Stop, Resuming],
            [(Resuming, Stop)] = [Stop],
            [(Resuming, Running)] = [Stop, Running],
            [(Resuming, StopCopy)] = [Stop, StopCopy],
            [(Resuming, PreCopy)] = [Stop, Running, PreCopy],
            [(PreCopy, Stop)] = [Running, Stop],
            [(PreCopy, Running)] = [Running],
            [(PreCopy, StopCopy)] = [StopCopy],
            [(PreCopy, Resuming)] = [Running, Stop, Resuming],
        };
        using WireClient client = await ConnectNegotiatedAsync();
        uint[] states = [Stop, Running, StopCopy, Resuming, PreCopy];
        foreach (uint from in states)
        {
            foreach (uint to in (uint[])[0, .. states, 5, 7, 8, 0xabcd])
            {
                await client.CallAsync(VfioUserCommand.DeviceReset, []);
                await SetStateAsync(client, from);
                await client.WriteRegionAsync(0, 0x128, 0UL);
                if (from == to)
                {
                    await SetStateAsync(client, to);
                    Assert.Equal(0UL, await client.ReadRegionAsync<ulong>(0, 0x128));
                }
                else if (ways.TryGetValue((from, to), out uint[]? way))
                {
                    await SetStateAsync(client, to);
                    ulong path = way.Aggregate(0UL, (sum, state) => (sum << 4) | state);
                    Assert.Equal(path, await client.ReadRegionAsync<ulong>(0, 0x128));
                }
                else
                {
                    await client.RefusedAsync(WireClient.Inval, Command, State(to));
                    Assert.Equal(from, await client.ReadRegionAsync<uint>(0, 0x120));
                }
            }
        }
    }

    [Fact]
    public async Task A_step_that_fails_leads_to_error_and_reset_leads_out()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.WriteRegionAsync(0, 0x124, 1u);
        await client.RefusedAsync(Errno.InputOutput, Command, State(Stop));
        Assert.Equal(0u, await client.ReadRegionAsync<uint>(0, 0x120));
        await client.RefusedAsync(WireClient.Inval, Command, State(Running));
        await client.CallAsync(VfioUserCommand.DeviceReset, []);
        Assert.Equal(Running, await client.ReadRegionAsync<uint>(0, 0x120));
        await SetStateAsync(client, Stop);
    }

    [Fact]
    public async Task The_device_goes_on_being_served_while_stopped()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await SetStateAsync(client, StopCopy);
        await client.MapAsync(0, 0x1000, null);
        await client.ReadRegionAsync(0, 0, 4);
        await client.CallAsync(VfioUserCommand.DeviceReset, []);
        Assert.Equal(Running, await client.ReadRegionAsync<uint>(0, 0x120));
    }

    [Fact]
    public async Task Written_pages_are_logged_and_reported_once()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x40000);
        await client.MapAsync(0x10000, 0x40000, memory);
        await client.CallAsync(Command, Start(4096));
        await WriteGuestAsync(client, 0x10000, 1);
        await WriteGuestAsync(client, 0x16fff, 0x3001);
        Assert.Equal([0b1100_0001, 0b11, 0, 0, 0, 0, 0, 0], await ReportAsync(client, 0x10000, 0x40000, 4096));
        Assert.Equal(new byte[8], await ReportAsync(client, 0x10000, 0x40000, 4096));
    }

    [Theory]
    [InlineData(2048, new byte[] { 0b1100, 0b11 })]
    [InlineData(8192, new byte[] { 0b10010 })]
    [InlineData(65536, new byte[] { 0b1 })]
    public async Task Other_page_sizes_repeat_or_join_bits(ulong page, byte[] expected)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x10000);
        await client.MapAsync(0, 0x10000, memory);
        await client.CallAsync(Command, Start(4096));
        await WriteGuestAsync(client, page == 8192 ? 0x3000UL : 0x1000, 1);
        await WriteGuestAsync(client, page == 8192 ? 0x8000UL : 0x4000, 1);
        byte[] bitmap = await ReportAsync(client, 0, 0x10000, page);
        Assert.Equal(expected, bitmap[..expected.Length]);
        Assert.All(bitmap[expected.Length..], bits => Assert.Equal(0, bits));
    }

    /// <summary>A range may be any: parts of windows, several, or memory that nobody knows.</summary>
    [Fact]
    public async Task Any_range_can_be_asked_for()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x4000);
        await client.CallAsync(Command, Start(4096));
        await client.MapAsync(0x10000, 0x2000, memory);
        await client.MapAsync(0x12000, 0x2000, memory, offset: 0x2000);
        await WriteGuestAsync(client, 0x11ff0, 0x20);
        Assert.Equal([0b11], (await ReportAsync(client, 0x11000, 0x2000, 4096))[..1]);
        Assert.Equal(new byte[8], await ReportAsync(client, 0x5000_0000_0000, 0x1000, 4096));
    }

    [Fact]
    public async Task Logging_is_started_twice_with_one_page_size_only()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.RefusedAsync(WireClient.Inval, Command, Report(0, 0x1000, 4096));
        await client.RefusedAsync(WireClient.Inval, Command, Start(0));
        await client.RefusedAsync(WireClient.Inval, Command, Start(4097));
        await client.CallAsync(Command, Start(4096));
        await client.CallAsync(Command, Start(4096));
        await client.RefusedAsync(WireClient.Inval, Command, Start(2048));
        await client.RefusedAsync(WireClient.Inval, Command, Start(8192));
        await client.RefusedAsync(WireClient.Inval, Command, Report(0, 0, 4096));
        await client.RefusedAsync(WireClient.Inval, Command, Report(ulong.MaxValue, 2, 4096));
        await client.RefusedAsync(WireClient.Inval, Command, Report(0, 0x1000, 3));
        await client.RefusedAsync(WireClient.Inval, Command, Report(0, ulong.MaxValue, 1));
        await client.RefusedAsync(WireClient.Inval, Command, Report(0, 0x1000, 1 << 24));
        await client.CallAsync(Command, Feature(8, Set | 7));
        await client.CallAsync(Command, Start(8192));
    }

    private static byte[] Feature(uint argsz, uint flags, params byte[] data) =>
        [.. WireClient.Bytes(new FeaturePayload(argsz, flags)), .. data];

    private static byte[] State(uint state) =>
        Feature(16, Set | 2, WireClient.Bytes(new DeviceStatePayload(state, 0)));

    private static byte[] Start(ulong page) =>
        Feature(24, Set | 6, WireClient.Bytes(new LoggingStartPayload(page, 0, 0)));

    private static byte[] Report(ulong address, ulong size, ulong page) =>
        Feature(4096, Get | 8, WireClient.Bytes(new LoggingReportPayload(address, size, page)));

    private async Task SetStateAsync(WireClient client, uint state) =>
        Assert.Equal(State(state), (await client.CallAsync(Command, State(state))).Payload);

    private async Task<byte[]> ReportAsync(WireClient client, ulong address, ulong size, ulong page) =>
        (await client.CallAsync(Command, Report(address, size, page))).Payload[32..];

    private static async Task WriteGuestAsync(WireClient client, ulong address, uint length)
    {
        await client.WriteRegionAsync(0, 0x40, address);
        await client.WriteRegionAsync(0, 0x48, length);
        await client.WriteRegionAsync(0, 0x4c, 2u);
        Assert.Equal(0u, await client.ReadRegionAsync<uint>(0, 0x50));
    }
}
