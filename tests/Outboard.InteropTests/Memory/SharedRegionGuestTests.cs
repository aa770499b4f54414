// SharedRegionGuestTests.cs - stock QEMU shows a device's shared memory regions in a BAR; a Linux guest reads and
// writes there what the device maps and unmaps while it runs, and rings the device's own doorbell.
using Outboard.InteropTests.Lab;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.VhostUser.Backend;
using Outboard.Virtio;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.InteropTests.Memory;

public sealed class SharedRegionGuestTests
{
    private const int Page = 4096;

    /// <summary>An entropy device: its driver starts it, and asks for nothing else.</summary>
    private const int DeviceType = (int)VirtioDeviceId.Entropy;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task A_guest_sees_what_the_device_maps()
    {
        using TempFolder folder = new();
        using CancellationTokenSource end = CancellationTokenSource.CreateLinkedTokenSource(Token);
        RegionDevice device = new();
        TaskCompletionSource listening = new();
        VhostUserBackendOptions options = new() { OnListening = listening.SetResult };
        string socket = folder.Combine("device.sock");
        Task serving = VhostUserBackend.ServeAsync(device, socket, options, end.Token);
        await listening.Task;
        using FileSharedMemory memory = new(MemFd.Create("outboard-regions", 4 * Page));
        using MemoryMapping view = memory.Map(0, 4 * Page);
        Word(view, Page) = 0x600DF00D;
        Word(view, 3 * Page) = 0x0BADCAFE;

        await using GuestVm guest = await GuestVm.StartAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("shared-regions.sh"),
            KernelArguments = "iomem=relaxed",
            Variables = new Dictionary<string, string> { ["DEVICE"] = $"0x{0x1040 + DeviceType:x4}", ["BAR"] = "4" },
            DeviceArguments =
            [
                "-chardev", $"socket,id=regions,path={socket}",
                "-device",
                $"vhost-user-test-device-pci,chardev=regions,virtio-id={DeviceType},num_vqs=1,vq_size=64,config_size=8",
            ],
        });
        await guest.WaitForLineAsync("READY");
        SharedRegionPart part = new(0, Page, 2 * Page);
        await device.MapAsync(part, memory, Page, writable: true);

        // QEMU refuses what the rules forbid, and the mapping stays.
        await Assert.ThrowsAsync<IOException>(() => device.ForceAsync(part with { Length = Page }, memory));
        await Assert.ThrowsAsync<IOException>(() => device.ForceAsync(part with { Offset = 0 }, memory));
        await guest.WaitForLineAsync("MAPPED");
        await ExpectAsync(() => Word(view, Page + 4) == 0x12345678);
        await device.UnmapAsync(part);
        await device.MapAsync(part with { Length = Page }, memory, 3 * Page, writable: false);
        await guest.WaitForLineAsync("REMAPPED");
        await device.UnmapAsync(part with { Length = Page });
        (await guest.FinishAsync()).RequireSuccess();
        await end.CancelAsync();
        await serving;
    }

    [Fact]
    public async Task A_guest_rings_the_devices_own_doorbell()
    {
        using TempFolder folder = new();
        using CancellationTokenSource end = CancellationTokenSource.CreateLinkedTokenSource(Token);
        RegionDevice device = new();
        TaskCompletionSource listening = new();
        VhostUserBackendOptions options = new() { OnListening = listening.SetResult };
        string socket = folder.Combine("device.sock");
        Task serving = VhostUserBackend.ServeAsync(device, socket, options, end.Token);
        await listening.Task;
        using FileSharedMemory memory = new(MemFd.Create("outboard-doorbell", 2 * Page));
        using MemoryMapping view = memory.Map(0, 2 * Page);
        view.Segment.Span.Fill(0xFF);

        await using GuestVm guest = await GuestVm.StartAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("doorbell.sh"),
            DeviceArguments =
            [
                "-chardev", $"socket,id=bell,path={socket}",
                "-device",
                $"vhost-user-test-device-pci,chardev=bell,virtio-id={DeviceType},num_vqs=1,vq_size=64,config_size=8,"
                + "page-per-vq=on",
            ],
        });
        await guest.WaitForLineAsync("READY");
        await device.OfferAsync(memory, Page);

        // The driver writes the queue's index, which is 0.
        await ExpectAsync(() => Word(view, Page) == 0xFFFF0000);
        await device.OfferAsync(null, 0);
        await guest.SendAsync("RUNG\n");
        (await guest.FinishAsync()).RequireSuccess();
        await end.CancelAsync();
        await serving;
    }

    private static ref uint Word(MemoryMapping view, int offset) =>
        ref System.Runtime.InteropServices.MemoryMarshal.AsRef<uint>(view.Segment.Span.Slice(offset, sizeof(uint)));

    private static async Task ExpectAsync(Func<bool> condition)
    {
        for (int i = 0; i < 500 && !condition(); i++)
        {
            await Task.Delay(20, Token);
        }

        Assert.True(condition());
    }

    /// <summary>A device that has regions and gives random bytes.</summary>
    private sealed class RegionDevice() : VirtioDevice(VirtioDeviceId.Entropy, [64], new ConfigSpace(8))
    {
        // Together a power of two, which QEMU asks of a BAR.
        public override IReadOnlyList<SharedRegion> SharedRegions { get; } =
            [new(0, 16 * Page), new(3, 16 * Page)];

        public Task MapAsync(SharedRegionPart part, SharedMemory memory, ulong offset, bool writable) =>
            MapSharedAsync(part, memory, offset, writable);

        public Task OfferAsync(SharedMemory? page, ulong offset) => OfferDoorbellAsync(0, page, offset);

        public Task UnmapAsync(SharedRegionPart part) => UnmapSharedAsync(part);

        protected override uint HandleRequest(int queue, scoped in DescriptorChain chain)
        {
            WritableBuffers writable = chain.Writable;
            foreach (Span<byte> buffer in writable)
            {
                Random.Shared.NextBytes(buffer);
            }

            return (uint)writable.Length;
        }

        /// <summary>Asks for a mapping past this side's own checks.</summary>
        public async Task ForceAsync(SharedRegionPart part, SharedMemory memory)
        {
            if (!await SharedRegionHost!.MapAsync(part, memory, 0, writable: false))
            {
                throw new IOException("refused");
            }
        }
    }
}
