// GET_SHARED_OBJECT: memory of an object that the device exports; no descriptor tells that there is none.
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GetSharedObjectTests : TalentedRequestTest
{
    private static readonly Guid s_name = new("01234567-89ab-cdef-0123-456789abcdef");

    protected override FrontendRequest Request => FrontendRequest.GetSharedObject;

    protected override ProtocolFeatures Gate => ProtocolFeatures.SharedObject;

    protected override bool HasOwnReply => true;

    protected override int ReplyDescriptors => 1;

    protected override byte[] GoodPayload => s_name.ToByteArray(bigEndian: true);

    protected override bool IsSizeAllowed(int bytes) => bytes is 0 or 16;

    private protected override async Task PrepareAsync(WirePeer peer)
    {
        await base.PrepareAsync(peer);
        Device.Objects[s_name] = 0x5A;
    }

    [Fact]
    public async Task Object_comes_as_memory_with_an_empty_payload()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.SendAsync(Request, WirePeer.NoReply, GoodPayload);
        WireMessage reply = await peer.ReplyWithAsync(Request, descriptors: 1);
        Assert.Empty(reply.Payload);
        using FileSharedMemory memory = new(reply.Descriptors[0]);
        Assert.Equal(0x5A, TalentedDevice.FirstByte(memory));
    }

    [Fact]
    public async Task Unknown_object_has_no_descriptor()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.SendAsync(Request, WirePeer.NoReply, new byte[16]);
        Assert.Empty((await peer.ReplyWithAsync(Request, descriptors: 0)).Payload);
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task Name_that_qemu_forgets_is_no_object_and_the_stream_stays_in_step()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        await peer.SendAsync(Request, WirePeer.NoReply, []);
        Assert.Empty((await peer.ReplyWithAsync(Request, descriptors: 0)).Payload);
        await peer.ExpectServedAsync();
    }
}
