// DEVICE_RESET: the device is as new; interrupts and windows are the client's and stay.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class DeviceResetTests : CommandTest
{
    protected override VfioUserCommand Command => VfioUserCommand.DeviceReset;

    protected override byte[] GoodPayload => [];

    [Fact]
    public async Task Clears_the_device_and_keeps_what_is_the_clients()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd interrupt = new();
        await client.MapAsync(0, 0x1000, null);
        await client.CallAsync(
            VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(0x24, 2, 0, 1), interrupt.Descriptor);
        await client.WriteRegionAsync(0, 8, 1UL);
        await client.WriteRegionAsync(0, 0x200, 1UL);
        await client.WriteRegionAsync(2, 0, 1UL);
        await client.WriteRegionAsync(4, 0, 2UL);
        Assert.Empty((await client.CallAsync(Command, [])).Payload);
        Assert.Equal(0UL, await client.ReadRegionAsync<ulong>(0, 8));
        Assert.Equal(0UL, await client.ReadRegionAsync<ulong>(0, 0x200));
        Assert.Equal(0UL, await client.ReadRegionAsync<ulong>(2, 0));
        Assert.Equal(2UL, await client.ReadRegionAsync<ulong>(4, 0));
        Assert.Equal(1u, await client.ReadRegionAsync<uint>(0, 0x28));
        Assert.Equal(1u, await client.ReadRegionAsync<uint>(0, 0x34));
        await client.WriteRegionAsync(0, 0x10, 2u << 16);
        Assert.Equal(1UL, interrupt.Take());
    }

    [Fact]
    public async Task A_device_that_refuses_says_so()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.WriteRegionAsync(0, 0x124, 16u);
        await client.RefusedAsync(Errno.InputOutput, Command, []);
        Assert.Equal(0u, await client.ReadRegionAsync<uint>(0, 0x28));
        await client.CallAsync(Command, []);
    }

    /// <summary>The control register's highest bit; the register itself reads as zero there.</summary>
    [Fact]
    public async Task Function_level_reset_by_the_capability()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.WriteRegionAsync(0, 8, 1UL);
        await client.WriteRegionAsync(7, 0x78, (ushort)0x8000);
        await client.WriteRegionAsync(7, 0x79, (byte)0x80);
        await client.WriteRegionAsync(7, 0x78, (byte)0x80);
        Assert.Equal(0UL, await client.ReadRegionAsync<ulong>(0, 8));
        Assert.Equal(2u, await client.ReadRegionAsync<uint>(0, 0x30));
        Assert.Equal(0x80, await client.ReadRegionAsync<ushort>(7, 0x78));
    }
}
