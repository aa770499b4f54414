// SET_BACKEND_REQ_FD: the socket on which the back-end tells things by itself.
using System.Net.Sockets;
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VhostUser.Requests;

public sealed class SetBackendReqFdTests : RequestTest
{
    protected override FrontendRequest Request => FrontendRequest.SetBackendReqFd;

    protected override ProtocolFeatures Gate => ProtocolFeatures.BackendReq;

    protected override byte[] GoodPayload => [];

    protected override int MaxDescriptors => 1;

    private protected override FileDescriptor[] GoodDescriptors() => [Rig.SocketPair().Passed];

    [Fact]
    public Task Missing_descriptor_is_refused() => ExpectRefusedAsync([]);

    [Fact]
    public Task Eventfd_is_no_socket() => ExpectRefusedAsync([], Rig.Event().Descriptor);

    [Fact]
    public Task Memory_is_no_socket() => ExpectRefusedAsync([], Rig.MemoryFile());

    [Fact]
    public Task Datagram_socket_is_refused() => ExpectRefusedAsync([], SocketOf(AddressFamily.Unix, SocketType.Dgram));

    [Fact]
    public Task Internet_socket_is_refused() =>
        ExpectRefusedAsync([], SocketOf(AddressFamily.InterNetwork, SocketType.Stream));

    [Fact]
    public async Task Configuration_change_is_told_on_it_without_asking_for_a_reply()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        (FileDescriptor passed, WirePeer kept) = Rig.SocketPair();
        await peer.DoBytesAsync(Request, [], passed);
        Rig.Device.ChangeCapacity(5);
        await ExpectConfigChangeAsync(kept);
    }

    [Fact]
    public async Task Later_one_replaces_the_earlier_one_which_is_closed()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        (FileDescriptor first, WirePeer keptFirst) = Rig.SocketPair();
        (FileDescriptor second, WirePeer keptSecond) = Rig.SocketPair();
        await peer.DoBytesAsync(Request, [], first);
        await peer.DoBytesAsync(Request, [], second);
        await keptFirst.ExpectClosedAsync();
        Rig.Device.ChangeCapacity(5);
        await ExpectConfigChangeAsync(keptSecond);
    }

    [Fact]
    public async Task Front_end_that_closed_it_is_served_on()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        (FileDescriptor passed, WirePeer kept) = Rig.SocketPair();
        await peer.DoBytesAsync(Request, [], passed);
        kept.Shutdown();
        for (ulong i = 1; i < 100; i++)
        {
            Rig.Device.ChangeCapacity(i);
        }

        await peer.ExpectServedAsync();
        (FileDescriptor again, WirePeer keptAgain) = Rig.SocketPair();
        await peer.DoBytesAsync(Request, [], again);
        Rig.Device.ChangeCapacity(1000);
        await ExpectConfigChangeAsync(keptAgain);
    }

    [Fact]
    public async Task Front_end_that_never_reads_it_is_served_on_and_may_go_away()
    {
        using (WirePeer peer = await ConnectPreparedAsync())
        {
            await peer.DoBytesAsync(Request, [], Rig.SocketPair().Passed);
            for (ulong i = 1; i < 5000; i++)
            {
                Rig.Device.ChangeCapacity(i);
                if (i % 50 == 0)
                {
                    await peer.ExpectServedAsync();
                }
            }
        }

        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task What_the_front_end_writes_there_is_nothing_to_us()
    {
        using WirePeer peer = await ConnectPreparedAsync();
        (FileDescriptor passed, WirePeer kept) = Rig.SocketPair();
        await peer.DoBytesAsync(Request, [], passed);
        await kept.SendAsync(new byte[1000], Rig.Event().Descriptor);
        Rig.Device.ChangeCapacity(5);
        await ExpectConfigChangeAsync(kept);
        await peer.ExpectServedAsync();
    }

    [Fact]
    public async Task Without_the_configuration_feature_nothing_is_told()
    {
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.NegotiateAsync(WirePeer.AllProtocolFeatures & ~ProtocolFeatures.Config);
        (FileDescriptor passed, WirePeer kept) = Rig.SocketPair();
        await peer.DoBytesAsync(Request, [], passed);
        passed.Dispose();
        Rig.Device.ChangeCapacity(5);
        peer.Dispose();
        await kept.ExpectClosedAsync();
    }

    private static async Task ExpectConfigChangeAsync(WirePeer kept)
    {
        WireMessage message = await kept.ReceiveAsync();
        Assert.Equal((uint)BackendRequest.ConfigChangeMsg, message.Request);
        Assert.Equal(WirePeer.NoReply, message.Flags);
        Assert.Empty(message.Payload);
        Assert.Empty(message.Descriptors);
    }

    private FileDescriptor SocketOf(AddressFamily family, SocketType type)
    {
        using Socket socket = new(family, type, ProtocolType.Unspecified);
        using FileDescriptor borrowed = new((int)socket.Handle);
        FileDescriptor copy = Rig.Own(borrowed.Duplicate());
        borrowed.Release();
        return copy;
    }
}
