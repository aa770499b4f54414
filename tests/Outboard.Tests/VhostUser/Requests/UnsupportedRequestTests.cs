// Numbers that are no requests: refused in step, and the connection lives when it can.
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class UnsupportedRequestTests : BackendTest
{
    public static TheoryData<uint> Unknown => [0, 46, 1000, 1007, 0x80000000, uint.MaxValue];

    [Theory]
    [MemberData(nameof(Unknown))]
    public async Task Is_refused_when_it_asks(uint request)
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync();
        foreach (int size in (int[])[0, 8, 4096])
        {
            await peer.RefusedAsync((FrontendRequest)request, new byte[size]);
            await peer.RefusedAsync((FrontendRequest)request, new byte[size], Rig.Event().Descriptor, Rig.MemoryFile());
        }

        await peer.ExpectServedAsync();
    }

    [Theory]
    [MemberData(nameof(Unknown))]
    public async Task Closes_the_connection_when_it_does_not_ask(uint request)
    {
        using (WirePeer peer = await Rig.ConnectAsync())
        {
            await peer.NegotiateAsync();
            await peer.SendAsync(WirePeer.Frame(request, WirePeer.NoReply, new byte[8]), Rig.Event().Descriptor);
            await peer.ExpectClosedAsync();
        }

        await Rig.ExpectServesNextAsync();
    }

    [Theory]
    [MemberData(nameof(Unknown))]
    public async Task Closes_the_connection_when_acknowledgements_were_not_negotiated(uint request)
    {
        using (WirePeer peer = await Rig.ConnectAsync())
        {
            await peer.SendAsync(WirePeer.Frame(request, WirePeer.NeedReply, []));
            await peer.ExpectClosedAsync();
        }

        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task A_malformed_request_is_answered_by_the_reply_that_tells_a_failure_where_there_is_one()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        foreach (RequestRow row in RequestTable.FrontendRows.Where(row => row.HasOwnReply))
        {
            FrontendRequest request = (FrontendRequest)row.Id;
            if (FailureReplies.Of(request) is { } failure)
            {
                await peer.SendAsync(request, WirePeer.NoReply, new byte[5], Rig.Event().Descriptor);
                Assert.Equal(failure, await peer.ReplyAsync(request));
            }
        }

        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task Every_refusal_says_in_the_log_what_was_wrong()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync();
        await peer.RefusedAsync(FrontendRequest.GpuSetSocket, []);
        await peer.RefusedAsync((FrontendRequest)1000, []);
        Assert.Contains(Rig.Log.Warnings, line => line.Contains("GPU_SET_SOCKET", StringComparison.Ordinal));
        Assert.Contains(Rig.Log.Warnings, line => line.Contains("1000", StringComparison.Ordinal));
    }
}
