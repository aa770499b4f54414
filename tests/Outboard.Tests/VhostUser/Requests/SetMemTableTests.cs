// SET_MEM_TABLE: all regions at once, a descriptor for each. With rings in it: MemoryChangeTests.
using System.Buffers.Binary;
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetMemTableTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetMemTable;

    protected override byte[] GoodPayload => Table(1);

    private const ulong Page = 4096;

    protected override int MaxDescriptors => 8;

    protected override bool IsSizeAllowed(int bytes) => bytes == 40;

    private protected override FileDescriptor[] GoodDescriptors() => [Rig.MemoryFile()];

    [Theory]
    [InlineData(0)]
    [InlineData(2)]
    [InlineData(9)]
    [InlineData(uint.MaxValue)]
    public Task Count_that_does_not_fit_the_size_is_refused(uint count)
    {
        byte[] table = Table(1);
        BinaryPrimitives.WriteUInt32LittleEndian(table, count);
        return ExpectRefusedAsync(table, GoodDescriptors());
    }

    [Fact]
    public Task Empty_table_is_refused() => ExpectRefusedAsync(Table(0));

    [Fact]
    public Task Nine_regions_are_refused() => ExpectRefusedAsync(Table(9), Files(8));

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(3)]
    [InlineData(8)]
    public Task Another_number_of_descriptors_is_refused(int descriptors) =>
        ExpectRefusedAsync(Table(2), Files(descriptors));

    [Fact]
    public async Task Overlap_in_guest_addresses_is_refused()
    {
        await ExpectRefusedAsync(Table(2, guestStep: 0), Files(2));
        await ExpectRefusedAsync(Table(2, guestStep: Page - 1), Files(2));
    }

    [Fact]
    public async Task Bad_region_behind_good_ones_is_refused_and_all_are_unmapped()
    {
        await ExpectRefusedAsync(Table(3), [Rig.MemoryFile(), Rig.MemoryFile(), Rig.Event().Descriptor]);
        await ExpectRefusedAsync(Table(3), [Rig.MemoryFile(), Rig.MemoryFile(), Rig.MemoryFile(1)]);
        byte[] empty = Table(2);
        BinaryPrimitives.WriteUInt64LittleEndian(empty.AsSpan(8 + 32 + 8), 0);
        await ExpectRefusedAsync(empty, Files(2));
    }

    [Fact]
    public async Task Refused_table_leaves_the_old_one_in_force()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        await ring.StartAsync(peer);
        OpenThings before = OpenThings.Count();
        await peer.RefusedAsync(Request, Table(2, guestStep: 0), Files(2));
        await (before with { Memories = before.Memories + 2 }).AssertNothingLeftAsync();
        await ring.RoundTripAsync();
    }

    [Fact]
    public async Task Eight_regions_are_mapped_and_replaced()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        FileDescriptor[] files = Files(8);
        OpenThings before = OpenThings.Count();
        for (int i = 0; i < 5; i++)
        {
            await peer.DoBytesAsync(Request, Table(8), files);
            Assert.Equal(before.Mappings + 8, OpenThings.Count().Mappings);
        }

        await peer.DoBytesAsync(Request, Table(1), files[0]);
        await (before with { Mappings = before.Mappings + 1 }).AssertNothingLeftAsync();
    }

    [Fact]
    public async Task Works_without_any_protocol_feature()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.SendAsync(Request, WirePeer.NoReply, GoodPayload, GoodDescriptors());
        await peer.ExpectServedAsync();
    }

    private static byte[] Table(int count, ulong guestStep = 1 << 20)
    {
        IEnumerable<byte> regions = Enumerable.Range(0, count).SelectMany(i => WirePeer.Bytes(
            new MemoryRegionPayload((ulong)i * guestStep, Page, 0x7f00_0000_0000 + ((ulong)i << 20), 0)));
        return [.. WirePeer.Bytes(new MemoryTablePayload((uint)count, 0)), .. regions];
    }

    private FileDescriptor[] Files(int count) => [.. Enumerable.Range(0, count).Select(_ => Rig.MemoryFile())];
}
