// MIG_DATA_WRITE: the stream of a device that arrives, in pieces of any size.
using Outboard.Linux;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class MigDataWriteTests : CommandTest
{
    private static readonly byte[] s_scratch = [2, 0, 0, 0, 8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8];
    private static readonly byte[] s_end = [0, 0, 0, 0, 0, 0, 0, 0];

    protected override VfioUserCommand Command => VfioUserCommand.MigDataWrite;

    protected override byte[] GoodPayload => Write([]);

    [Fact]
    public async Task Records_are_applied_as_they_become_complete()
    {
        using WireClient client = await ConnectResumingAsync();
        byte[] buffer = [1, 0, 0, 0, 0, 0x40, 0, 0, .. new byte[0x3fff], 0x77];
        foreach (byte[] piece in buffer.Chunk(5000))
        {
            Assert.Empty((await client.CallAsync(Command, Write(piece))).Payload);
        }

        Assert.Equal([0x77], await client.ReadRegionAsync(2, 0x3fff, 1));
        foreach (byte single in s_scratch)
        {
            await client.CallAsync(Command, Write([single]));
        }

        Assert.Equal(0x0807060504030201UL, await client.ReadRegionAsync<ulong>(0, 8));
        await client.CallAsync(Command, Write(s_end));
        await MigDataReadTests.SetStateAsync(client, 2);
        Assert.Equal(2u, await client.ReadRegionAsync<uint>(0, 0x120));
    }

    [Fact]
    public async Task Nothing_written_is_fine()
    {
        using WireClient client = await ConnectResumingAsync();
        await MigDataReadTests.SetStateAsync(client, 1);
    }

    [Fact]
    public async Task A_bad_or_incomplete_stream_fails_when_it_is_to_be_used()
    {
        byte[][] streams =
        [
            s_scratch, s_scratch[..9], s_end[..7], [3, 0, 0, 0, 0, 0, 0, 0], [2, 0, 0, 0, 9, 0, 0, 0],
            [0, 0, 0, 0, 1, 0, 0, 0], [.. s_end, 0], [1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        ];
        foreach (byte[] stream in streams)
        {
            using WireClient client = await ConnectResumingAsync();
            await client.CallAsync(Command, Write(stream));
            await client.RefusedAsync(
                WireClient.Inval, VfioUserCommand.DeviceFeature,
                [.. WireClient.Bytes(new FeaturePayload(16, (1 << 17) | 2)), .. WireClient.Bytes(1UL)]);
        }
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(6)]
    public async Task In_other_states_it_is_refused(uint state)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await MigDataReadTests.SetStateAsync(client, state);
        await client.RefusedAsync(WireClient.Inval, Command, Write(s_end));
    }

    [Fact]
    public async Task Ill_formed_ones_are_refused()
    {
        using WireClient client = await ConnectResumingAsync();
        await client.RefusedAsync(
            WireClient.Inval, Command, [.. WireClient.Bytes(new MigrationDataPayload(16, 8)), .. new byte[7]]);
        await client.RefusedAsync(
            WireClient.Inval, Command, [.. WireClient.Bytes(new MigrationDataPayload(16, 8)), .. new byte[9]]);
        await client.RefusedAsync(
            WireClient.Inval, Command, [.. WireClient.Bytes(new MigrationDataPayload(7, 0))]);
        await client.WriteRegionAsync(0, 0x124, 4u);
        await client.RefusedAsync(Errno.InputOutput, Command, Write(s_end));
        await client.CallAsync(Command, Write(s_end));
    }

    private protected override Task PrepareAsync(WireClient client) => MigDataReadTests.SetStateAsync(client, 4);

    private async Task<WireClient> ConnectResumingAsync()
    {
        WireClient client = await ConnectNegotiatedAsync();
        await client.CallAsync(VfioUserCommand.DeviceReset, []);
        await MigDataReadTests.SetStateAsync(client, 4);
        return client;
    }

    private static byte[] Write(byte[] data) =>
        [.. WireClient.Bytes(new MigrationDataPayload((uint)(8 + data.Length), (uint)data.Length)), .. data];
}
