// What differs in the messages when packed rings were negotiated: any size, and a base of two halves.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class PackedRingTests : BackendTest
{
    private const ulong Packed = WirePeer.Features | VirtioFeatures.RingPacked;

    /// <summary>Index 0 with the wrap counter set, for both directions.</summary>
    private const uint Start = 0x8000_8000;

    [Fact]
    public async Task Size_is_any_up_to_the_limit()
    {
        (WirePeer peer, _) = await RawRing.ConnectAsync(Rig, features: Packed);
        foreach (uint num in (uint[])[1, 3, 12, 63, 64])
        {
            await peer.DoAsync(FrontendRequest.SetVringNum, new VringStatePayload(0, num));
        }

        foreach (uint num in (uint[])[0, 65, 32769, uint.MaxValue])
        {
            await peer.RefusedAsync(FrontendRequest.SetVringNum, WirePeer.Bytes(new VringStatePayload(0, num)));
        }
    }

    [Fact]
    public async Task Ring_that_never_ran_stands_at_the_start()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: Packed);
        Assert.Equal(Start, await ring.StopAsync(peer));
    }

    [Fact]
    public async Task Both_halves_of_the_base_are_told_back()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: Packed);
        await ring.BaseAsync(peer, 0x0005_8003);
        Assert.Equal(0x0005_8003U, await ring.StopAsync(peer));
    }

    [Theory]
    [InlineData(0x8000_8010U)]
    [InlineData(0x8010_8000U)]
    [InlineData(0x7FFF_7FFFU)]
    public async Task Base_outside_the_ring_is_refused_when_it_starts(uint index)
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: Packed);
        await ring.NumAsync(peer);
        await ring.BaseAsync(peer, index);
        await ring.AddrAsync(peer);
        byte[] payload = RawRing.NotifierPayload(0, hasDescriptor: true);
        await peer.RefusedAsync(FrontendRequest.SetVringKick, payload, ring.Kick.Descriptor);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
    }

    [Fact]
    public async Task Low_half_alone_is_the_start_of_both()
    {
        // DPDK sends 0x8000 for a fresh ring.
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: Packed);
        await ring.StartAsync(peer, 0x8000);
        for (byte i = 0; i < 3 * RawRing.Size; i++)
        {
            await ring.RoundTripAsync(i);
        }
    }

    [Fact]
    public async Task Restart_goes_on_where_it_stood_through_both_wraps()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: Packed);
        uint index = Start;
        for (int round = 0; round < 12; round++)
        {
            await ring.StartAsync(peer, index);
            for (byte i = 0; i < 5; i++)
            {
                await ring.RoundTripAsync(i);
            }

            index = await ring.StopAsync(peer);
            Assert.Equal(index >> 16, index & 0xFFFF);
        }
    }

    [Fact]
    public async Task Reset_goes_back_to_the_start()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig, features: Packed);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
        await peer.DoBytesAsync(FrontendRequest.ResetDevice, []);
        await peer.DoAsync(FrontendRequest.SetFeatures, Packed);
        Assert.Equal(Start, await ring.StopAsync(peer));
    }
}
