// REGION_WRITE.
using Outboard.Linux.Memory;
using Outboard.Linux;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class RegionWriteTests : CommandTest
{
    protected override VfioUserCommand Command => VfioUserCommand.RegionWrite;

    protected override byte[] GoodPayload => WireClient.Write(0, 8, [1, 2, 3, 4]);

    [Fact]
    public async Task Is_read_back()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.WriteRegionAsync(0, 8, 0x1122334455667788UL);
        Assert.Equal(0x11223344u, await client.ReadRegionAsync<uint>(0, 12));
        await client.WriteRegionAsync(1, 1, new byte[] { 9, 8, 7 });
        Assert.Equal([0, 9, 8, 7], await client.ReadRegionAsync(1, 0, 4));
        await client.WriteRegionAsync(0, 0x200, Array.Empty<byte>());
    }

    [Fact]
    public async Task Read_only_bytes_stay_and_nobody_complains()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        byte[] ones = [.. Enumerable.Repeat((byte)0xff, 0x1000)];
        await client.WriteRegionAsync(0, 0, "none"u8.ToArray());
        Assert.Equal("VFUT"u8.ToArray(), await client.ReadRegionAsync(0, 0, 4));
        await client.WriteRegionAsync(7, 0, ones);
        byte[] config = await client.ReadRegionAsync(7, 0, 0x1000);
        Assert.Equal([0x0d, 0xf0, 0x57, 0x7e, 0x47, 0x05, 0x10, 0x00], config[..8]);
        Assert.Equal(0xfffff000u, BitConverter.ToUInt32(config, 0x10));
        Assert.Equal(0xffffffe1u, BitConverter.ToUInt32(config, 0x14));
        Assert.Equal(0xffffffff_ffffc00cUL, BitConverter.ToUInt64(config, 0x18));
        Assert.Equal(0xffe00000u, BitConverter.ToUInt32(config, 0x20));
        Assert.Equal(1u, await client.ReadRegionAsync<uint>(0, 0x30));
    }

    [Fact]
    public async Task Messages_and_mappings_see_the_same_bytes()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        byte[] ask = WireClient.Bytes(new RegionInfoPayload(200, 0, 4, 0, 0, 0));
        WireMessage info = await client.CallAsync(VfioUserCommand.DeviceGetRegionInfo, ask);
        using FileDescriptor memory = Assert.Single(info.Descriptors);
        using MemoryMapping mapping =
            MemoryMapping.Map(memory, info.Read<RegionInfoPayload>().Offset, info.Read<RegionInfoPayload>().SizeBytes);
        await client.WriteRegionAsync(4, 0x1fffff, new byte[] { 0x5a });
        Assert.Equal(0x5a, mapping.Segment.Span[0x1fffff]);
        mapping.Segment.Span[3] = 0xa5;
        Assert.Equal([0xa5], await client.ReadRegionAsync(4, 3, 1));
    }

    [Theory]
    [InlineData(0, 0x1000, 1)]
    [InlineData(0, 0xffd, 4)]
    [InlineData(0, ulong.MaxValue, 1)]
    [InlineData(3, 0, 4)]
    [InlineData(6, 0, 4)]
    [InlineData(9, 0, 4)]
    public Task Accesses_outside_are_refused(uint region, ulong offset, int count) =>
        ExpectRefusedAsync(WireClient.Write(region, offset, new byte[count]));

    [Theory]
    [InlineData(3)]
    [InlineData(5)]
    [InlineData(uint.MaxValue)]
    public Task Another_count_than_bytes_is_refused(uint count) => ExpectRefusedAsync(
        [.. WireClient.Bytes(new RegionAccessPayload(8, 0, count)), 1, 2, 3, 4]);

    [Fact]
    public async Task A_device_that_refuses_says_so()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.WriteRegionAsync(0, 0x124, 8u);
        await client.RefusedAsync(Errno.InputOutput, Command, WireClient.Write(0, 8, [1]));
        Assert.Equal(0UL, await client.ReadRegionAsync<ulong>(0, 8));
        await client.WriteRegionAsync(0, 8, 1UL);
    }
}
