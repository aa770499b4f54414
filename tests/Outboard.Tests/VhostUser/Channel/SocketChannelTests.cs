// A connection may end at any byte, and take anything with it: nothing is left, and the next one is served.
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.VhostUser.Channel;

public sealed class SocketChannelTests : BackendTest
{
    [Fact]
    public async Task Connection_that_ends_at_any_byte_of_a_conversation_leaves_nothing()
    {
        (byte[] Bytes, FileDescriptor[] Descriptors)[] conversation = Conversation();
        int total = conversation.Sum(message => message.Bytes.Length);
        OpenThings before = OpenThings.Count();
        for (int end = 0; end <= total; end++)
        {
            using WirePeer peer = await Rig.ConnectAsync();
            int left = end;
            foreach ((byte[] bytes, FileDescriptor[] descriptors) in conversation.TakeWhile(_ => left > 0))
            {
                await peer.SendAsync(bytes[..Math.Min(left, bytes.Length)], descriptors);
                left -= Math.Min(left, bytes.Length);
            }

            peer.Dispose();
            await Rig.ExpectServesNextAsync();
        }

        await before.AssertNothingLeftAsync();
    }

    [Fact]
    public async Task Reply_that_nobody_reads_does_not_disturb_the_next_connection()
    {
        for (int i = 0; i < 50; i++)
        {
            using WirePeer peer = await Rig.ConnectAsync();
            await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
            await peer.ReadAsync(1);
        }

        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task Front_end_that_floods_and_reads_nothing_may_go_away()
    {
        using (WirePeer peer = await Rig.ConnectAsync())
        {
            byte[] burst = [.. Enumerable.Repeat(WirePeer.Frame(1, 1, []), 1000).SelectMany(bytes => bytes)];
            using CancellationTokenSource enough = new(TimeSpan.FromMilliseconds(200));
            for (int i = 0; i < 20; i++)
            {
                Task sending = peer.SendAsync(burst);
                if (await Task.WhenAny(sending, Task.Delay(Timeout.Infinite, enough.Token)) != sending)
                {
                    break;
                }
            }
        }

        await Rig.ExpectServesNextAsync();
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task Garbage_closes_the_connection_and_nothing_else(int seed)
    {
        Random random = new(seed);
        for (int i = 0; i < 100; i++)
        {
            using WirePeer peer = await Rig.ConnectAsync();
            byte[] garbage = new byte[random.Next(1, 300)];
            random.NextBytes(garbage);
            try
            {
                await peer.SendAsync(garbage, Rig.Event().Descriptor, Rig.MemoryFile());
            }
            catch (IOException)
            {
                // Closed while it was being sent.
            }

            peer.Dispose();
            await Rig.ExpectServesNextAsync();
        }
    }

    [Fact]
    public async Task Descriptors_in_the_middle_of_a_message_close_the_connection()
    {
        using (WirePeer peer = await Rig.ConnectAsync())
        {
            byte[] bytes = WirePeer.Frame((uint)FrontendRequest.SetFeatures, WirePeer.NoReply, new byte[8]);
            await peer.SendAsync(bytes[..15]);
            await peer.SendAsync(bytes[15..], Rig.Event().Descriptor);
            await peer.ExpectClosedAsync();
        }

        await Rig.ExpectServesNextAsync();
    }

    [Fact]
    public async Task As_many_descriptors_as_the_kernel_carries_are_closed()
    {
        FileDescriptor one = Rig.Event().Descriptor;
        OpenThings before = OpenThings.Count();
        using (WirePeer peer = await Rig.ConnectAsync())
        {
            await peer.NegotiateAsync();
            FileDescriptor[] all = [.. Enumerable.Repeat(one, 253)];
            await peer.RefusedAsync(FrontendRequest.SetOwner, [], all);
            await peer.RefusedAsync((FrontendRequest)1000, [], all);
            await peer.ExpectServedAsync();
        }

        await before.AssertNothingLeftAsync();
    }

    [Fact]
    public async Task Next_connection_waits_for_its_turn_and_gets_it()
    {
        using WirePeer first = await Rig.ConnectAsync();
        await first.ExpectServedAsync();
        using WirePeer second = await Rig.ConnectAsync();
        await second.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        await first.ExpectServedAsync();
        first.Dispose();
        await second.ReplyAsync(FrontendRequest.GetFeatures);
    }

    private (byte[] Bytes, FileDescriptor[] Descriptors)[] Conversation()
    {
        DriverMemory memory = Rig.Memory();
        RawRing ring = new(Rig, memory, 0);
        byte[] notifier = RawRing.NotifierPayload(0, hasDescriptor: true);
        return
        [
            Message(FrontendRequest.SetOwner, []),
            Message(FrontendRequest.SetProtocolFeatures, WirePeer.Bytes((ulong)WirePeer.AllProtocolFeatures)),
            Message(FrontendRequest.SetFeatures, WirePeer.Bytes(WirePeer.Features)),
            Message(FrontendRequest.SetBackendReqFd, [], Rig.SocketPair().Passed),
            Message(FrontendRequest.AddMemReg, WirePeer.Bytes(RawRing.Describe(memory)), memory.File.Descriptor),
            Message(FrontendRequest.SetVringCall, notifier, ring.Call.Descriptor),
            Message(FrontendRequest.SetVringErr, notifier, ring.Error.Descriptor),
            Message(FrontendRequest.SetVringNum, WirePeer.Bytes(new VringStatePayload(0, RawRing.Size))),
            Message(FrontendRequest.SetVringAddr, WirePeer.Bytes(ring.Addresses)),
            Message(FrontendRequest.SetVringKick, notifier, ring.Kick.Descriptor),
            Message(FrontendRequest.SetVringEnable, WirePeer.Bytes(new VringStatePayload(0, 1))),
            Message(FrontendRequest.GetConfig, [.. WirePeer.Bytes(new ConfigPayload(0, 8, 0)), .. new byte[8]]),
            Message(FrontendRequest.GetVringBase, WirePeer.Bytes(new VringStatePayload(0, 0))),
        ];
    }

    private static (byte[] Bytes, FileDescriptor[] Descriptors) Message(
        FrontendRequest request, byte[] payload, params FileDescriptor[] descriptors) =>
        (WirePeer.Frame((uint)request, WirePeer.NeedReply, payload), descriptors);
}
