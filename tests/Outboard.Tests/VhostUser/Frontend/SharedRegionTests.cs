// Shared memory regions and doorbells from the driver's side: with our back-end, and against one that breaks the rules.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VhostUser.Frontend;

public sealed class SharedRegionTests : BackendTest
{
    private const ulong Page = 4096;
    private static readonly SharedRegionPart s_part = new(1, 2 * Page, 2 * Page);

    private ulong _memories;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task Driver_reads_and_writes_what_the_device_mapped()
    {
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync();
        Assert.Equal(FakeDevice.Regions, frontend.SharedRegions);
        await StartAsync(frontend);
        FileSharedMemory memory = Shared(4 * Page, out MemoryMapping view);
        view.Segment.Span[(int)Page] = 0x11;
        await Rig.Device.MapAsync(s_part, memory, Page);
        byte[] seen = new byte[(int)Page + 2];
        frontend.ReadShared(1, Page - 1 + Page, seen);
        Assert.Equal([0, 0x11, 0], (byte[])[seen[0], seen[1], seen[2]]);
        frontend.WriteShared(1, (2 * Page) + 5, [1, 2, 3]);
        Assert.Equal([1, 2, 3], view.Segment.Span.Slice((int)Page + 5, 3).ToArray());
        frontend.WriteShared(1, 0, [9]);
        frontend.WriteShared(200, 2 * Page, [9]);
        Assert.Equal(0x11, view.Segment.Span[(int)Page]);
        await Rig.Device.UnmapAsync(s_part);
        frontend.ReadShared(1, 2 * Page, seen);
        Assert.All(seen, value => Assert.Equal(0, value));
        await Rig.Device.MapAsync(s_part, memory, 0, writable: false);
        frontend.WriteShared(1, 2 * Page, [7]);
        Assert.Equal(0, view.Segment.Span[0]);
    }

    [Fact]
    public async Task Reset_drops_every_mapping_on_both_sides()
    {
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync();
        FileSharedMemory memory = Shared(4 * Page, out _);
        for (int round = 0; round < 3; round++)
        {
            await Assert.ThrowsAsync<IOException>(() => Rig.Device.MapAsync(s_part, memory));
            await StartAsync(frontend);
            await Rig.Device.MapAsync(s_part, memory);
            await Assert.ThrowsAsync<ArgumentException>(() => Rig.Device.MapAsync(s_part, memory));
            Assert.Equal(1, frontend.SharedMappingCount);
            await frontend.ResetDeviceAsync(Token);
            Assert.Equal(0, frontend.SharedMappingCount);
        }
    }

    [Fact]
    public async Task Doorbell_page_takes_the_place_of_kicks()
    {
        await using VhostUserFrontend frontend = await Rig.ConnectFrontendAsync();
        FileSharedMemory page = Shared(2 * Page, out MemoryMapping view);
        await StartAsync(frontend);
        await Rig.Device.OfferAsync(2, page, Page);
        DriverMemory memory = Rig.Memory(guestAddress: 0x7_0000_0000);
        await frontend.ShareMemoryAsync(memory, Token);
        using FrontendQueue queue = await frontend.StartQueueAsync(2, 16, memory, Token);
        queue.Kick.Take();
        Assert.True(queue.Ring.TryAdd([memory.Allocate(16)], [], 0));
        queue.Submit();
        Assert.Equal(2, view.Segment.Span[(int)Page]);
        await Rig.Device.OfferAsync(2, null);
        await Assert.ThrowsAsync<IOException>(() => Rig.Device.OfferAsync(3, page, Page));
        await Assert.ThrowsAsync<IOException>(() => Rig.Device.OfferAsync(1, page, 1));
        await Assert.ThrowsAsync<IOException>(() => Rig.Device.OfferAsync(1, page, 2 * Page));
        await frontend.StopQueueAsync(queue, Token);
    }

    [Fact]
    public async Task Mapping_that_breaks_a_rule_is_refused_and_nothing_stays_open()
    {
        await using ScriptedBackend backend = new();
        await backend.NegotiateAsync();
        FileDescriptor file = Rig.MemoryFile(4 * Page);
        await MapAsync(backend, new ShmemMapPayload(1, 0, Page, Page, 1), isServed: true, file);
        await MapAsync(backend, new ShmemMapPayload(1, 0, 3 * Page, Page, 0), isServed: true, file);
        ShmemMapPayload[] bad =
        [
            new(0, 0, 0, Page, 0), new(2, 0, 0, Page, 0), new(1, 0, Page, Page, 0), new(1, 0, 0, 4 * Page, 0),
            new(1, 0, 0, 0, 0), new(1, 0, 0, 1, 0), new(1, 0, 1, Page, 0), new(1, 1, 0, Page, 0),
            new(1, 0, 0x10000, Page, 0), new(1, 0, 0xF000, 2 * Page, 0), new(1, 0, ulong.MaxValue - Page + 1, Page, 0),
            new(1, 4 * Page, 0, Page, 0), new(1, ulong.MaxValue - Page + 1, 0, Page, 0), new(1, 0, 0, Page, 2),
            new(1, 0, 0, Page, ulong.MaxValue),
        ];
        foreach (ShmemMapPayload payload in bad)
        {
            await MapAsync(backend, payload, isServed: false, file);
        }

        await MapAsync(backend, new ShmemMapPayload(1, 0, 0, Page, 0), isServed: false);
        await MapAsync(backend, new ShmemMapPayload(1, 0, 0, Page, 0), isServed: false, file, file);
        await MapAsync(backend, new ShmemMapPayload(1, 0, 0, Page, 0), isServed: false, Rig.Event().Descriptor);
        Assert.Equal(2, backend.Frontend.SharedMappingCount);
    }

    [Fact]
    public async Task Unmapping_must_name_one_mapping_exactly()
    {
        await using ScriptedBackend backend = new();
        await backend.NegotiateAsync();
        ShmemMapPayload good = new(1, 0, Page, 2 * Page, 1);
        await MapAsync(backend, good, isServed: true, Rig.MemoryFile(4 * Page));
        ShmemMapPayload[] bad =
        [
            good with { Region = 0 }, good with { RegionOffset = 0 }, good with { RegionOffset = 2 * Page },
            good with { Length = Page }, good with { Length = 3 * Page }, good with { Length = 0 },
        ];
        foreach (ShmemMapPayload payload in bad)
        {
            await AskAsync(backend, BackendRequest.ShmemUnmap, WirePeer.Bytes(payload), isServed: false);
        }

        byte[] exact = WirePeer.Bytes(good with { FileOffset = 77, Flags = 9 });
        await AskAsync(backend, BackendRequest.ShmemUnmap, exact, isServed: true);
        await AskAsync(backend, BackendRequest.ShmemUnmap, exact, isServed: false);
    }

    [Fact]
    public void More_mappings_than_are_kept_are_refused()
    {
        SharedRegionMap map = new([new SharedRegion(0, (SharedRegionMap.MaxMappings + 1) * Page)]);
        for (ulong i = 0; i < SharedRegionMap.MaxMappings; i++)
        {
            Assert.Null(map.TryAdd(new SharedRegionPart(0, i * Page, Page)));
        }

        Assert.NotNull(map.TryAdd(new SharedRegionPart(0, SharedRegionMap.MaxMappings * Page, Page)));
    }

    [Theory]
    [InlineData(0x100UL, 4096UL, 0UL, 0, true)]
    [InlineData(0x000UL, 4096UL, 0UL, 1, true)]
    [InlineData(0x002UL, 4096UL, 4096UL, 1, true)]
    [InlineData(0x003UL, 4096UL, 0UL, 1, false)]
    [InlineData(0x000UL, 4095UL, 0UL, 1, false)]
    [InlineData(0x000UL, 8192UL, 0UL, 1, false)]
    [InlineData(0x000UL, 0UL, 0UL, 1, false)]
    [InlineData(0x000UL, 4096UL, 1UL, 1, false)]
    [InlineData(0x000UL, 4096UL, 16384UL, 1, false)]
    [InlineData(0x000UL, 4096UL, 0UL, 0, false)]
    [InlineData(0x100UL, 4096UL, 0UL, 1, false)]
    [InlineData(0x200UL, 4096UL, 0UL, 1, false)]
    public async Task Doorbell_is_checked(ulong value, ulong size, ulong offset, int descriptors, bool isServed)
    {
        await using ScriptedBackend backend = new();
        await backend.NegotiateAsync();
        FileDescriptor file = Rig.MemoryFile(4 * Page);
        await AskAsync(
            backend, BackendRequest.VringHostNotifierMsg, WirePeer.Bytes(new VringAreaPayload(value, size, offset)),
            isServed, [.. Enumerable.Repeat(file, descriptors)]);
    }

    [Fact]
    public async Task Configuration_that_contradicts_itself_ends_the_connection()
    {
        byte[][] bad =
        [
            ScriptedBackend.ShmemConfig((1, 0x1000))[..^8], ScriptedBackend.ShmemConfig((1, 0x1001)),
            ScriptedBackend.ShmemConfig((1, 0x1000), (2, 0)), [],
        ];
        foreach (byte[] reply in bad)
        {
            await using ScriptedBackend backend = new();
            await backend.NegotiateAsync(WirePeer.AllProtocolFeatures);
            Task asking = backend.Frontend.GetShmemConfigAsync(Token);
            await backend.ExpectAsync(FrontendRequest.GetShmemConfig);
            await backend.ReplyAsync(FrontendRequest.GetShmemConfig, reply);
            await Assert.ThrowsAsync<ProtocolException>(() => asking);
        }
    }

    private static Task MapAsync(
        ScriptedBackend backend, ShmemMapPayload payload, bool isServed, params FileDescriptor[] descriptors) =>
        AskAsync(backend, BackendRequest.ShmemMap, WirePeer.Bytes(payload), isServed, descriptors);

    private static async Task AskAsync(
        ScriptedBackend backend, BackendRequest request, byte[] payload, bool isServed,
        params FileDescriptor[] descriptors)
    {
        byte[] frame = WirePeer.Frame((uint)request, WirePeer.NeedReply, payload);
        await backend.BackendChannel!.SendAsync(frame, descriptors);
        WireMessage reply = await backend.BackendChannel.ReceiveAsync();
        Assert.Equal((uint)request, reply.Request);
        Assert.Equal(isServed, reply.Value == 0);
    }

    /// <summary>Has a ring run, without which a device is not to ask for anything.</summary>
    private async Task StartAsync(VhostUserFrontend frontend)
    {
        DriverMemory memory = Rig.Memory(guestAddress: ++_memories << 40);
        await frontend.ShareMemoryAsync(memory, Token);
        Rig.Own(await frontend.StartQueueAsync(0, 16, memory, Token));
    }

    private FileSharedMemory Shared(ulong sizeBytes, out MemoryMapping view)
    {
        FileSharedMemory memory = Rig.Own(new FileSharedMemory(MemFd.Create("outboard-part", sizeBytes)));
        view = Rig.Own(memory.Map(0, sizeBytes));
        return memory;
    }
}
