// A controller without MSI-X, as machines need it that unplug it: one MSI vector.
using Outboard.Devices.Nvme;
using Outboard.Devices.Nvme.Driver;
using Outboard.Devices.Nvme.Spec;
using Outboard.Linux.Events;
using Outboard.Pci.Driver;
using Outboard.Pci.Interrupts;
using Outboard.Tests.VhostUser;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

public sealed class MsiTests
{
    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    /// <summary>Without MSI-X there is one MSI vector for all queues, which the mask register holds back.</summary>
    [Fact]
    public async Task Msi_tells_of_completions_where_there_is_no_msix()
    {
        await using NvmeRig rig = await NvmeRig.StartAsync(
            new NvmeOptions { QueuePairs = 4, QueueSize = 64, HasMsix = false }, shadow: false);
        Assert.Equal(0, rig.Controller.Interrupts[InterruptKind.Msix].Count);
        using EventFd vector = new();
        using EventFd pin = new();
        await rig.Client.BindAsync(InterruptKind.Msi, 0, [vector], Cancellation);
        await rig.Client.BindAsync(InterruptKind.Intx, 0, [pin], Cancellation);
        await rig.Client.WriteAsync(
            PciHandle.Config, (ulong)rig.Controller.Interrupts.Msi!.Offset + 2, new byte[] { 1, 0 }, Cancellation);
        NvmeRings rings = new(rig.Client, rig.Memory, 1, 16, rig.Driver.StrideBytes);
        NvmeCommand completion = new()
        {
            Opcode = (byte)NvmeAdminOpcode.CreateCompletionQueue,
            Pointer1 = rings.CompletionAddress,
            Word10 = (15 << 16) | 1,
            Word11 = (1 << 16) | 3,
        };
        pin.Take();
        Assert.Equal(NvmeStatus.InvalidInterruptVector, await rig.AdminAsync(completion));
        Assert.Equal(NvmeStatus.Success, await rig.AdminAsync(completion with { Word11 = 3 }));
        Assert.Equal(NvmeStatus.Success, await rig.AdminAsync(new NvmeCommand
        {
            Opcode = (byte)NvmeAdminOpcode.CreateSubmissionQueue,
            Pointer1 = rings.SubmissionAddress,
            Word10 = (15 << 16) | 1,
            Word11 = (1 << 16) | 1,
        }));
        Assert.NotEqual(0UL, vector.Wait(20_000));
        await rig.Driver.WriteRegisterAsync(NvmeRegister.InterruptMaskSet, 1, Cancellation);
        vector.Take();
        NvmeDriverQueue queue = new(rings, vector);
        Assert.True(queue.TryRead(1, 1, 0, 8, rig.Allocate()));
        queue.Submit();
        await Eventually.TrueAsync(() => rig.Controller.Completion(1)!.HasUnread, "the read has finished");
        Assert.Equal(0UL, vector.Take());
        await rig.Driver.WriteRegisterAsync(NvmeRegister.InterruptMaskClear, 1, Cancellation);
        Assert.NotEqual(0UL, vector.Wait(20_000));
        await NvmeRig.CollectAsync(queue, 1);
        Assert.Equal(0UL, pin.Take());
    }
}
