// SET_LOG_BASE: the bitmap of a migration; it is answered always, so a refusal is the end of the connection.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetLogBaseTests : RequestTest
{
    private const ulong Bytes = 1 << 18;

    protected override FrontendRequest Request => FrontendRequest.SetLogBase;

    protected override ProtocolFeatures Gate => ProtocolFeatures.LogShmFd;

    protected override int MaxDescriptors => 1;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => WirePeer.Bytes(new LogPayload(Bytes, 0));

    private protected override FileDescriptor[] GoodDescriptors() => [Rig.MemoryFile(Bytes + 4096)];

    [Fact]
    public Task Missing_descriptor_is_refused() => ExpectRefusedAsync(GoodPayload);

    [Theory]
    [InlineData(0, 0)]
    [InlineData(Bytes + 4097, 0)]
    [InlineData(ulong.MaxValue, 0)]
    [InlineData(1UL << 63, 0)]
    [InlineData(Bytes, 8192)]
    [InlineData(Bytes, ulong.MaxValue - 7)]
    [InlineData(ulong.MaxValue - 4095, 4096)]
    public Task Area_that_is_empty_or_leaves_the_file_is_refused(ulong bytes, ulong offset) =>
        ExpectRefusedAsync(WirePeer.Bytes(new LogPayload(bytes, offset)), GoodDescriptors());

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    public Task Misaligned_area_is_refused(ulong offset) =>
        ExpectRefusedAsync(WirePeer.Bytes(new LogPayload(4096, offset)), GoodDescriptors());

    [Fact]
    public async Task Eventfd_and_socket_are_no_memory()
    {
        await ExpectRefusedAsync(GoodPayload, Rig.Event().Descriptor);
        await ExpectRefusedAsync(GoodPayload, Rig.SocketPair().Passed);
    }

    [Theory]
    [InlineData(0, true)]
    [InlineData(8, true)]
    [InlineData(4096, true)]
    public async Task Area_at_any_aligned_offset_is_taken(ulong offset, bool asks)
    {
        using WirePeer peer = await ConnectPreparedAsync();
        byte[] payload = WirePeer.Bytes(new LogPayload(4096, offset));
        uint flags = asks ? WirePeer.NeedReply : WirePeer.NoReply;
        Assert.Equal(WirePeer.Bytes(0UL), await peer.AskAsync(Request, payload, flags, GoodDescriptors()));
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task Log_that_ends_before_guest_memory_is_refused_and_the_need_is_told()
    {
        DriverMemory memory = Rig.Memory(sizeBytes: 1 << 16, guestAddress: 0x1_0000_0000);
        using WirePeer peer = await ConnectPreparedAsync();
        await RawRing.AddMemoryAsync(peer, memory);
        const ulong needed = (0x1_0001_0000 / 4096 / 8) + 6;
        await peer.AskAsync(Request, WirePeer.Bytes(new LogPayload(needed, 0)), WirePeer.NeedReply, GoodDescriptors());
        await peer.SendAsync(
            Request, WirePeer.NeedReply, WirePeer.Bytes(new LogPayload(0x1_0000_F000 / 4096 / 8, 0)),
            GoodDescriptors());
        await peer.ExpectClosedAsync();
        Assert.Contains(Rig.Log.Warnings, line => line.Contains("bytes are needed", StringComparison.Ordinal));
        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task Later_log_replaces_the_earlier_one_which_is_unmapped()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        FileDescriptor file = GoodDescriptors()[0];
        OpenThings before = OpenThings.Count();
        for (int i = 0; i < 10; i++)
        {
            await peer.AskAsync(Request, GoodPayload, WirePeer.NoReply, file);
        }

        await (before with { Mappings = before.Mappings + 1 }).AssertNothingLeftAsync();
    }

    [Fact]
    public async Task File_that_is_truncated_later_costs_marks_and_nothing_else()
    {
        (WirePeer peer, RawRing ring) = await RawRing.ConnectAsync(Rig);
        FileDescriptor file = Rig.Own(MemFd.CreateUnsealed("outboard-test", Bytes));
        await peer.AskAsync(Request, GoodPayload, WirePeer.NoReply, file);
        await peer.DoAsync(FrontendRequest.SetFeatures, WirePeer.Features | VirtioFeatures.LogAll);
        MemFd.Resize(file, 0);
        await ring.StartAsync(peer);
        await ring.RoundTripAsync();
        await peer.ExpectServedAsync();
    }
}
