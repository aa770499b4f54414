// MIG_DATA_READ: the stream of a device that leaves.
using Outboard.Linux;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class MigDataReadTests : CommandTest
{
    private const int RecordBytes = 8 + 0x4000;

    protected override VfioUserCommand Command => VfioUserCommand.MigDataRead;

    protected override byte[] GoodPayload => Read(0);

    [Fact]
    public async Task The_stream_has_three_records()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.WriteRegionAsync(0, 8, 0x1122334455667788UL);
        await client.WriteRegionAsync(2, 0x3fff, new byte[] { 0x5a });
        await SetStateAsync(client, 3);
        byte[] stream = [.. await ReadAsync(client, 1000), .. await ReadAsync(client, 1 << 20)];
        Assert.Equal(RecordBytes + 16 + 8, stream.Length);
        Assert.Equal([1, 0, 0, 0, 0, 0x40, 0, 0], stream[..8]);
        Assert.Equal(0x5a, stream[RecordBytes - 1]);
        Assert.Equal(
            [2, 0, 0, 0, 8, 0, 0, 0, 0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 0, 0, 0, 0, 0, 0, 0, 0],
            stream[RecordBytes..]);
        Assert.Empty(await ReadAsync(client, 100));
    }

    [Fact]
    public async Task Pre_copy_gives_one_record_and_what_follows_is_in_step()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await SetStateAsync(client, 6);
        Assert.Equal(100, (await ReadAsync(client, 100)).Length);
        await SetStateAsync(client, 3);
        byte[] rest = await ReadAsync(client, 1 << 20);
        Assert.Equal(RecordBytes - 100 + RecordBytes + 16 + 8, rest.Length);
        await SetStateAsync(client, 2);
        await SetStateAsync(client, 6);
        Assert.Equal(RecordBytes, (await ReadAsync(client, 1 << 20)).Length);
        Assert.Empty(await ReadAsync(client, 100));
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(4)]
    public async Task In_other_states_it_is_refused(uint state)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await SetStateAsync(client, state);
        await client.RefusedAsync(WireClient.Inval, Command, Read(100));
    }

    [Fact]
    public async Task Ill_formed_ones_are_refused()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await SetStateAsync(client, 3);
        await client.RefusedAsync(WireClient.Inval, Command, Read((1 << 20) + 1));
        await client.RefusedAsync(WireClient.Inval, Command, Read(uint.MaxValue));
        await client.RefusedAsync(
            WireClient.Inval, Command, WireClient.Bytes(new MigrationDataPayload(107, 100)));
        await client.RefusedAsync(WireClient.Inval, Command, WireClient.Bytes(new MigrationDataPayload(7, 0)));
        await client.WriteRegionAsync(0, 0x124, 2u);
        await client.RefusedAsync(Errno.InputOutput, Command, Read(100));
        Assert.Equal(100, (await ReadAsync(client, 100)).Length);
    }

    /// <summary>No more than the client takes in one message.</summary>
    [Fact]
    public async Task More_than_negotiated_is_refused()
    {
        using WireClient client = await ConnectNegotiatedAsync("""{"capabilities":{"max_data_xfer_size":4}}""");
        await SetStateAsync(client, 3);
        await client.RefusedAsync(WireClient.Inval, Command, Read(5));
        Assert.Equal(4, (await ReadAsync(client, 4)).Length);
    }

    private protected override Task PrepareAsync(WireClient client) => SetStateAsync(client, 3);

    private static byte[] Read(uint size) =>
        WireClient.Bytes(new MigrationDataPayload((uint)Math.Min(8 + (ulong)size, uint.MaxValue), size));

    private async Task<byte[]> ReadAsync(WireClient client, uint size)
    {
        WireMessage reply = await client.CallAsync(Command, Read(size));
        int got = reply.Payload.Length - 8;
        Assert.Equal(new MigrationDataPayload(8 + (uint)got, (uint)got), reply.Read<MigrationDataPayload>());
        return reply.Payload[8..];
    }

    internal static Task SetStateAsync(WireClient client, uint state) => client.CallAsync(
        VfioUserCommand.DeviceFeature,
        [.. WireClient.Bytes(new FeaturePayload(16, (1 << 17) | 2)), .. WireClient.Bytes((ulong)state)]);
}
