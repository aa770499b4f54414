// SET_INFLIGHT_FD: the region comes back, from this process or from one before it; nothing in it is trusted.
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetInflightFdTests : RequestTest
{
    private const ulong QueueBytes = 1088;

    protected override FrontendRequest Request => FrontendRequest.SetInflightFd;

    protected override ProtocolFeatures Gate => ProtocolFeatures.InflightShmFd;

    protected override int MaxDescriptors => 1;

    protected override byte[] GoodPayload => Region();

    private protected override FileDescriptor[] GoodDescriptors() => [Rig.MemoryFile(4 * QueueBytes)];

    [Fact]
    public Task Missing_descriptor_is_refused() => ExpectRefusedAsync(GoodPayload);

    [Theory]
    [InlineData(0, 64)]
    [InlineData(4, 64)]
    [InlineData(0xFFFF, 64)]
    [InlineData(3, 0)]
    [InlineData(3, 0x8001)]
    public Task Impossible_queues_are_refused(int queues, int size) =>
        ExpectRefusedAsync(Region(queues: queues, size: size), GoodDescriptors());

    [Theory]
    [InlineData(0)]
    [InlineData(8)]
    [InlineData((3 * QueueBytes) - 1)]
    [InlineData((3 * QueueBytes) + 3)]
    [InlineData(ulong.MaxValue)]
    [InlineData(1UL << 63)]
    public Task Size_that_does_not_fit_the_queues_or_the_file_is_refused(ulong bytes) =>
        ExpectRefusedAsync(Region(bytes: bytes), GoodDescriptors());

    [Theory]
    [InlineData(1)]
    [InlineData(2 * QueueBytes)]
    [InlineData(ulong.MaxValue - 7)]
    public Task Offset_that_is_odd_or_leaves_the_file_is_refused(ulong offset) =>
        ExpectRefusedAsync(Region(offset: offset), GoodDescriptors());

    [Fact]
    public Task Region_of_gigabytes_is_refused()
    {
        const ulong bytes = 3UL * 0x7FFF_FFF8;
        return ExpectRefusedAsync(Region(bytes: bytes), Rig.MemoryFile(bytes));
    }

    [Fact]
    public async Task Eventfd_and_socket_are_no_memory()
    {
        await ExpectRefusedAsync(GoodPayload, Rig.Event().Descriptor);
        await ExpectRefusedAsync(GoodPayload, Rig.SocketPair().Passed);
    }

    [Fact]
    public async Task Running_ring_is_refused()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await peer.RefusedAsync(Request, GoodPayload, GoodDescriptors());
        await ring.RoundTripAsync();
        await ring.StopAsync(peer);
        await peer.DoBytesAsync(Request, GoodPayload, GoodDescriptors());
    }

    [Fact]
    public async Task Later_region_replaces_the_earlier_one_which_is_unmapped()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        FileDescriptor file = GoodDescriptors()[0];
        OpenThings before = OpenThings.Count();
        for (int i = 0; i < 10; i++)
        {
            await peer.DoBytesAsync(Request, GoodPayload, file);
        }

        await (before with { Mappings = before.Mappings + 1 }).AssertNothingLeftAsync();
        await peer.DoBytesAsync(FrontendRequest.ResetDevice, []);
        await before.AssertNothingLeftAsync();
    }

    [Fact]
    public async Task Ring_larger_than_the_regions_queues_is_refused_when_it_starts()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        FileDescriptor file = Rig.MemoryFile(3 * 64);
        await peer.DoBytesAsync(Request, Region(bytes: 3 * 64, size: 2), file);
        await ring.NumAsync(peer);
        await ring.AddrAsync(peer);
        byte[] kick = RawRing.NotifierPayload(0, hasDescriptor: true);
        await peer.RefusedAsync(FrontendRequest.SetVringKick, kick, ring.Kick.Descriptor);
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task Ring_that_is_recorded_is_served_and_goes_on_at_the_next_connection()
    {
        FileDescriptor file = GoodDescriptors()[0];
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await peer.DoBytesAsync(Request, GoodPayload, file);
        await ring.StartAsync(peer);
        for (byte i = 0; i < 3 * RawRing.Size; i++)
        {
            await ring.RoundTripAsync(i);
        }

        uint index = await ring.StopAsync(peer);
        peer.Dispose();
        using WirePeer next = await ConnectPreparedAsync();
        await next.DoBytesAsync(Request, GoodPayload, file);
        await RawRing.AddMemoryAsync(next, ring.Memory);
        await ring.StartAsync(next, index);
        await ring.RoundTripAsync();
        Assert.Equal((3 * RawRing.Size) + 1, Rig.Device.Handled);
    }

    [Fact]
    public async Task Ring_that_is_taken_over_calls_its_driver_who_may_wait_for_a_call_that_was_never_made()
    {
        FileDescriptor file = GoodDescriptors()[0];
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await peer.DoBytesAsync(Request, GoodPayload, file);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
        uint index = await ring.StopAsync(peer);
        peer.Dispose();
        using WirePeer next = await ConnectPreparedAsync();
        await next.DoBytesAsync(Request, GoodPayload, file);
        await RawRing.AddMemoryAsync(next, ring.Memory);
        ring.Call.Take();
        await ring.StartAsync(next, index);
        Assert.NotEqual(0UL, ring.Call.Wait(20_000));
    }

    private static byte[] Region(ulong bytes = 3 * QueueBytes, ulong offset = 0, int queues = 3, int size = 64) =>
        WirePeer.Bytes(new InflightPayload(bytes, offset, (ushort)queues, (ushort)size, 0));
}
