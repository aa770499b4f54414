// SET_LOG_FD: who is told that pages were marked.
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetLogFdTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetLogFd;

    protected override int MaxDescriptors => 1;

    protected override byte[] GoodPayload => [];

    private protected override FileDescriptor[] GoodDescriptors() => [Rig.Event().Descriptor];

    [Fact]
    public Task Missing_descriptor_is_refused() => ExpectRefusedAsync(GoodPayload);

    [Fact]
    public async Task Memory_and_socket_are_no_notifiers()
    {
        await ExpectRefusedAsync(GoodPayload, Rig.MemoryFile());
        await ExpectRefusedAsync(GoodPayload, Rig.SocketPair().Passed);
    }

    [Fact]
    public async Task Later_one_replaces_the_earlier_one_which_is_closed()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        FileDescriptor descriptor = GoodDescriptors()[0];
        OpenThings before = OpenThings.Count();
        for (int i = 0; i < 10; i++)
        {
            await peer.DoBytesAsync(Request, [], descriptor);
        }

        await (before with { Events = before.Events + 1 }).AssertNothingLeftAsync();
    }
}
