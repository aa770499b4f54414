// DMA_UNMAP: windows go away, exactly as they came or all at once.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class DmaUnmapTests : CommandTest
{
    protected override VfioUserCommand Command => VfioUserCommand.DmaUnmap;

    /// <summary>All of them, which also is right when there is none.</summary>
    protected override byte[] GoodPayload => Unmap(flags: 2, address: 0, size: 0);

    /// <summary>With a bitmap, as libvfio-user has it: the card wrote one page of the window.</summary>
    [Fact]
    public async Task Tells_what_was_written_when_asked()
    {
        using FileSharedMemory memory = new(MemFd.Create("window", 0x4000));
        using WireClient client = await ConnectNegotiatedAsync();
        await client.MapAsync(0x10000, 0x4000, memory.Descriptor);
        await client.RefusedAsync(WireClient.Inval, Command, WithBitmap(4096, 8));
        await client.CallAsync(
            VfioUserCommand.DeviceFeature,
            [.. WireClient.Bytes(new FeaturePayload(24, FeaturePayload.Set | (uint)DeviceFeature.DmaLoggingStart)),
                .. WireClient.Bytes(new LoggingStartPayload(4096, 0, 0))]);
        await client.WriteRegionAsync(0, 0x40, 0x12010UL);
        await client.WriteRegionAsync(0, 0x48, 4u);
        await client.WriteRegionAsync(0, 0x4c, 2u);
        foreach ((ulong page, ulong bytes, uint argsz) in ((ulong, ulong, uint)[])
            [(0, 8, 48), (4095, 8, 48), (1 << 24, 8, 48), (4096, 0, 48), (4096, ulong.MaxValue, 48), (4096, 8, 47),
                (4096, 1 << 21, 1 << 20), (1, 8, 48)])
        {
            await client.RefusedAsync(WireClient.Inval, Command, WithBitmap(page, bytes, argsz));
        }

        await client.RefusedAsync(WireClient.Inval, Command, WithBitmap(4096, 8)[..24]);
        await client.RefusedAsync(WireClient.Inval, Command, WithBitmap(4096, 8)[..39]);
        await client.RefusedAsync(WireClient.Inval, Command, Unmap(flags: 3, address: 0, size: 0));
        await client.RefusedAsync(WireClient.Inval, Command, Unmap(flags: 4));
        WireMessage reply = await client.CallAsync(Command, WithBitmap(4096, 8));
        Assert.Equal([.. WithBitmap(4096, 8), 4, 0, 0, 0, 0, 0, 0, 0], reply.Payload);
        await client.RefusedAsync(Errno.NoEntry, Command, WithBitmap(4096, 8));
        await client.MapAsync(0x10000, 0x4000, memory.Descriptor);
        reply = await client.CallAsync(Command, WithBitmap(4096, 8));
        Assert.Equal([.. WithBitmap(4096, 8), 0, 0, 0, 0, 0, 0, 0, 0], reply.Payload);
    }

    private static byte[] WithBitmap(ulong page, ulong bytes, uint argsz = 48) =>
    [
        .. WireClient.Bytes(new DmaUnmapPayload(argsz, DmaUnmapFlags.GetDirtyBitmap, 0x10000, 0x4000)),
        .. WireClient.Bytes(new DirtyBitmapPayload(page, bytes)),
    ];

    [Fact]
    public async Task Takes_one_window_and_echoes_the_command()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.MapAsync(0x1000, 0x1000, null);
        await client.MapAsync(0x2000, 0x1000, null);
        WireMessage reply = await client.CallAsync(Command, Unmap());
        Assert.Equal(Unmap(), reply.Payload);
        Assert.Equal(1u, await client.ReadRegionAsync<uint>(0, 0x34));
        await client.RefusedAsync(Errno.NoEntry, Command, Unmap());
        await client.MapAsync(0x1000, 0x1000, null);
    }

    [Fact]
    public async Task Takes_all_windows()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.MapAsync(0x1000, 0x1000, null);
        await client.MapAsync(0x9000, 0x1000, null);
        await client.CallAsync(Command, GoodPayload);
        Assert.Equal(0u, await client.ReadRegionAsync<uint>(0, 0x34));
    }

    [Fact]
    public async Task Ill_formed_ones_are_refused()
    {
        await ExpectRefusedAsync(Unmap(argsz: 8));
        await ExpectRefusedAsync(Unmap(argsz: (1 << 20) + 8));
        await ExpectRefusedAsync(Unmap(flags: 1));
        await ExpectRefusedAsync(Unmap(flags: 3));
        await ExpectRefusedAsync(Unmap(flags: 4));
        await ExpectRefusedAsync(Unmap(flags: 2));
        await ExpectRefusedAsync(Unmap(flags: 2, address: 0, size: 1));
    }

    [Theory]
    [InlineData(0x1000, 0x800)]
    [InlineData(0x1800, 0x800)]
    [InlineData(0x1000, 0x2000)]
    [InlineData(0x800, 0x1000)]
    [InlineData(0x5000, 0x1000)]
    [InlineData(ulong.MaxValue, ulong.MaxValue)]
    public async Task Other_places_are_refused(ulong address, ulong size)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.MapAsync(0x1000, 0x1000, null);
        await client.RefusedAsync(Errno.NoEntry, Command, Unmap(address: address, size: size));
        Assert.Equal(1u, await client.ReadRegionAsync<uint>(0, 0x34));
    }

    private static byte[] Unmap(uint argsz = 24, uint flags = 0, ulong address = 0x1000, ulong size = 0x1000) =>
        WireClient.Bytes(new DmaUnmapPayload(argsz, (DmaUnmapFlags)flags, address, size));
}
