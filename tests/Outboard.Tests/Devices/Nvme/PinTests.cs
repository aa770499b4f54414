// Interrupts by the pin. QEMU releases the guest's pin, and unmasks ours, when the guest touches a BAR; Linux' driver
// does that only when it found something. An interrupt for nothing is asserted for good then, until Linux turns the
// line off ("nobody cared") and commands end by their time limits. So the level has to be right with each doorbell.
using System.Diagnostics;
using Outboard.Devices.Nvme.Driver;
using Outboard.Devices.Nvme.Spec;
using Outboard.Linux.Events;
using Outboard.Pci.Driver;
using Outboard.Pci.Interrupts;
using Outboard.VfioUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

public sealed class PinTests
{
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(20);

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    [Fact]
    public async Task The_pin_is_asserted_while_completions_wait_and_are_not_masked()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(shadow: false);
        using EventFd pin = new();
        NvmeDriverQueue queue = await StartAsync(rig, pin);
        ReadUntilInterrupted(rig, queue, pin);
        Assert.True(await IsAssertedAsync(rig));
        await rig.Driver.WriteRegisterAsync(NvmeRegister.InterruptMaskSet, 1, Cancellation);
        Assert.False(await IsAssertedAsync(rig));
        await rig.Driver.WriteRegisterAsync(NvmeRegister.InterruptMaskClear, 1, Cancellation);
        Assert.True(await IsAssertedAsync(rig));
        await NvmeRig.CollectAsync(queue, 1);
        Assert.False(await IsAssertedAsync(rig));
    }

    /// <summary>What QEMU does at the doorbell's write: it unmasks.</summary>
    [Fact]
    public async Task The_level_falls_with_the_doorbell_even_while_the_worker_is_busy()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(shadow: false);
        using EventFd pin = new();
        NvmeDriverQueue queue = await StartAsync(rig, pin);
        ReadUntilInterrupted(rig, queue, pin);
        using ManualResetEventSlim busy = new(), release = new();
        rig.Controller.WorkerFor(1).Post(() =>
        {
            busy.Set();
            release.Wait(s_limit);
        });
        Assert.True(busy.Wait(s_limit, Cancellation));

        await NvmeRig.CollectAsync(queue, 1);
        await UnmaskAsync(rig);

        Assert.False(await IsAssertedAsync(rig));
        Assert.Equal(0UL, pin.Take());
        release.Set();
        ReadUntilInterrupted(rig, queue, pin);
    }

    [Fact]
    public async Task A_doorbell_that_leaves_entries_keeps_the_level_and_the_unmask_signals_again()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(shadow: false);
        using EventFd pin = new();
        NvmeDriverQueue queue = await StartAsync(rig, pin);
        ReadUntilInterrupted(rig, queue, pin, commands: 3);
        for (int left = 2; left >= 0; left--)
        {
            await TakeOneAsync(queue);
            await UnmaskAsync(rig);
            Assert.Equal(left > 0, await IsAssertedAsync(rig));
            Assert.Equal(left > 0 ? 1UL : 0UL, left > 0 ? pin.Wait(20_000) : pin.Take());
        }
    }

    /// <summary>The same for the admin queue, whose entries may be taken before its task knows.</summary>
    [Fact]
    public async Task Admin_commands_use_the_pin_too()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(shadow: false);
        using EventFd pin = new();
        await StartAsync(rig, pin);
        ushort id = rig.Driver.Submit(new NvmeCommand { Opcode = (byte)NvmeAdminOpcode.GetFeatures, Word10 = 6 });
        Assert.NotEqual(0UL, pin.Wait(20_000));
        await rig.Driver.WaitAsync(id, Cancellation);
        await UnmaskAsync(rig);
        Assert.False(await IsAssertedAsync(rig));
        Assert.Equal(0UL, pin.Take());
    }

    /// <summary>A driver may see an entry, and ring, before the worker has noted that it wrote it.</summary>
    [Fact]
    public async Task A_driver_that_looks_without_end_takes_entries_as_they_are_written()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(shadow: false);
        using EventFd pin = new();
        NvmeDriverQueue queue = await StartAsync(rig, pin);
        ulong errors = rig.Controller.Errors.Count;
        DriverBuffer data = rig.Allocate();
        NvmeFinished[] finished = new NvmeFinished[16];
        long start = Stopwatch.GetTimestamp();
        for (int i = 0; i < 2000; i++)
        {
            Assert.True(queue.TryRead((ushort)i, 1, 0, 1, data));
            queue.Submit();
            for (int taken = 0; taken == 0;)
            {
                taken = queue.Collect(finished);
                Assert.True(Stopwatch.GetElapsedTime(start) < 3 * s_limit, $"command {i} does not end");
            }
        }

        Assert.False(await IsAssertedAsync(rig));
        Assert.Equal(errors, rig.Controller.Errors.Count);
    }

    /// <summary>Doorbells in memory are written without a message that the client would see.</summary>
    [Fact]
    public async Task Doorbells_in_memory_are_not_offered_to_a_driver_that_uses_the_pin()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(shadow: false);
        Assert.NotEqual(0, (await rig.Driver.IdentifyAsync(NvmeIdentify.Controller, 0, Cancellation))[257] & 1);
        await rig.DisableVectorsAsync();
        Assert.Equal(0, (await rig.Driver.IdentifyAsync(NvmeIdentify.Controller, 0, Cancellation))[257] & 1);
        Assert.Equal(NvmeStatus.InvalidOpcode, await rig.AdminAsync(new NvmeCommand
        {
            Opcode = (byte)NvmeAdminOpcode.DoorbellBufferConfig,
            Pointer1 = rig.Allocate().GuestAddress,
            Pointer2 = rig.Allocate().GuestAddress,
        }));
    }

    /// <summary>A driver that keeps doorbells in memory, and then goes over to the pin all the same.</summary>
    [Fact]
    public async Task Doorbells_in_memory_ring_while_the_pin_is_used()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync();
        using EventFd pin = new();
        NvmeDriverQueue queue = await StartAsync(rig, pin);
        for (int round = 0; round < 20; round++)
        {
            ReadUntilInterrupted(rig, queue, pin);
            await NvmeRig.CollectAsync(queue, 1);
            await UntilReleasedAsync(rig);
            await UnmaskAsync(rig);
        }
    }

    private static async Task<NvmeDriverQueue> StartAsync(NvmeRig rig, EventFd pin)
    {
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        await rig.DisableVectorsAsync();
        await UntilReleasedAsync(rig);
        await rig.Client.BindAsync(InterruptKind.Intx, 0, [pin], Cancellation);
        return queue;
    }

    /// <summary>Reads, and waits for the interrupt that tells of it.</summary>
    private static void ReadUntilInterrupted(NvmeRig rig, NvmeDriverQueue queue, EventFd pin, int commands = 1)
    {
        DriverBuffer data = rig.Allocate();
        for (int i = 0; i < commands; i++)
        {
            Assert.True(queue.TryRead((ushort)i, 1, 0, 8, data));
        }

        queue.Submit();
        Assert.NotEqual(0UL, pin.Wait(20_000));
    }

    private static async Task TakeOneAsync(NvmeDriverQueue queue)
    {
        long start = Stopwatch.GetTimestamp();
        while (queue.Collect(new NvmeFinished[1]) == 0)
        {
            Assert.True(Stopwatch.GetElapsedTime(start) < s_limit, "no completion");
            await Task.Delay(1, Cancellation);
        }
    }

    private static Task UnmaskAsync(NvmeRig rig) => rig.Client.SetIrqsAsync(
        InterruptKind.Intx, SetIrqsFlags.DataNone | SetIrqsFlags.Unmask, 0, 1, Cancellation);

    private static async Task UntilReleasedAsync(NvmeRig rig)
    {
        for (int look = 0; await IsAssertedAsync(rig); look++)
        {
            Assert.True(look < 10_000);
            await Task.Delay(1, Cancellation);
        }
    }

    private static async Task<bool> IsAssertedAsync(NvmeRig rig)
    {
        byte[] status = new byte[2];
        await rig.Client.ReadAsync(PciHandle.Config, 6, status, Cancellation);
        return (status[0] & 8) != 0;
    }
}
