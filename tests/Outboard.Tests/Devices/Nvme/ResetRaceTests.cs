// What is still under way when a controller is reset, or when its memory changes: each order of events that went wrong
// once, or could.
using Outboard.Devices.Nvme.Driver;
using Outboard.Devices.Nvme.Queues;
using Outboard.Devices.Nvme.Spec;
using Outboard.Pci;
using Outboard.Tests.Devices.Block;
using Outboard.Tests.VhostUser;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

public sealed class ResetRaceTests
{
    private static readonly NvmeCommand s_flushAll = new()
    {
        Opcode = (byte)NvmeIoOpcode.Flush, Namespace = uint.MaxValue,
    };

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    /// <summary>Two commands: one has been ended by the reset when its disk comes back to it, the other one still waits
    /// for guest memory.</summary>
    [Fact]
    public async Task A_command_that_a_reset_ended_is_not_ended_again_by_its_disk()
    {
        using HeldDisk disk = new(NvmeRig.DiskBytes);
        await using LocalNvme rig = await LocalNvme.StartAsync(disk);
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        SubmissionQueue ring = rig.Controller.Submission(1)!;
        DriverBuffer held = rig.Memory.Allocate(4096, 4096);
        rig.Dma.HoldsAt = held.GuestAddress;
        Add(queue, s_flushAll);
        Add(queue, new NvmeCommand
        {
            Opcode = (byte)NvmeIoOpcode.DatasetManagement, Namespace = 1, Word11 = 4, Pointer1 = held.GuestAddress,
        });
        await Eventually.TrueAsync(() => disk.Held == 1 && rig.Dma.Held == 1, "both are under way");
        Task resetting = rig.Controller.ResetAsync(PciResetKind.FunctionLevel).AsTask();
        await UntilAsync(ring, () => ring.InFlight == 1);
        Assert.True(disk.Release());
        await ring.Worker.InvokeAsync(() => Assert.Equal(1, ring.InFlight));
        rig.Dma.Release();
        await resetting.WaitAsync(Eventually.Limit, Cancellation);
        Assert.Empty(rig.Log.Critical);
        await ServesAsync(rig, disk);
    }

    /// <summary>The reply of the first entry comes in the last moment; the second one may not follow it.</summary>
    [Fact]
    public async Task A_reset_waits_for_a_completion_that_is_being_written_and_no_other_follows()
    {
        using HeldDisk disk = new(NvmeRig.DiskBytes);
        await using LocalNvme rig = await LocalNvme.StartAsync(disk);
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        CompletionQueue completions = rig.Controller.Completion(1)!;
        rig.Dma.HoldsAt = completions.Address;
        Add(queue, s_flushAll);
        Add(queue, s_flushAll);
        await Eventually.TrueAsync(() => disk.Held == 2, "both are at the disk");
        disk.Release();
        disk.Release();
        await Eventually.TrueAsync(() => rig.Dma.Held == 1, "the first completion is being written");
        Task resetting = rig.Controller.ResetAsync(PciResetKind.FunctionLevel).AsTask();
        Assert.False(
            await Eventually.IsTrueAsync(() => resetting.IsCompleted, TimeSpan.FromMilliseconds(100)),
            "the reset was over while an entry was being written");
        rig.Dma.Release();
        await resetting.WaitAsync(Eventually.Limit, Cancellation);
        await completions.Worker.InvokeAsync(() => { });
        Assert.Equal(1u, completions.Position.Tail);
        await ServesAsync(rig, disk);
    }

    [Fact]
    public async Task A_command_that_is_mapped_while_it_is_being_fetched_is_taken_once()
    {
        using HeldDisk disk = new(NvmeRig.DiskBytes);
        await using LocalNvme rig = await LocalNvme.StartAsync(disk);
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        SubmissionQueue ring = rig.Controller.Submission(1)!;
        rig.Dma.HoldsAt = ring.Address;
        Add(queue, s_flushAll);
        await Eventually.TrueAsync(() => rig.Dma.Held == 1, "the command is being fetched");
        rig.Dma.IsMapped = true;
        await rig.Controller.ChangeMemoryAsync(keepsOldRegions: true);
        await Eventually.TrueAsync(() => disk.Held == 1, "the command was taken");
        rig.Dma.Release();
        await UntilAsync(ring, () => !ring.IsFetching);
        Assert.Equal(1, disk.Held);
        disk.Release();
        Assert.Equal(0, (await NvmeRig.CollectAsync(queue, 1))[0].Status);
        await ring.Worker.InvokeAsync(() => Assert.Equal((1u, 1u), (ring.Position.Head, ring.Position.Tail)));
    }

    /// <summary>A bug stops a thread's queues, wherever it shows: a reset does not wait for it, and ends it.</summary>
    [Theory]
    [InlineData(false, 1u)]
    [InlineData(true, 1u)]
    [InlineData(false, uint.MaxValue)]
    [InlineData(true, uint.MaxValue)]
    public async Task A_reset_brings_a_thread_back_that_failed(bool isMapped, uint number)
    {
        using HeldDisk disk = new(NvmeRig.DiskBytes) { FailsAfter = 0 };
        await using LocalNvme rig = await LocalNvme.StartAsync(disk);
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        rig.Dma.IsMapped = isMapped;
        await rig.Controller.ChangeMemoryAsync(keepsOldRegions: isMapped);
        Add(queue, s_flushAll with { Namespace = number });
        await rig.Driver.WaitForStatusAsync(NvmeControllerStatus.Ready | NvmeControllerStatus.Fatal, Cancellation);
        Assert.Single(rig.Log.Critical);
        disk.FailsAfter = int.MaxValue;
        await rig.Controller.ResetAsync(PciResetKind.FunctionLevel).AsTask()
            .WaitAsync(Eventually.Limit, Cancellation);
        await ServesAsync(rig, disk);
        Assert.Single(rig.Log.Critical);
    }

    private static void Add(NvmeDriverQueue queue, NvmeCommand command)
    {
        Assert.True(queue.TryAdd(in command));
        queue.Submit();
    }

    /// <summary>Waits for something that the queue's thread sees.</summary>
    private static async Task UntilAsync(SubmissionQueue queue, Func<bool> condition)
    {
        bool isTrue = false;
        for (long start = Environment.TickCount64; !isTrue;)
        {
            await queue.Worker.InvokeAsync(() => isTrue = condition());
            Assert.True(Environment.TickCount64 - start < Eventually.Limit.TotalMilliseconds);
        }
    }

    private static async Task ServesAsync(LocalNvme rig, HeldDisk disk)
    {
        await rig.RestartAsync();
        NvmeDriverQueue queue = await rig.CreateQueueAsync();
        Add(queue, s_flushAll with { Id = 77 });
        await Eventually.TrueAsync(() => disk.Release(), "the disk has the command");
        Assert.Equal(new NvmeFinished(77, 0), (await NvmeRig.CollectAsync(queue, 1))[0]);
    }
}
