// SET_VRING_NUM: a power of two, up to the queue's largest size.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetVringNumTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetVringNum;

    protected override byte[] GoodPayload => State(0, 16);

    [Theory]
    [InlineData(0)]
    [InlineData(3)]
    [InlineData(63)]
    [InlineData(128)]
    [InlineData(32768)]
    [InlineData(65536)]
    [InlineData(0x80000000)]
    [InlineData(uint.MaxValue)]
    public Task Sizes_that_are_no_power_of_two_or_too_large_are_refused(uint num) => ExpectRefusedAsync(State(0, num));

    [Fact]
    public Task Larger_than_this_very_queue_is_refused() =>
        ExpectRefusedAsync(State(2, FakeDevice.SmallestQueueSize * 2));

    [Theory]
    [InlineData(3)]
    [InlineData(256)]
    [InlineData(0x80000000)]
    [InlineData(uint.MaxValue)]
    public Task Index_out_of_range_is_refused(uint index) => ExpectRefusedAsync(State(index, 16));

    [Fact]
    public async Task Running_ring_is_refused_until_it_is_stopped()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await peer.RefusedAsync(Request, State(0, 8));
        await ring.RoundTripAsync();
        await ring.StopAsync(peer);
        await peer.DoBytesAsync(Request, State(0, 8));
    }

    [Fact]
    public async Task Every_power_of_two_up_to_the_limit_is_taken_and_the_last_one_counts()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        for (uint num = 1; num <= 64; num *= 2)
        {
            await peer.DoBytesAsync(Request, State(0, num));
        }

        await ring.StartAsync(peer);
        for (int i = 0; i < 3 * RawRing.Size; i++)
        {
            await ring.RoundTripAsync((byte)i);
        }
    }

    private static byte[] State(uint index, uint num) => WirePeer.Bytes(new VringStatePayload(index, num));
}
