// A device's questions to the directory of shared objects: what goes over the back-end's channel, and what becomes of
// questions that are refused, not answered, or cannot be asked.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Xunit;

namespace Outboard.Tests.VhostUser.Backend;

public sealed class SharedObjectChannelTests : BackendTest
{
    private static readonly Guid s_name = new("01234567-89ab-cdef-0123-456789abcdef");

    private TalentedDevice Device => (TalentedDevice)Rig.Device;

    private ISharedObjectDirectory Directory => Device.Directory!;

    private protected override FakeDevice CreateDevice() => new TalentedDevice();

    [Fact]
    public async Task Names_go_with_the_first_components_big_endian()
    {
        WirePeer channel = await ConnectAsync();
        Task<bool> adding = Directory.AddAsync(s_name);
        WireMessage message = await channel.ReceiveAsync();
        Assert.Equal((uint)BackendRequest.SharedObjectAdd, message.Request);
        Assert.Equal(WirePeer.NeedReply, message.Flags);
        Assert.Equal("0123456789abcdef0123456789abcdef", Convert.ToHexStringLower(message.Payload));
        await ReplyAsync(channel, message, 0);
        Assert.True(await adding);
    }

    [Theory]
    [InlineData(0UL, true)]
    [InlineData(1UL, false)]
    [InlineData(ulong.MaxValue, false)]
    public async Task Refusals_are_told(ulong status, bool isDone)
    {
        WirePeer channel = await ConnectAsync();
        Task<bool> removing = Directory.RemoveAsync(s_name);
        WireMessage message = await channel.ReceiveAsync();
        Assert.Equal((uint)BackendRequest.SharedObjectRemove, message.Request);
        await ReplyAsync(channel, message, status);
        Assert.Equal(isDone, await removing);
    }

    [Fact]
    public async Task Object_is_found_with_its_memory()
    {
        WirePeer channel = await ConnectAsync();
        Task<SharedMemory?> asking = Directory.LookUpAsync(s_name);
        WireMessage message = await channel.ReceiveAsync();
        Assert.Equal((uint)BackendRequest.SharedObjectLookup, message.Request);
        using FileSharedMemory memory = (FileSharedMemory)TalentedDevice.MemoryWith(0x77);
        await ReplyAsync(channel, message, 0, memory.Descriptor);
        using SharedMemory found = (await asking)!;
        Assert.Equal(0x77, TalentedDevice.FirstByte(found));
    }

    [Theory]
    [InlineData(1UL, 1)]
    [InlineData(0UL, 0)]
    [InlineData(0UL, 2)]
    public async Task Answer_that_is_no_object_finds_nothing(ulong status, int descriptors)
    {
        WirePeer channel = await ConnectAsync();
        Task<SharedMemory?> asking = Directory.LookUpAsync(s_name);
        WireMessage message = await channel.ReceiveAsync();
        await ReplyAsync(channel, message, status, [.. Enumerable.Repeat(Rig.MemoryFile(), descriptors)]);
        Assert.Null(await asking);
    }

    [Fact]
    public async Task Channel_that_ends_answers_every_question_with_nothing()
    {
        WirePeer channel = await ConnectAsync();
        Task<SharedMemory?> asking = Directory.LookUpAsync(s_name);
        Task<bool> adding = Directory.AddAsync(s_name);
        await channel.ReceiveAsync();
        channel.Shutdown();
        Assert.Null(await asking.WaitAsync(Eventually.Limit, TestContext.Current.CancellationToken));
        Assert.False(await adding.WaitAsync(Eventually.Limit, TestContext.Current.CancellationToken));
        Assert.False(await Directory.RemoveAsync(s_name));
    }

    [Fact]
    public async Task Directory_goes_with_the_connection()
    {
        await ConnectAsync();
        Assert.NotNull(Device.Directory);
        Rig.Own(await Rig.ConnectAsync());
        _peer!.Dispose();
        await Eventually.TrueAsync(() => Device.Directory is null, "no directory");
    }

    [Fact]
    public async Task Without_the_feature_there_is_no_directory()
    {
        WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync();
        await peer.DoBytesAsync(FrontendRequest.SetBackendReqFd, [], Rig.SocketPair().Passed);
        Assert.Null(Device.Directory);
    }

    private WirePeer? _peer;

    private static Task ReplyAsync(WirePeer channel, WireMessage asked, ulong status, params FileDescriptor[] with) =>
        channel.SendAsync(WirePeer.Frame(asked.Request, WirePeer.ReplyFlags, WirePeer.Bytes(status)), with);

    private async Task<WirePeer> ConnectAsync()
    {
        _peer = await Rig.ConnectAsync();
        await _peer.NegotiateAsync(WirePeer.AllProtocolFeatures | ProtocolFeatures.SharedObject);
        (FileDescriptor passed, WirePeer kept) = Rig.SocketPair();
        await _peer.DoBytesAsync(FrontendRequest.SetBackendReqFd, [], passed);
        passed.Dispose();
        return kept;
    }
}
