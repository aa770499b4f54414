// DEVICE_SET_IRQS in all its forms, tried out by the card's IRQ_TRIGGER register.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class DeviceSetIrqsTests : CommandTest
{
    private const uint Msix = 2;
    private const uint Bind = 0x24;
    private const uint TriggerNone = 0x21;
    private const uint TriggerBool = 0x22;
    private const uint MaskNone = 9;
    private const uint UnmaskNone = 0x11;
    private const uint UnmaskEvent = 0x14;
    private const uint NotBound = 2;

    protected override VfioUserCommand Command => VfioUserCommand.DeviceSetIrqs;

    protected override byte[] GoodPayload => WireClient.SetIrqs(TriggerNone, 0, 0, 0);

    [Fact]
    public async Task Bound_vectors_are_signalled()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd one = new();
        using EventFd two = new();
        await client.CallAsync(
            Command, WireClient.SetIrqs(Bind, Msix, 3, 2), one.Descriptor, two.Descriptor);
        Assert.Equal(0u, await TriggerAsync(client, Msix, 3));
        Assert.Equal(0u, await TriggerAsync(client, Msix, 3));
        Assert.Equal(0u, await TriggerAsync(client, Msix, 4));
        Assert.Equal(NotBound, await TriggerAsync(client, Msix, 5));
        Assert.Equal(22u, await TriggerAsync(client, Msix, 8));
        Assert.Equal(22u, await TriggerAsync(client, 5, 0));
        Assert.Equal(2UL, one.Take());
        Assert.Equal(1UL, two.Take());
    }

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(4)]
    public async Task Kinds_are_apart(uint kind)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd bound = new();
        await client.CallAsync(Command, WireClient.SetIrqs(Bind, kind, 0, 1), bound.Descriptor);
        Assert.Equal(NotBound, await TriggerAsync(client, Msix, 0));
        Assert.Equal(0u, await TriggerAsync(client, kind, 0));
        Assert.Equal(1UL, bound.Take());
    }

    [Fact]
    public async Task A_new_eventfd_replaces_the_old_one()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd old = new();
        using EventFd fresh = new();
        await client.CallAsync(Command, WireClient.SetIrqs(Bind, Msix, 0, 1), old.Descriptor);
        await client.CallAsync(Command, WireClient.SetIrqs(Bind, Msix, 0, 1), fresh.Descriptor);
        await TriggerAsync(client, Msix, 0);
        Assert.Equal(0UL, old.Take());
        Assert.Equal(1UL, fresh.Take());
    }

    /// <summary>Without descriptors a range is let go of: exactly that range, and not its neighbours.</summary>
    [Fact]
    public async Task A_range_is_let_go_of()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd bound = new();
        FileDescriptor[] all = [.. Enumerable.Repeat(bound.Descriptor, 8)];
        await client.CallAsync(Command, WireClient.SetIrqs(Bind, Msix, 0, 8), all);
        await client.CallAsync(Command, WireClient.SetIrqs(Bind, Msix, 4, 2));
        for (uint vector = 0; vector < 8; vector++)
        {
            Assert.Equal(vector is 4 or 5 ? NotBound : 0, await TriggerAsync(client, Msix, vector));
        }

        Assert.Equal(6UL, bound.Take());
        await client.CallAsync(Command, WireClient.SetIrqs(TriggerNone, Msix, 0, 0));
        Assert.Equal(NotBound, await TriggerAsync(client, Msix, 0));
    }

    [Fact]
    public async Task The_client_triggers_by_range_and_by_bytes()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd one = new();
        using EventFd two = new();
        await client.CallAsync(
            Command, WireClient.SetIrqs(Bind, Msix, 0, 2), one.Descriptor, two.Descriptor);
        await client.CallAsync(Command, WireClient.SetIrqs(TriggerNone, Msix, 1, 1));
        Assert.Equal((0UL, 1UL), (one.Take(), two.Take()));
        await client.CallAsync(Command, WireClient.SetIrqs(TriggerBool, Msix, 0, 2, 0, 1));
        Assert.Equal((0UL, 1UL), (one.Take(), two.Take()));
    }

    [Fact]
    public async Task What_is_masked_waits()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd bound = new();
        await client.CallAsync(Command, WireClient.SetIrqs(Bind, Msix, 1, 1), bound.Descriptor);
        await client.CallAsync(Command, WireClient.SetIrqs(MaskNone, Msix, 1, 1));
        Assert.Equal(2u, await client.ReadRegionAsync<uint>(0, 0x20));
        Assert.Equal(0u, await TriggerAsync(client, Msix, 1));
        Assert.Equal(0u, await TriggerAsync(client, Msix, 1));
        Assert.Equal(0UL, bound.Take());
        await client.CallAsync(Command, WireClient.SetIrqs(UnmaskNone, Msix, 1, 1));
        Assert.Equal(1UL, bound.Take());
        Assert.Equal(0u, await client.ReadRegionAsync<uint>(0, 0x20));
    }

    [Fact]
    public async Task Masks_by_bytes()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.CallAsync(Command, WireClient.SetIrqs(0xa, 1, 0, 4, 1, 0, 0, 1));
        Assert.Equal(0b1001u, await client.ReadRegionAsync<uint>(0, 0x1c));
        await client.CallAsync(Command, WireClient.SetIrqs(0x12, 1, 0, 4, 0, 0, 0, 1));
        Assert.Equal(0b0001u, await client.ReadRegionAsync<uint>(0, 0x1c));
    }

    /// <summary>An eventfd bound to UNMASK is an input, as QEMU's resample eventfd is.</summary>
    [Fact]
    public async Task An_eventfd_unmasks()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd interrupt = new();
        using EventFd unmask = new();
        await client.CallAsync(Command, WireClient.SetIrqs(Bind, 0, 0, 1), interrupt.Descriptor);
        await client.CallAsync(Command, WireClient.SetIrqs(UnmaskEvent, 0, 0, 1), unmask.Descriptor);
        await client.CallAsync(Command, WireClient.SetIrqs(MaskNone, 0, 0, 1));
        await TriggerAsync(client, 0, 0);
        Assert.Equal(0UL, interrupt.Take());
        unmask.Signal();
        Assert.Equal(1UL, interrupt.Wait(timeoutMs: 20_000));
        await client.CallAsync(Command, WireClient.SetIrqs(UnmaskEvent, 0, 0, 1));
    }

    [Fact]
    public async Task Ill_formed_ones_are_refused()
    {
        await ExpectRefusedAsync([.. WireClient.Bytes(new SetIrqsPayload(3, (SetIrqsFlags)TriggerNone, 0, 0, 0))]);
        (uint Flags, uint Index, uint Start, uint Count)[] bad =
        [
            (TriggerNone, 5, 0, 0), (0x39, Msix, 0, 1), (0x19, Msix, 0, 1), (0x23, Msix, 0, 1), (0x61, Msix, 0, 1),
            (0x20, Msix, 0, 1), (1, Msix, 0, 1), (TriggerNone, Msix, 7, 2), (TriggerNone, Msix, 9, 1),
            (TriggerNone, Msix, 4, uint.MaxValue), (TriggerNone, Msix, uint.MaxValue, 2), (MaskNone, 3, 0, 1),
            (MaskNone, 4, 0, 1), (UnmaskNone, 4, 0, 1), (TriggerNone, 3, 0, 2), (TriggerNone, 4, 1, 1),
            (TriggerNone, Msix, 1, 0), (MaskNone, Msix, 0, 0), (TriggerBool, Msix, 0, 0), (Bind, Msix, 0, 0),
        ];
        foreach ((uint flags, uint index, uint start, uint count) in bad)
        {
            await ExpectRefusedAsync(WireClient.SetIrqs(flags, index, start, count));
        }

        await ExpectRefusedAsync(WireClient.SetIrqs(TriggerBool, Msix, 0, 2, 1));
        await ExpectRefusedAsync(WireClient.SetIrqs(TriggerBool, Msix, 0, 2, 1, 1, 1));
        await ExpectRefusedAsync(WireClient.SetIrqs(TriggerNone, Msix, 0, 1, 1));
    }

    [Fact]
    public async Task Descriptors_of_another_number_or_kind_are_refused()
    {
        using EventFd bound = new();
        using FileDescriptor file = MemFd.Create("outboard-test", 4096);
        FileDescriptor fd = bound.Descriptor;
        await ExpectRefusedAsync(WireClient.SetIrqs(TriggerNone, Msix, 0, 1), descriptors: fd);
        await ExpectRefusedAsync(WireClient.SetIrqs(TriggerBool, Msix, 0, 2, 1, 1), WireClient.Inval, fd, fd);
        await ExpectRefusedAsync(WireClient.SetIrqs(Bind, Msix, 0, 2), descriptors: fd);
        await ExpectRefusedAsync(WireClient.SetIrqs(Bind, Msix, 0, 1), WireClient.Inval, fd, fd);
        await ExpectRefusedAsync(WireClient.SetIrqs(Bind, Msix, 0, 1), descriptors: file);
        await ExpectRefusedAsync(WireClient.SetIrqs(Bind, Msix, 0, 2), WireClient.Inval, fd, file);
    }

    private static async Task<uint> TriggerAsync(WireClient client, uint kind, uint vector)
    {
        await client.WriteRegionAsync(0, 0x10, (kind << 16) | vector);
        return await client.ReadRegionAsync<uint>(0, 0x14);
    }
}
