// SET_VRING_ADDR: user addresses, each aligned and in a memory region.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetVringAddrTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetVringAddr;

    protected override byte[] GoodPayload => WirePeer.Bytes(Addresses);

    private DriverMemory? _memory;

    private VringAddressPayload Addresses
    {
        get
        {
            ulong start = (_memory ??= Rig.Memory()).UserAddress;
            return new VringAddressPayload(0, 0, start, start + 8192, start + 4096, 0);
        }
    }

    private protected override async Task PrepareAsync(WirePeer peer)
    {
        _memory ??= Rig.Memory();
        await peer.NegotiateAsync();
        await RawRing.AddMemoryAsync(peer, _memory);
    }

    [Theory]
    [InlineData(3)]
    [InlineData(256)]
    [InlineData(uint.MaxValue)]
    public Task Index_out_of_range_is_refused(uint index) => RefusedAsync(good => good with { Index = index });

    [Theory]
    [InlineData(1)]
    [InlineData(8)]
    public Task Misaligned_descriptors_are_refused(ulong by) =>
        RefusedAsync(good => good with { Descriptor = good.Descriptor + by });

    [Fact]
    public Task Misaligned_available_ring_is_refused() =>
        RefusedAsync(good => good with { Available = good.Available + 1 });

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public Task Misaligned_used_ring_is_refused(ulong by) => RefusedAsync(good => good with { Used = good.Used + by });

    [Theory]
    [InlineData(0)]
    [InlineData(0x1000)]
    [InlineData(0xFFFF_FFFF_FFFF_FFF0)]
    public async Task Addresses_outside_memory_are_refused(ulong address)
    {
        await RefusedAsync(good => good with { Descriptor = address });
        await RefusedAsync(good => good with { Available = address });
        await RefusedAsync(good => good with { Used = address });
    }

    [Fact]
    public Task First_byte_behind_a_region_is_outside() =>
        RefusedAsync(good => good with { Used = _memory!.UserAddress + _memory.SizeBytes });

    [Fact]
    public async Task Guest_addresses_are_not_user_addresses()
    {
        _memory = Rig.Memory();
        await RefusedAsync(good => good with { Descriptor = _memory.GuestAddress });
    }

    [Fact]
    public async Task Before_any_memory_it_is_refused()
    {
        _memory = Rig.Memory();
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync();
        await peer.RefusedAsync(Request, GoodPayload);
    }

    [Fact]
    public async Task Running_ring_keeps_its_addresses()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        await ring.AddrAsync(peer);
        await peer.RefusedAsync(Request, WirePeer.Bytes(ring.Addresses with { Used = ring.Addresses.Descriptor }));
        await ring.RoundTripAsync();
    }

    [Fact]
    public async Task Log_address_without_logging_is_ignored()
    {
        // QEMU fills it always.
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.DoAsync(Request, Addresses with { Log = 0x1234 });
    }

    private async Task RefusedAsync(Func<VringAddressPayload, VringAddressPayload> change)
    {
        _memory ??= Rig.Memory();
        await ExpectRefusedAsync(WirePeer.Bytes(change(Addresses)));
    }
}
