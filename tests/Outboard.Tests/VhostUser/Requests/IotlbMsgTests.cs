// IOTLB_MSG: a translation that is told or withdrawn; always answered by a number.
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class IotlbMsgTests : RequestTest
{
    private const ulong User = 0x7f00_0000_0000;
    private const ulong Size = 0x4000;

    protected override FrontendRequest Request => FrontendRequest.IotlbMsg;

    protected override bool HasOwnReply => true;

    protected override byte[] GoodPayload => WirePeer.Bytes(Update());

    private protected override async Task PrepareAsync(WirePeer peer)
    {
        await peer.NegotiateAsync(features: WirePeer.Features | VirtioFeatures.AccessPlatform);
        SingleMemoryRegionPayload region = new(0, new MemoryRegionPayload(0x100000, Size, User, 0));
        await peer.DoAsync(FrontendRequest.AddMemReg, region, Rig.MemoryFile(Size));
    }

    [Fact]
    public async Task Feature_is_offered_and_may_be_withheld()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        ulong offered = await peer.AskValueAsync(FrontendRequest.GetFeatures);
        Assert.NotEqual(0UL, offered & VirtioFeatures.AccessPlatform);
        await using BackendRig other = new(
            options => options with { WithheldFeatures = VirtioFeatures.AccessPlatform });
        using WirePeer second = await other.ConnectAsync();
        offered = await second.AskValueAsync(FrontendRequest.GetFeatures);
        Assert.Equal(0UL, offered & VirtioFeatures.AccessPlatform);
    }

    [Theory]
    [InlineData(ProtocolFeatures.ReplyAck)]
    [InlineData(ProtocolFeatures.BackendReq)]
    public async Task Feature_is_not_offered_without_a_way_to_ask(ProtocolFeatures withheld)
    {
        await using BackendRig rig = new(options => options with { WithheldProtocolFeatures = withheld });
        using WirePeer peer = await rig.ConnectAsync();
        ulong offered = await peer.AskValueAsync(FrontendRequest.GetFeatures);
        Assert.Equal(0UL, offered & VirtioFeatures.AccessPlatform);
    }

    [Fact]
    public async Task Without_the_feature_every_message_is_refused()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync();
        Assert.NotEqual(0UL, await AskAsync(peer, Update()));
        Assert.NotEqual(0UL, await AskAsync(peer, Update() with { Type = IotlbMessageType.Invalidate }));
    }

    [Theory]
    [InlineData(0x1000UL, 0UL, User)]
    [InlineData(ulong.MaxValue, 2UL, User)]
    [InlineData(0xFFFF_FFFF_FFFF_F000UL, 0x1001UL, User)]
    [InlineData(0x1000UL, Size + 1, User)]
    [InlineData(0x1000UL, 0x1000UL, User - 1)]
    [InlineData(0x1000UL, 0x1000UL, User + Size - 1)]
    [InlineData(0x1000UL, ulong.MaxValue, User)]
    [InlineData(0x1000UL, 1UL, 0UL)]
    [InlineData(0x1000UL, 0x1000UL, ulong.MaxValue)]
    public Task Update_of_what_cannot_be_is_refused(ulong iova, ulong size, ulong user) =>
        ExpectAnswerAsync(Update() with { Iova = iova, SizeBytes = size, UserAddress = user }, isDone: false);

    [Theory]
    [InlineData(0)]
    [InlineData(4)]
    [InlineData(255)]
    public Task Permission_that_is_none_is_refused(byte permission) =>
        ExpectAnswerAsync(Update() with { Permission = permission }, isDone: false);

    [Theory]
    [InlineData(0)]
    [InlineData(1)]
    [InlineData(4)]
    [InlineData(5)]
    [InlineData(255)]
    public Task Type_that_is_no_front_ends_is_refused(byte type) =>
        ExpectAnswerAsync(Update() with { Type = (IotlbMessageType)type }, isDone: false);

    [Theory]
    [InlineData(0UL, 0UL)]
    [InlineData(0x1000UL, 1UL)]
    [InlineData(0x1000UL, 0x4000UL)]
    [InlineData(ulong.MaxValue, ulong.MaxValue)]
    public Task Any_range_may_be_withdrawn(ulong iova, ulong size) => ExpectAnswerAsync(
        new IotlbPayload(iova, size, 0, 0, IotlbMessageType.Invalidate), isDone: true);

    [Fact]
    public async Task Overlapping_repeated_and_unasked_updates_are_taken()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        for (int i = 0; i < 3; i++)
        {
            Assert.Equal(0UL, await AskAsync(peer, Update()));
            Assert.Equal(0UL, await AskAsync(peer, Update() with { Iova = 0x1800 }));
            Assert.Equal(0UL, await AskAsync(peer, Update() with { Iova = ulong.MaxValue - 0xFFF }));
        }
    }

    [Fact]
    public async Task Pipelined_messages_are_answered_in_their_order()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        for (uint i = 0; i < 600; i++)
        {
            IotlbPayload payload = Update() with { Iova = i * 0x1000UL, Permission = (byte)(i % 2 * 3) };
            await peer.SendAsync(Request, WirePeer.NeedReply, WirePeer.Bytes(payload));
        }

        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        for (uint i = 0; i < 600; i++)
        {
            Assert.Equal(i % 2 == 0 ? 1UL : 0, BitConverter.ToUInt64(await peer.ReplyAsync(Request)));
        }

        await peer.ReplyAsync(FrontendRequest.GetFeatures);
    }

    [Fact]
    public async Task Refused_request_behind_a_withdrawal_that_waits_is_answered_behind_it()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        IotlbPayload withdrawal = new(0, 0, 0, 0, IotlbMessageType.Invalidate);
        await peer.SendAsync(Request, WirePeer.NeedReply, WirePeer.Bytes(withdrawal));
        await peer.SendAsync(FrontendRequest.SetVringNum, WirePeer.NeedReply, WirePeer.Bytes(0UL));
        Assert.Equal(WirePeer.Bytes(0UL), await peer.ReplyAsync(Request));
        Assert.NotEqual(WirePeer.Bytes(0UL), await peer.ReplyAsync(FrontendRequest.SetVringNum));
    }

    private static IotlbPayload Update() => new(0x1000, 0x1000, User, 3, IotlbMessageType.Update);

    private async Task<ulong> AskAsync(WirePeer peer, IotlbPayload payload) =>
        BitConverter.ToUInt64(await peer.AskAsync(Request, WirePeer.Bytes(payload), WirePeer.NoReply));

    private async Task ExpectAnswerAsync(IotlbPayload payload, bool isDone)
    {
        using WirePeer peer = await ConnectPreparedAsync();
        Assert.Equal(isDone, await AskAsync(peer, payload) == 0);
        await peer.ExpectServedAsync();
    }
}
