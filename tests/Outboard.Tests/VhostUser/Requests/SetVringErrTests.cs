// SET_VRING_ERR: an eventfd that tells of a broken ring. What breaks one is in RingFaultTests.
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetVringErrTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetVringErr;

    protected override byte[] GoodPayload => RawRing.NotifierPayload(0, hasDescriptor: true);

    protected override int MaxDescriptors => 1;

    private protected override FileDescriptor[] GoodDescriptors() => [Rig.Event().Descriptor];

    [Fact]
    public Task Missing_descriptor_is_refused() => ExpectRefusedAsync(GoodPayload);

    [Fact]
    public Task Descriptor_where_none_is_announced_is_refused() =>
        ExpectRefusedAsync(RawRing.NotifierPayload(0, hasDescriptor: false), Rig.Event().Descriptor);

    [Theory]
    [InlineData(3)]
    [InlineData(255)]
    public async Task Index_out_of_range_is_refused(int index)
    {
        await ExpectRefusedAsync(RawRing.NotifierPayload(index, hasDescriptor: true), Rig.Event().Descriptor);
        await ExpectRefusedAsync(RawRing.NotifierPayload(index, hasDescriptor: false));
    }

    [Fact]
    public Task Shared_memory_is_no_notifier() => ExpectRefusedAsync(GoodPayload, Rig.MemoryFile());

    [Fact]
    public Task Socket_is_no_notifier() => ExpectRefusedAsync(GoodPayload, Rig.SocketPair().Passed);

    [Fact]
    public async Task Repeated_and_withdrawn_it_leaves_nothing_behind()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        OpenThings before = OpenThings.Count();
        FileDescriptor descriptor = Rig.Event().Descriptor;
        for (int i = 0; i < 10; i++)
        {
            await peer.DoBytesAsync(Request, GoodPayload, descriptor);
        }

        await peer.DoBytesAsync(Request, RawRing.NotifierPayload(0, hasDescriptor: false));
        await (before with { Events = before.Events + 1 }).AssertNothingLeftAsync();
    }
}
