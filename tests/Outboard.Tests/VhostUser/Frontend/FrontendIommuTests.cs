// Our front-end's IOMMU: against our back-end, under load, and on the wire.
using Outboard.Memory;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VhostUser.Frontend;

public sealed class FrontendIommuTests : BackendTest
{
    private const ulong Bus = 0x4000_0000;
    private const ulong Page = 4096;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Theory]
    [InlineData(4096UL, false, false)]
    [InlineData(4096UL, true, true)]
    [InlineData(2UL << 20, false, true)]
    public async Task Requests_run_while_their_buffers_are_mapped_and_withdrawn(
        ulong granule, bool packed, bool guestAddresses)
    {
        FrontendIommu iommu = new(granule);
        VhostUserFrontendOptions options = new() { Iommu = iommu, UsePacked = packed };
        options = guestAddresses ? options
            : options with { ProtocolFeatures = options.ProtocolFeatures & ~ProtocolFeatures.GpaAddresses };
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync(options);
        Assert.True(frontend.HasIommu);
        DriverMemory memory = Rig.Own(new DriverMemory(64 * Page, busAddress: Bus));
        iommu.Map(Bus, memory, 0, 32 * Page, MemoryAccess.ReadWrite);
        await frontend.ShareMemoryAsync(memory, Token);
        using FrontendQueue queue = await frontend.StartQueueAsync(0, 16, memory, Token);
        memory.Allocate(1, 32 * (uint)Page);
        DriverBuffer[] buffers = [.. Enumerable.Range(0, 8).Select(_ => memory.Allocate(64, (uint)Page))];
        for (int i = 0; i < 100; i++)
        {
            DriverBuffer request = buffers[i % 4 * 2];
            DriverBuffer answer = buffers[(i % 4 * 2) + 1];
            ulong offset = request.GuestAddress - Bus;
            iommu.Map(request.GuestAddress, memory, offset, Page, MemoryAccess.Read);
            iommu.Map(answer.GuestAddress, memory, offset + Page, Page, MemoryAccess.Write);
            request.Span.Fill((byte)(i + 1));
            Assert.True(queue.Ring.TryAdd([request], [answer], 0));
            queue.Submit();
            await Eventually.TrueAsync(() => queue.Ring.TryCollect(out _, out _), "an answer");
            Assert.Equal(request.Span, answer.Span);
            await frontend.UnmapAsync(request.GuestAddress, 2 * Page, Token);
        }

        Assert.True(iommu.Misses >= 200);
        await frontend.StopQueueAsync(queue, Token);
    }

    [Fact]
    public async Task Buffer_that_is_not_mapped_faults_the_queue_and_another_access_is_told()
    {
        FrontendIommu iommu = new();
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync(new() { Iommu = iommu });
        DriverMemory memory = Rig.Own(new DriverMemory(16 * Page, busAddress: Bus));
        iommu.Map(Bus, memory, 0, 8 * Page, MemoryAccess.ReadWrite);
        await frontend.ShareMemoryAsync(memory, Token);
        using FrontendQueue queue = await frontend.StartQueueAsync(0, 16, memory, Token);
        memory.Allocate(1, 8 * (uint)Page);
        Assert.True(queue.Ring.TryAdd([memory.Allocate(64, (uint)Page)], [], 0));
        queue.Submit();
        await Eventually.TrueAsync(
            () => Rig.Log.Warnings.Any(line => line.Contains("TranslationRefused", StringComparison.Ordinal)),
            "a fault in the log");
        await frontend.StopQueueAsync(queue, Token);
    }

    [Fact]
    public async Task Withdrawal_waits_for_the_device()
    {
        FrontendIommu iommu = new();
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync(new() { Iommu = iommu });
        DriverMemory memory = Rig.Own(new DriverMemory(16 * Page, busAddress: Bus));
        iommu.Map(Bus, memory, 0, 8 * Page, MemoryAccess.ReadWrite);
        iommu.Map(Bus + (8 * Page), memory, 8 * Page, 8 * Page, MemoryAccess.ReadWrite);
        await frontend.ShareMemoryAsync(memory, Token);
        using FrontendQueue queue = await frontend.StartQueueAsync(0, 16, memory, Token);
        memory.Allocate(1, 8 * (uint)Page);
        Rig.Device.Holds = true;
        Assert.True(queue.Ring.TryAdd([memory.Allocate(64)], [], 0));
        queue.Submit();
        await Eventually.TrueAsync(() => Rig.Device.Held == 1, "a held request");
        Task withdrawing = frontend.UnmapAsync(Bus + (8 * Page), 8 * Page, Token);
        await Task.Delay(20, Token);
        Assert.False(withdrawing.IsCompleted);
        Rig.Device.Holds = false;
        Rig.Device.CompleteHeld();
        await withdrawing.WaitAsync(Eventually.Limit, Token);
    }

    [Fact]
    public void Impossible_mappings_are_refused()
    {
        FrontendIommu iommu = new();
        DriverMemory memory = Rig.Own(new DriverMemory(4 * Page));
        iommu.Map(Page, memory, 0, 2 * Page, MemoryAccess.Read);
        Assert.Throws<ArgumentException>(() => iommu.Map(1, memory, 0, Page, MemoryAccess.Read));
        Assert.Throws<ArgumentException>(() => iommu.Map(0, memory, 0, 0, MemoryAccess.Read));
        Assert.Throws<ArgumentException>(() => iommu.Map(0, memory, 0, 2 * Page, MemoryAccess.Read));
        Assert.Throws<ArgumentException>(() => iommu.Map(0x10000, memory, Page, 4 * Page, MemoryAccess.Read));
        Assert.Throws<ArgumentException>(
            () => iommu.Map(ulong.MaxValue - 0xFFF, memory, 0, 2 * Page, MemoryAccess.Read));
    }

    [Fact]
    public async Task Back_end_that_asks_for_what_it_may_not_is_refused()
    {
        await using ScriptedBackend backend = new();
        await backend.NegotiateAsync();
        IotlbPayload miss = new(Bus, Page, 0, 1, IotlbMessageType.Miss);
        await backend.BackendChannel!.SendAsync(
            WirePeer.Frame((uint)BackendRequest.IotlbMsg, WirePeer.NeedReply, WirePeer.Bytes(miss)));
        Assert.NotEqual(0UL, (await backend.BackendChannel.ReceiveAsync()).Value);
    }
}
