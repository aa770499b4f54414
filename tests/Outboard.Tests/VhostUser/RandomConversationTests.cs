// Conversations that make half sense: real requests in any order, with payloads that are right, nearly right or noise.
// Whatever is said, the server lives, keeps nothing, and serves the next connection.
using Outboard.Linux;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VhostUser;

public sealed class RandomConversationTests : BackendTest
{
    private const int Connections = 20;
    private const int MessagesOfEach = 150;

    private static readonly FrontendRequest[] s_all =
        [.. RequestTable.FrontendRows.Select(row => (FrontendRequest)row.Id)];

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    [InlineData(5)]
    public async Task Server_survives_whatever_is_said(int seed)
    {
        Random random = new(seed);
        for (int i = 0; i < Connections; i++)
        {
            using WirePeer peer = await Rig.ConnectAsync();
            await peer.NegotiateAsync();
            RawRing ring = new(Rig, Rig.Memory(), random.Next(3));
            await RawRing.AddMemoryAsync(peer, ring.Memory);
            await TalkAsync(random, peer, ring);
            peer.Dispose();
            await Rig.ExpectServesNextAsync();
        }
    }

    private async Task TalkAsync(Random random, WirePeer peer, RawRing ring)
    {
        try
        {
            for (int i = 0; i < MessagesOfEach; i++)
            {
                FrontendRequest request =
                    random.Next(200) == 0 ? (FrontendRequest)random.Next(47) : s_all[random.Next(s_all.Length)];
                byte[] payload = Payload(random, request, ring);
                uint flags = random.Next(200) == 0 ? WirePeer.NoReply : WirePeer.NeedReply;
                await peer.SendAsync(request, flags, payload, Descriptors(random, request, ring));
                ring.Kick.Signal();
            }

            await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
            WireMessage answer;
            do
            {
                // Answers and refusals.
                answer = await peer.ReceiveAsync();
                Array.ForEach(answer.Descriptors, descriptor => Rig.Own(descriptor));
            }
            while (answer.Request != (uint)FrontendRequest.GetFeatures);
        }
        catch (Exception error) when (error is IOException or Xunit.Sdk.TrueException)
        {
            // Closed, as some messages deserve.
        }
    }

    private static byte[] Payload(Random random, FrontendRequest request, RawRing ring)
    {
        uint index = random.Next(8) switch
        {
            < 6 => (uint)ring.Index,
            6 => (uint)random.Next(5),
            _ => uint.MaxValue,
        };
        byte[] region = WirePeer.Bytes(RawRing.Describe(ring.Memory).Region);
        byte[] payload = request switch
        {
            FrontendRequest.SetFeatures => WirePeer.Bytes(
                WirePeer.Features | (random.Next(4) == 0 ? VirtioFeatures.AccessPlatform : 0)),
            FrontendRequest.IotlbMsg => WirePeer.Bytes(new IotlbPayload(
                (ulong)random.Next(16) << 12,
                (ulong)random.Next(4) << 12,
                ring.Memory.UserAddress + ((ulong)random.Next(16) << 12),
                (byte)random.Next(5),
                (IotlbMessageType)random.Next(5))),
            FrontendRequest.SetProtocolFeatures => WirePeer.Bytes((ulong)WirePeer.AllProtocolFeatures),
            FrontendRequest.SetVringNum => WirePeer.Bytes(new VringStatePayload(index, RawRing.Size)),
            FrontendRequest.SetVringBase => WirePeer.Bytes(new VringStatePayload(index, (uint)random.Next(4))),
            FrontendRequest.SetVringEnable => WirePeer.Bytes(new VringStatePayload(index, (uint)random.Next(2))),
            FrontendRequest.GetVringBase => WirePeer.Bytes(new VringStatePayload(index, 0)),
            FrontendRequest.SetVringAddr => WirePeer.Bytes(ring.Addresses with { Index = index }),
            FrontendRequest.SetVringKick or FrontendRequest.SetVringCall or FrontendRequest.SetVringErr =>
                RawRing.NotifierPayload((int)index & 0xFF, random.Next(8) != 0),
            FrontendRequest.AddMemReg or FrontendRequest.RemMemReg => WirePeer.Bytes(RawRing.Describe(ring.Memory)),
            FrontendRequest.SetMemTable =>
                [.. WirePeer.Bytes(new MemoryTablePayload(1, 0)), .. region],
            FrontendRequest.GetConfig or FrontendRequest.SetConfig =>
                [.. WirePeer.Bytes(new ConfigPayload(8, 1, 0)), 1],
            FrontendRequest.GetInflightFd or FrontendRequest.SetInflightFd =>
                WirePeer.Bytes(new InflightPayload(3 * 320, 0, 3, RawRing.Size, 0)),
            FrontendRequest.SetStatus => WirePeer.Bytes((ulong)random.Next(256)),
            _ => [],
        };
        if (payload.Length > 0 && random.Next(20) == 0)
        {
            payload[random.Next(payload.Length)] = (byte)random.Next(256);
        }

        return random.Next(100) == 0 ? payload[..random.Next(payload.Length + 1)] : payload;
    }

    private FileDescriptor[] Descriptors(Random random, FrontendRequest request, RawRing ring)
    {
        if (random.Next(100) == 0)
        {
            return [.. Enumerable.Repeat(Rig.Event().Descriptor, random.Next(4))];
        }

        return request switch
        {
            FrontendRequest.SetVringKick => [ring.Kick.Descriptor],
            FrontendRequest.SetVringCall => [ring.Call.Descriptor],
            FrontendRequest.SetVringErr => [ring.Error.Descriptor],
            FrontendRequest.AddMemReg or FrontendRequest.SetMemTable => [ring.Memory.File.Descriptor],
            FrontendRequest.SetInflightFd => [Rig.MemoryFile()],
            FrontendRequest.SetBackendReqFd => [Rig.SocketPair().Passed],
            _ => [],
        };
    }
}
