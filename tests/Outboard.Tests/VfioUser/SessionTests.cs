// A whole session: answers in time whatever the device does, interrupts with a level, function masks, memory that is
// let go of before it is unmapped, and nothing left behind.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Pci;
using Outboard.Pci.Interrupts;
using Outboard.Tests.Linux;
using Outboard.Tests.VhostUser;
using Outboard.VfioUser.Protocol;
using Outboard.VfioUser.Server;
using Xunit;

namespace Outboard.Tests.VfioUser;

public sealed class SessionTests : ServerTest
{
    private const int TimedOut = 110;

    /// <summary>For a device that is stuck, whose answer is waited for.</summary>
    private static readonly TimeSpan s_shortLimit = TimeSpan.FromSeconds(2);
    private readonly FakeFunction _function = new();

    private protected override PciFunction Function => _function;

    /// <summary>Long: what is not held up is answered by the device, also on a busy machine.</summary>
    private TimeSpan _answerLimit = TimeSpan.FromSeconds(20);

    private protected override VfioUserServerOptions Options => new() { AnswerLimit = _answerLimit };

    [Fact]
    public async Task A_device_that_is_stuck_is_answered_for_and_nothing_comes_late()
    {
        TaskCompletionSource hold = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _answerLimit = s_shortLimit;
        using WireClient client = await ConnectNegotiatedAsync();
        _function.Hold = hold.Task;
        ushort posted = await client.SendAsync(
            VfioUserCommand.RegionWrite, WireClient.Write(0, 0, [1]), MessageFlags.NoReply);
        ushort read = await client.SendAsync(
            VfioUserCommand.RegionRead, WireClient.Bytes(new RegionAccessPayload(0, 7, 4)));
        ushort unmap = await client.SendAsync(
            VfioUserCommand.DmaUnmap, WireClient.Bytes(new DmaUnmapPayload(24, DmaUnmapFlags.All, 0, 0)));
        await client.FailureAsync(TimedOut, VfioUserCommand.RegionRead, read);
        await client.FailureAsync(TimedOut, VfioUserCommand.DmaUnmap, unmap);
        Assert.NotEqual(posted, read);
        hold.SetResult();
        await client.ExpectServedAsync();
        await client.ExpectServedAsync();
        Assert.Equal(1, _function.Writes);
    }

    [Fact]
    public async Task A_write_that_takes_long_is_answered_once()
    {
        TaskCompletionSource hold = new(TaskCreationOptions.RunContinuationsAsynchronously);
        _answerLimit = s_shortLimit;
        using WireClient client = await ConnectNegotiatedAsync();
        _function.Hold = hold.Task;
        ushort write = await client.SendAsync(VfioUserCommand.RegionWrite, WireClient.Write(0, 0, [1]));
        await client.FailureAsync(TimedOut, VfioUserCommand.RegionWrite, write);
        hold.SetResult();
        await client.ExpectServedAsync();
    }

    /// <summary>Whatever it is that this host does not give a device, the connection is not to blame.</summary>
    [Fact]
    public async Task A_device_that_fails_fails_one_command()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        _function.Hold = Task.FromException(new IOException("no space"));
        await client.RefusedAsync(Errno.InputOutput, VfioUserCommand.RegionWrite, WireClient.Write(0, 0, [1]));
        _function.Hold = Task.CompletedTask;
        await client.ExpectServedAsync();
    }

    [Fact]
    public async Task A_level_is_signalled_again_after_each_unmask_until_it_is_released()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd interrupt = new();
        WireMessage info = await client.CallAsync(
            VfioUserCommand.DeviceGetIrqInfo, WireClient.Bytes(new IrqInfoPayload(16, 0, 0, 0)));
        Assert.Equal(7u, (uint)info.Read<IrqInfoPayload>().Flags);
        await client.CallAsync(
            VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(0x24, 0, 0, 1), interrupt.Descriptor);
        _function.Interrupts.SetPin(true);
        _function.Interrupts.SetPin(true);
        Assert.Equal(1UL, interrupt.Take());
        Assert.Equal(0x18, await client.ReadRegionAsync<ushort>(7, 6));
        await UnmaskAsync(client);
        Assert.Equal(1UL, interrupt.Wait(timeoutMs: 20_000));
        _function.Interrupts.SetPin(false);
        await UnmaskAsync(client);
        Assert.Equal(0UL, interrupt.Take());
        Assert.Equal(0x10, await client.ReadRegionAsync<ushort>(7, 6));
    }

    [Fact]
    public async Task The_command_register_turns_the_pin_off()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd interrupt = new();
        await client.CallAsync(
            VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(0x24, 0, 0, 1), interrupt.Descriptor);
        await client.WriteRegionAsync(7, 4, (ushort)0x400);
        _function.Interrupts.SetPin(true);
        Assert.Equal(0UL, interrupt.Take());
        await client.WriteRegionAsync(7, 4, (ushort)0);
        Assert.Equal(1UL, interrupt.Take());
    }

    [Fact]
    public async Task Masks_of_the_function_hold_back_and_show_what_is_pending()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using EventFd interrupt = new();
        await client.CallAsync(
            VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(0x24, 2, 1, 1), interrupt.Descriptor);
        ushort control = (ushort)(_function.Interrupts.Msix!.Offset + 2);
        await client.WriteRegionAsync(7, control, (ushort)0xc000);
        Assert.Equal(TriggerOutcome.Held, _function.Interrupts[InterruptKind.Msix].Trigger(1));
        Assert.Equal(2UL, await client.ReadRegionAsync<ulong>(0, 0xc00));
        Assert.Equal(0UL, interrupt.Take());
        await client.WriteRegionAsync(7, (ulong)control + 1, (byte)0x80);
        Assert.Equal(1UL, interrupt.Take());
        Assert.Equal(0UL, await client.ReadRegionAsync<ulong>(0, 0xc00));

        // the vector's own mask, from the first write to its entry on
        await client.WriteRegionAsync(0, 0x800 + 16 + 12, 1u);
        Assert.Equal(TriggerOutcome.Held, _function.Interrupts[InterruptKind.Msix].Trigger(1));
        await client.WriteRegionAsync(0, 0x800 + 16 + 12, 0u);
        Assert.Equal(1UL, interrupt.Take());
    }

    [Fact]
    public async Task The_rom_is_read_and_its_register_tells_the_size()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        Assert.Equal([0x55, 0xaa, 1, 2, 3, 0xff], await client.ReadRegionAsync(6, 0, 6));
        Assert.Equal([0xff], await client.ReadRegionAsync(6, 2047, 1));
        await client.WriteRegionAsync(7, 0x30, 0xfffff800u);
        Assert.Equal(0xfffff800u, await client.ReadRegionAsync<uint>(7, 0x30));
        await client.RefusedAsync(
            Errno.NotPermitted, VfioUserCommand.RegionWrite, WireClient.Write(6, 0, [1]));
    }

    [Fact]
    public async Task An_unmap_is_answered_when_the_device_has_let_go()
    {
        TaskCompletionSource hold = new(TaskCreationOptions.RunContinuationsAsynchronously);
        using WireClient client = await ConnectNegotiatedAsync();
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x2000);
        await client.MapAsync(0, 0x1000, memory);
        await client.MapAsync(0x1000, 0x1000, memory);
        await client.MapAsync(0x2000, 0x1000, null);
        _function.HoldMemory = Task.Delay(20, TestContext.Current.CancellationToken);
        DmaUnmapPayload unmap = new(24, 0, 0, 0x1000);
        await client.CallAsync(VfioUserCommand.DmaUnmap, WireClient.Bytes(unmap));
        Assert.True(_function.HoldMemory.IsCompleted);
        Assert.Equal([(1, true), (2, true), (1, false)], _function.MemoryChanges);
        hold.SetResult();
    }

    [Fact]
    public async Task A_client_that_goes_takes_its_memory_and_interrupts_along()
    {
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x2000);
        using EventFd interrupt = new();
        using (WireClient client = await ConnectNegotiatedAsync())
        {
            await client.MapAsync(0, 0x1000, memory);
            await client.CallAsync(
                VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(0x24, 1, 0, 1), interrupt.Descriptor);
            await client.CallAsync(VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(9, 1, 0, 1));
        }

        using WireClient next = await ConnectNegotiatedAsync();
        Assert.Equal(0, _function.Dma.WindowCount);
        Assert.Equal(TriggerOutcome.NotBound, _function.Interrupts[InterruptKind.Msi].Trigger(0));
        Assert.False(_function.Interrupts[InterruptKind.Msi].IsMasked(0));
    }

    /// <summary>
    /// The device is at work, a reply is due and cannot be sent: what the client gave is held until the device is done,
    /// and then let go of. The next client waits, and is served.
    /// </summary>
    [Fact]
    public async Task A_client_that_goes_while_the_device_is_busy_is_let_go_of_afterwards()
    {
        TaskCompletionSource hold = new(TaskCreationOptions.RunContinuationsAsynchronously);
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x2000);
        using EventFd interrupt = new();
        using (WireClient client = await ConnectNegotiatedAsync())
        {
            await client.MapAsync(0, 0x1000, memory);
            await client.CallAsync(
                VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(0x24, 1, 0, 1), interrupt.Descriptor);
            _function.Hold = hold.Task;
            await client.SendAsync(VfioUserCommand.RegionWrite, WireClient.Write(0, 0, [1]));
            await client.SendAsync(VfioUserCommand.RegionRead, WireClient.Bytes(new RegionAccessPayload(0, 0, 4)));
            await Eventually.TrueAsync(() => _function.Writes == 1, "the device is busy");
        }

        using WireClient next = Connect();
        Task<WireMessage> negotiating = next.NegotiateAsync();
        Assert.Equal(1, _function.Dma.WindowCount);
        Assert.True(_function.Interrupts[InterruptKind.Msi].IsBound(0));
        Assert.False(negotiating.IsCompleted);
        hold.SetResult();
        await negotiating;
        Assert.Equal(0, _function.Dma.WindowCount);
        Assert.Equal(TriggerOutcome.NotBound, _function.Interrupts[InterruptKind.Msi].Trigger(0));
        Assert.Equal(1, _function.Writes);
        await next.ExpectServedAsync();
    }

    private static Task UnmaskAsync(WireClient client) =>
        client.CallAsync(VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(0x11, 0, 0, 1));
}

/// <summary>Counts what the process has open, so nothing runs beside it.</summary>
[Collection(DescriptorCounting.Name)]
public sealed class LeakTests : ServerTest
{
    [Fact]
    public async Task Malformed_messages_leave_no_descriptor_behind()
    {
        OpenThings before = OpenThings.Count();
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x1000);
        using EventFd extra = new();
        for (int round = 0; round < 3; round++)
        {
            using WireClient client = await ConnectNegotiatedAsync();
            foreach (CommandRow row in CommandTable.Rows)
            {
                foreach (FileDescriptor descriptor in (FileDescriptor[])[memory, extra.Descriptor])
                {
                    await client.SendAsync(row.Command, new byte[row.MinBytes], 0, descriptor);
                    await client.ReceiveAsync();
                }
            }

            await client.MapAsync(0x5000, 0x1000, memory);
            await client.CallAsync(
                VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(0x14, 0, 0, 1), extra.Descriptor);
        }

        using (WireClient last = await ConnectNegotiatedAsync())
        {
            await last.ExpectServedAsync();
        }

        await (before with
        {
            Events = before.Events + 1,
            Memories = before.Memories + 1,
            Sockets = before.Sockets + 2,
        }).AssertNothingLeftAsync();
    }
}
