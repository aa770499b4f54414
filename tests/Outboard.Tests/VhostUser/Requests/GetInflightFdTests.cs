// GET_INFLIGHT_FD: a fresh region for requests in flight; size 0 and no descriptor is the error.
using System.Buffers.Binary;
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class GetInflightFdTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.GetInflightFd;

    protected override ProtocolFeatures Gate => ProtocolFeatures.InflightShmFd;

    protected override bool HasOwnReply => true;

    protected override int ReplyDescriptors => 1;

    protected override byte[] GoodPayload => Wish(3, 64);

    [Theory]
    [InlineData(0, 64)]
    [InlineData(4, 64)]
    [InlineData(0xFFFF, 64)]
    [InlineData(3, 0)]
    [InlineData(3, 0x8001)]
    [InlineData(3, 0xFFFF)]
    public async Task Impossible_wish_is_answered_with_size_zero_and_no_descriptor(int queues, int size)
    {
        using WirePeer peer = await ConnectPreparedAsync();
        byte[] reply = await peer.AskAsync(Request, Wish(queues, size), WirePeer.NoReply);
        Assert.Equal(24, reply.Length);
        Assert.Equal(0UL, BinaryPrimitives.ReadUInt64LittleEndian(reply));
        await peer.ExpectServedAsync();
    }

    [Theory]
    [InlineData(WirePeer.Features, 1, 128, 2112)]
    [InlineData(WirePeer.Features, 3, 64, 3 * 1088)]
    [InlineData(WirePeer.Features, 1, 1, 64)]
    [InlineData(WirePeer.Features | VirtioFeatures.RingPacked, 2, 128, 2 * 4160)]
    public async Task Region_is_zero_sealed_and_as_large_as_needed(
        ulong features, int queues, int size, ulong bytes)
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync(features: features);
        await peer.SendAsync(Request, WirePeer.NoReply, Wish(queues, size));
        WireMessage reply = await peer.ReplyWithAsync(Request, descriptors: 1);
        using FileDescriptor file = reply.Descriptors[0];
        Assert.Equal(WirePeer.Bytes(new InflightPayload(bytes, 0, (ushort)queues, (ushort)size, 0)), reply.Payload);
        Assert.True(MemFd.IsSealedAgainstShrinking(file));
        Assert.Equal(bytes, file.FileSizeBytes);
        using MemoryMapping mapping = MemoryMapping.Map(file, 0, bytes);
        Assert.All(mapping.Segment.Span.ToArray(), value => Assert.Equal(0, value));
    }

    [Fact]
    public async Task Every_request_makes_another_region()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        OpenThings before = OpenThings.Count();
        for (int i = 0; i < 20; i++)
        {
            await peer.SendAsync(Request, WirePeer.NoReply, GoodPayload);
            (await peer.ReplyWithAsync(Request, descriptors: 1)).Descriptors[0].Dispose();
        }

        await before.AssertNothingLeftAsync();
    }

    private static byte[] Wish(int queues, int size) =>
        WirePeer.Bytes(new InflightPayload(0, 0, (ushort)queues, (ushort)size, 0));
}
