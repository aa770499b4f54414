// DMA_MAP: windows of guest memory.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class DmaMapTests : CommandTest
{
    /// <summary>ENODEV: no file that can be mapped.</summary>
    private const int NoDevice = 19;

    private ulong _address = 0x1000_0000;

    protected override VfioUserCommand Command => VfioUserCommand.DmaMap;

    /// <summary>Another place each time, since a window may not be mapped twice.</summary>
    protected override byte[] GoodPayload => Map(address: _address += 0x10000);

    [Fact]
    public async Task Windows_are_counted_by_the_card()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x4000);
        await client.MapAsync(0, 0x2000, memory);
        await client.MapAsync(0x2000, 0x1000, null);
        await client.MapAsync(0x3000, 0x1000, memory, flags: 1);
        await client.MapAsync(0x4000, 0x1000, memory, flags: 3 | 4, offset: 0x123);
        await client.MapAsync(0x5000, 0x1000, memory, flags: 3 | 8, offset: 0x1000);
        await client.MapAsync(0xffff_ffff_ffff_f000, 0x1000, null);
        Assert.Equal(6u, await client.ReadRegionAsync<uint>(0, 0x34));
    }

    [Fact]
    public async Task Ill_formed_ones_are_refused()
    {
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x2000);
        using EventFd noMemory = new();
        await ExpectRefusedAsync(Map(argsz: 31));
        await ExpectRefusedAsync(Map(flags: 0x10));
        await ExpectRefusedAsync(Map(flags: 3 | 4));
        await ExpectRefusedAsync(Map(flags: 3 | 8));
        await ExpectRefusedAsync(Map(flags: 3 | 4 | 8), descriptors: memory);
        await ExpectRefusedAsync(Map(offset: 0x1000));
        await ExpectRefusedAsync(Map(size: 0));
        await ExpectRefusedAsync(Map(address: 0xffff_ffff_ffff_f000, size: 0x1001));
        await ExpectRefusedAsync(Map(size: (8UL << 40) + 0x1000), Errno.NoSpace);
        await ExpectRefusedAsync(Map(size: 0x3000), descriptors: memory);
        await ExpectRefusedAsync(Map(offset: 0x1001, size: 0x1000), descriptors: memory);
        await ExpectRefusedAsync(Map(offset: ulong.MaxValue - 0xfff), descriptors: memory);
        await ExpectRefusedAsync(Map(), NoDevice, noMemory.Descriptor);
    }

    [Theory]
    [InlineData(0x2000, 0x1000)]
    [InlineData(0x1000, 0x1001)]
    [InlineData(0x3fff, 1)]
    [InlineData(0x1000, 0x8000)]
    [InlineData(0x2000, 0x2000)]
    public async Task Overlapping_ones_are_refused(ulong address, ulong size)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.MapAsync(0x2000, 0x2000, null);
        await client.RefusedAsync(Errno.Exists, Command, Map(address: address, size: size));
        await client.MapAsync(0x1000, 0x1000, null);
        await client.MapAsync(0x4000, 0x1000, null);
    }

    [Fact]
    public async Task There_may_be_as_many_as_the_device_takes()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        for (ulong i = 0; i < 64; i++)
        {
            await client.MapAsync(i * 0x2000, 0x1000, null);
        }

        await client.RefusedAsync(WireClient.Inval, Command, Map(address: 0x100_0000));
        Assert.Equal(64u, await client.ReadRegionAsync<uint>(0, 0x34));
    }

    private static byte[] Map(
        uint argsz = 32, uint flags = 3, ulong offset = 0, ulong address = 0, ulong size = 0x1000) =>
        WireClient.Bytes(new DmaMapPayload(argsz, (DmaMapFlags)flags, offset, address, size));
}
