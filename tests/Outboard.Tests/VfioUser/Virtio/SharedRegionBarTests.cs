// Shared memory regions of a virtio function: where drivers find them, what is mapped by clients and what is answered.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Pci.Bars;
using Outboard.Tests.VfioUser.Client;
using Outboard.VfioUser.Client;
using Outboard.VfioUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Pci;
using Outboard.Virtio.Pci.Driver;
using Outboard.Virtio.Queue;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VfioUser.Virtio;

public sealed class SharedRegionBarTests : IAsyncDisposable
{
    private const ulong Page = 4096;
    private const ulong Large = 5UL << 30;

    private readonly Stack<IDisposable> _owned = new();
    private readonly Stack<IAsyncDisposable> _served = new();

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask DisposeAsync()
    {
        while (_served.TryPop(out IAsyncDisposable? thing))
        {
            await thing.DisposeAsync();
        }

        while (_owned.TryPop(out IDisposable? thing))
        {
            thing.Dispose();
        }
    }

    [Fact]
    public async Task Each_region_has_a_capability_and_lies_behind_the_one_before()
    {
        (_, VfioUserClient client) = await ServeAsync(new(1, Large), new(7, 2 * Page));
        byte[] config = new byte[256];
        await client.ReadAsync(7, 0, config, Cancellation);
        List<(byte Id, byte Bar, ulong Offset, ulong Length)> found = [];
        for (int at = config[0x34]; at != 0; at = config[at + 1])
        {
            if (config[at] == 9 && config[at + 3] == VirtioPci.SharedMemoryConfig)
            {
                Assert.Equal(24, config[at + 2]);
                ulong upperOffset = BitConverter.ToUInt32(config, at + 16);
                ulong upperLength = BitConverter.ToUInt32(config, at + 20);
                found.Add((config[at + 5], config[at + 4],
                    BitConverter.ToUInt32(config, at + 8) | (upperOffset << 32),
                    BitConverter.ToUInt32(config, at + 12) | (upperLength << 32)));
            }
        }

        Assert.Equal([(1, 2, 0UL, Large), (7, 2, Large, 2 * Page)], found);

        // a 64-bit prefetchable BAR
        Assert.Equal(12U, BitConverter.ToUInt32(config, 0x18) & 0xf);
        using RegionInfo info = await client.GetRegionInfoAsync(2, Cancellation);
        Assert.Equal((RegionFlags.Read | RegionFlags.Write, 8UL << 30), (info.Flags, info.SizeBytes));
    }

    [Fact]
    public async Task What_the_device_maps_is_read_and_written_by_messages()
    {
        (RegionDevice device, VfioUserClient client) = await ServeAsync(new(1, Large), new(2, 4 * Page));
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(client, cancellation: Cancellation);
        FileSharedMemory memory = File(4 * Page, out MemoryMapping view);
        view.Segment.Span[(int)Page] = 0x11;
        SharedRegionPart last = new(1, Large - Page, Page);
        SharedRegionPart first = new(2, 0, 2 * Page);
        await device.MapAsync(last, memory, Page);
        await device.MapAsync(first, memory, 2 * Page, writable: false);
        Assert.Equal(0x11, await ReadAsync(driver, 1, Large - Page));
        Assert.Equal(0, await ReadAsync(driver, 1, Large - Page - 1));

        // over the end of one region into the next: the first takes it, the second may not be written
        await client.WriteAsync(2, Large - 2, new byte[] { 1, 2, 3, 4 }, Cancellation);
        Assert.Equal([1, 2, 0, 0], view.Segment.Span.Slice((int)(2 * Page) - 2, 4).ToArray());
        view.Segment.Span[(int)(2 * Page)] = 9;
        byte[] both = new byte[4];
        await client.ReadAsync(2, Large - 2, both, Cancellation);
        Assert.Equal([1, 2, 9, 0], both);

        await device.UnmapAsync(first);
        Assert.Equal(0, await ReadAsync(driver, 2, 0));
        await Assert.ThrowsAsync<IOException>(() => device.MapAsync(first, memory, 3 * Page));
        await Assert.ThrowsAsync<IOException>(() => device.MapAsync(first, memory, 1));
        await Assert.ThrowsAsync<IOException>(() => device.OfferAsync(memory));
        Assert.Throws<IOException>(() => driver.OpenWindow(1));
        Assert.Null(driver.OpenWindow(3));
        await Assert.ThrowsAsync<IOException>(() => ReadAsync(driver, 2, 4 * Page));
        await Assert.ThrowsAsync<IOException>(() => ReadAsync(driver, 3, 0));

        await driver.ResetAsync(Cancellation);
        Assert.Equal(0, await ReadAsync(driver, 1, Large - Page));
        await device.MapAsync(last, memory, 0);
    }

    [Fact]
    public async Task What_is_a_file_is_mapped_by_the_client()
    {
        FileSharedMemory memory = File(16 * Page, out MemoryMapping view);
        (RegionDevice device, VfioUserClient client) = await ServeAsync(
            new(1, 4 * Page) { Memory = memory, MemoryOffset = 2 * Page },
            new(2, 2 * Page) { Memory = memory, MemoryOffset = 6 * Page },
            new(3, 2 * Page),
            new(4, 2 * Page) { Memory = memory, MemoryOffset = 9 * Page });
        using RegionInfo info = await client.GetRegionInfoAsync(2, Cancellation);
        Assert.Equal([new BarArea(0, 6 * Page)], info.Areas);
        Assert.Equal((2 * Page, 16 * Page), (info.Offset, info.SizeBytes));

        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(client, cancellation: Cancellation);
        using (SharedMemory window = driver.OpenWindow(2)!)
        using (MemoryMapping mapping = window.Map(Page, Page))
        {
            Assert.Equal(2 * Page, window.SizeBytes);
            Assert.Throws<IOException>(() => window.Map(Page, Page + 1));
            mapping.Segment.Span[3] = 0x44;
            Assert.Equal(0x44, view.Segment.Span[(int)(7 * Page) + 3]);
            Assert.Equal(0x44, await ReadAsync(driver, 2, Page + 3));
            await driver.WriteWindowAsync(2, Page + 4, new byte[] { 0x55 }, Cancellation);
            Assert.Equal(0x55, mapping.Segment.Span[4]);
            await driver.ResetAsync(Cancellation);
            Assert.Equal(0x55, await ReadAsync(driver, 2, Page + 4));
        }

        // it lies elsewhere in the file than in the BAR: by messages only
        Assert.Throws<IOException>(() => driver.OpenWindow(4));
        Assert.Throws<IOException>(() => driver.OpenWindow(3));
        view.Segment.Span[(int)(9 * Page)] = 0x66;
        Assert.Equal(0x66, await ReadAsync(driver, 4, 0));
        await Assert.ThrowsAsync<IOException>(() => device.MapAsync(new SharedRegionPart(1, 0, Page), memory, 0));
        await device.MapAsync(new SharedRegionPart(3, 0, Page), memory, 9 * Page);
        Assert.Equal(0x66, await ReadAsync(driver, 3, 0));
    }

    [Fact]
    public async Task A_file_that_is_truncated_harms_nobody_else()
    {
        using FileSharedMemory memory = new(MemFd.CreateUnsealed("outboard-region", 2 * Page));
        (_, VfioUserClient client) = await ServeAsync(new SharedRegion(1, 2 * Page) { Memory = memory });
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(client, cancellation: Cancellation);
        MemFd.Resize(memory.Descriptor, 0);
        Assert.Equal(0, await ReadAsync(driver, 1, Page));
        using SharedMemory window = driver.OpenWindow(1)!;
        Assert.Throws<LinuxException>(() => window.Map(0, Page));
    }

    [Fact]
    public void Regions_that_cannot_be_are_refused()
    {
        FileSharedMemory memory = File(2 * Page, out _);
        SharedRegion[] bad =
        [
            new(1, 0), new(1, Page + 1), new(1, ulong.MaxValue - Page + 1), new(1, 3 * Page) { Memory = memory },
            new(1, Page) { Memory = memory, MemoryOffset = 2 * Page },
            new(1, Page) { Memory = memory, MemoryOffset = 1 },
        ];
        Assert.All(bad, region =>
            Assert.Throws<ArgumentException>(() => new VirtioPciFunction(new RegionDevice([region]))));
        SharedRegion[] many = [.. Enumerable.Range(1, 5).Select(id => new SharedRegion((byte)id, Page))];
        Assert.ThrowsAny<ArgumentException>(() => new VirtioPciFunction(new RegionDevice(many)));
    }

    /// <summary>There are 192 bytes for capabilities: what drivers can do without makes room.</summary>
    [Theory]
    [InlineData(0, true, true)]
    [InlineData(1, true, true)]
    [InlineData(2, true, false)]
    [InlineData(3, true, false)]
    [InlineData(4, true, false)]
    public async Task Capabilities_find_room(int regions, bool hasPower, bool isExpress)
    {
        (_, VfioUserClient client) = await ServeAsync(
            [.. Enumerable.Range(1, regions).Select(id => new SharedRegion((byte)id, Page))]);
        byte[] config = new byte[256];
        await client.ReadAsync(7, 0, config, Cancellation);
        List<byte> ids = [];
        for (int at = config[0x34]; at != 0; at = config[at + 1])
        {
            ids.Add(config[at]);
        }

        Assert.Equal((hasPower, isExpress), (ids.Contains(1), ids.Contains(0x10)));
        Assert.Equal(4 + regions, ids.Count(id => id == 9));
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(client, cancellation: Cancellation);
        Assert.Equal(regions, driver.Windows.Count);
    }

    private static async Task<byte> ReadAsync(VirtioPciDriver driver, byte region, ulong offset)
    {
        byte[] one = new byte[1];
        await driver.ReadWindowAsync(region, offset, one, Cancellation);
        return one[0];
    }

    private FileSharedMemory File(ulong bytes, out MemoryMapping view)
    {
        FileSharedMemory memory = new(MemFd.Create("outboard-region", bytes));
        _owned.Push(memory);
        view = memory.Map(0, bytes);
        _owned.Push(view);
        return memory;
    }

    private async Task<(RegionDevice Device, VfioUserClient Client)> ServeAsync(params SharedRegion[] regions)
    {
        RegionDevice device = new(regions);
        VirtioPciFunction function = new(device);
        _served.Push(function);
        ServedFunction served = new(function);
        _served.Push(served);
        VfioUserClient client = await VfioUserClient.ConnectAsync(served.Path, null, Cancellation);
        _served.Push(client);
        return (device, client);
    }

    private sealed class RegionDevice(IReadOnlyList<SharedRegion> regions)
        : VirtioDevice(VirtioDeviceId.Entropy, [64], new ConfigSpace(0))
    {
        public override IReadOnlyList<SharedRegion> SharedRegions => regions;

        public Task MapAsync(SharedRegionPart part, SharedMemory memory, ulong offset, bool writable = true) =>
            MapSharedAsync(part, memory, offset, writable);

        public Task UnmapAsync(SharedRegionPart part) => UnmapSharedAsync(part);

        public Task OfferAsync(SharedMemory page) => OfferDoorbellAsync(0, page);

        protected internal override uint HandleRequest(int queue, scoped in DescriptorChain chain) => 0;
    }
}
