// REGION_WRITE_MULTI: several small writes in one message, in their order.
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class RegionWriteMultiTests : CommandTest
{
    protected override VfioUserCommand Command => VfioUserCommand.RegionWriteMulti;

    protected override byte[] GoodPayload => Multi(new WriteMultiEntry(8, 0, 8, 42));

    [Fact]
    public async Task Writes_in_order()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        WireMessage reply = await client.CallAsync(Command, Multi(
            new WriteMultiEntry(8, 0, 8, 1), new WriteMultiEntry(8, 0, 4, 2), new WriteMultiEntry(0x204, 0, 1, 0xab),
            new WriteMultiEntry(0x10, 2, 2, 0xffff_1234), new WriteMultiEntry(0, 0, 0, 0)));
        Assert.Equal(WireClient.Bytes(5UL), reply.Payload);
        Assert.Equal(2UL, await client.ReadRegionAsync<ulong>(0, 8));
        Assert.Equal(0xabu, await client.ReadRegionAsync<uint>(0, 0x204));
        Assert.Equal(0x1234u, await client.ReadRegionAsync<uint>(2, 0x10));
    }

    [Fact]
    public async Task As_many_as_qemu_sends_without_a_reply()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        WriteMultiEntry[] entries = [.. Enumerable.Range(0, 200).Select(i => new WriteMultiEntry(8, 0, 8, (ulong)i))];
        await client.SendAsync(Command, Multi(entries), MessageFlags.NoReply);
        Assert.Equal(199UL, await client.ReadRegionAsync<ulong>(0, 8));
    }

    [Fact]
    public async Task Ill_formed_ones_are_refused()
    {
        byte[] entry = WireClient.Bytes(new WriteMultiEntry(8, 0, 8, 1));
        await ExpectRefusedAsync([.. WireClient.Bytes(2UL), .. entry]);
        await ExpectRefusedAsync([.. WireClient.Bytes(0UL), .. entry]);
        await ExpectRefusedAsync([.. WireClient.Bytes(ulong.MaxValue), .. entry]);
        await ExpectRefusedAsync([.. WireClient.Bytes(1UL), .. entry[..23]]);
        await ExpectRefusedAsync(Multi(new WriteMultiEntry(8, 0, 9, 1)));
        await ExpectRefusedAsync(Multi(new WriteMultiEntry(0xffd, 0, 8, 1)));
        await ExpectRefusedAsync(Multi(new WriteMultiEntry(0, 3, 4, 1)));
    }

    [Fact]
    public async Task Without_negotiation_of_it_it_is_refused()
    {
        using WireClient client = await ConnectNegotiatedAsync("""{"capabilities":{"write_multiple":false}}""");
        await client.RefusedAsync(WireClient.Inval, Command, GoodPayload);
        Assert.Equal(0UL, await client.ReadRegionAsync<ulong>(0, 8));
    }

    private static byte[] Multi(params WriteMultiEntry[] entries) =>
        [.. WireClient.Bytes((ulong)entries.Length), .. entries.SelectMany(entry => WireClient.Bytes(entry))];
}
