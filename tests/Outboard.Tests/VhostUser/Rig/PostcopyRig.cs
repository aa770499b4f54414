// The beginning of a post-copy over a raw connection.
using Outboard.Linux.Memory;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VhostUser;

internal static class PostcopyRig
{
    /// <summary>POSTCOPY_ADVISE, and the faults that it opens.</summary>
    public static async Task<UserFaults> AdviseAsync(WirePeer peer)
    {
        await peer.SendAsync(FrontendRequest.PostcopyAdvise, WirePeer.NoReply, []);
        WireMessage reply = await peer.ReceiveAsync();
        Assert.True(
            reply.Descriptors.Length == 1,
            "userfaultfd is not permitted: run as root, or set vm.unprivileged_userfaultfd=1");
        Assert.Empty(reply.Payload);
        return new UserFaults(reply.Descriptors[0]);
    }

    /// <summary>ADVISE and LISTEN.</summary>
    public static async Task<UserFaults> ListenAsync(WirePeer peer)
    {
        UserFaults faults = await AdviseAsync(peer);
        Assert.Equal(0UL, await peer.AskValueAsync(FrontendRequest.PostcopyListen));
        return faults;
    }

    /// <summary>ADD_MEM_REG up to its reply.</summary>
    /// <returns>The memory's address in the back-end.</returns>
    public static async Task<ulong> OfferAsync(WirePeer peer, DriverMemory memory)
    {
        SingleMemoryRegionPayload sent = RawRing.Describe(memory);
        byte[] reply = await peer.AskAsync(
            FrontendRequest.AddMemReg, WirePeer.Bytes(sent), WirePeer.NoReply, memory.File.Descriptor);
        Assert.Equal(WirePeer.Bytes(sent).Length, reply.Length);
        ulong address = BitConverter.ToUInt64(reply, 8 + 16);
        byte[] expected = WirePeer.Bytes(sent with { Region = sent.Region with { UserAddress = address } });
        Assert.Equal(expected, reply);
        return address;
    }
}
