// Messages that nobody would send: well-formed ones with bytes changed, cut, prolonged, with descriptors of every kind.
// The server answers each command once, or ends the connection; it serves the next client; and nothing of it breaks.
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser;

public sealed class RandomConversationTests : ServerTest
{
    private const int Connections = 8;
    private const int Messages = 400;

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    [InlineData(3)]
    [InlineData(4)]
    public async Task Every_command_is_answered_whatever_it_says(int seed)
    {
        Random random = new(seed);
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x10000);
        using EventFd eventFd = new();
        FileDescriptor[] descriptors = [memory, eventFd.Descriptor];
        for (int connection = 0; connection < Connections; connection++)
        {
            using WireClient client = await ConnectNegotiatedAsync();
            for (int i = 0; i < Messages; i++)
            {
                (VfioUserCommand command, byte[] payload) = Make(random);
                int count = random.Next(4) == 0 ? random.Next(1, 10) : 0;
                FileDescriptor[] along =
                    [.. Enumerable.Range(0, count).Select(_ => descriptors[random.Next(descriptors.Length)])];
                ushort id = await client.SendAsync(command, payload, 0, along);
                WireMessage reply = await ReceiveReplyAsync(client);
                Assert.Equal((id, command), (reply.Header.Id, reply.Header.Command));
                foreach (FileDescriptor descriptor in reply.Descriptors)
                {
                    descriptor.Dispose();
                }
            }

            await client.CallAsync(VfioUserCommand.DeviceReset, []);
            await client.ExpectServedAsync();
        }
    }

    /// <summary>The next reply; commands of the server's own (DMA messages) are refused on the way.</summary>
    private static async Task<WireMessage> ReceiveReplyAsync(WireClient client)
    {
        while (true)
        {
            WireMessage message = await client.ReceiveAsync();
            if (message.Header.IsReply)
            {
                return message;
            }

            await client.SendRawAsync(WireClient.Bytes(new MessageHeader(
                message.Header.Id, message.Header.Command, 16, MessageFlags.Reply | MessageFlags.Error, 14)));
        }
    }

    private static (VfioUserCommand Command, byte[] Payload) Make(Random random)
    {
        (VfioUserCommand Command, byte[] Payload)[] seeds =
        [
            (VfioUserCommand.DmaMap, WireClient.Bytes(new DmaMapPayload(
                32, (DmaMapFlags)random.Next(16), 0, (ulong)random.Next(16) << 12, 0x1000))),
            (VfioUserCommand.DmaUnmap, WireClient.Bytes(new DmaUnmapPayload(
                24, DmaUnmapFlags.None, (ulong)random.Next(16) << 12, 0x1000))),
            (VfioUserCommand.DeviceGetInfo, WireClient.Bytes(new DeviceInfoPayload(16, 0, 0, 0))),
            (VfioUserCommand.DeviceGetRegionInfo, WireClient.Bytes(new RegionInfoPayload(
                200, 0, (uint)random.Next(10), 0, 0, 0))),
            (VfioUserCommand.DeviceGetRegionIoFds, WireClient.Bytes(new RegionIoFdsPayload(
                200, 0, (uint)random.Next(10), 0))),
            (VfioUserCommand.DeviceGetIrqInfo, WireClient.Bytes(new IrqInfoPayload(16, 0, (uint)random.Next(6), 0))),
            (VfioUserCommand.DeviceSetIrqs, WireClient.SetIrqs(
                (1u << random.Next(3)) | (8u << random.Next(3)), (uint)random.Next(5), (uint)random.Next(8),
                (uint)random.Next(9), new byte[random.Next(5)])),
            (VfioUserCommand.RegionRead, WireClient.Bytes(new RegionAccessPayload(
                (ulong)random.Next(0x1100), (uint)random.Next(9), (uint)random.Next(64)))),
            (VfioUserCommand.RegionWrite, WireClient.Write(
                (uint)random.Next(9), (ulong)random.Next(0x200), Bytes(random, random.Next(1, 17)))),
            (VfioUserCommand.RegionWriteMulti,
                [.. WireClient.Bytes(1UL), .. WireClient.Bytes(new WriteMultiEntry(
                    (ulong)random.Next(0x200), 0, (uint)random.Next(9), (ulong)random.NextInt64()))]),
            (VfioUserCommand.DeviceFeature,
                [.. WireClient.Bytes(new FeaturePayload(
                    (uint)random.Next(8, 200), (1u << random.Next(16, 19)) | (uint)random.Next(10))),
                    .. WireClient.Bytes((ulong)random.Next(8)), .. Bytes(random, 16)]),
            (VfioUserCommand.MigDataRead, WireClient.Bytes(new MigrationDataPayload(100, (uint)random.Next(100)))),
            (VfioUserCommand.MigDataWrite,
                [.. WireClient.Bytes(new MigrationDataPayload(24, 16)), .. Bytes(random, 16)]),
            ((VfioUserCommand)random.Next(25), Bytes(random, random.Next(64))),
        ];
        (VfioUserCommand command, byte[] payload) = seeds[random.Next(seeds.Length)];
        for (int change = random.Next(3); change > 0 && payload.Length > 0; change--)
        {
            payload[random.Next(payload.Length)] = (byte)(random.Next(3) switch
            {
                0 => 0xff,
                1 => 0,
                _ => random.Next(256),
            });
        }

        return random.Next(8) switch
        {
            0 => (command, payload[..random.Next(payload.Length + 1)]),
            1 => (command, [.. payload, .. Bytes(random, random.Next(1, 40))]),
            _ => (command, payload),
        };
    }

    private static byte[] Bytes(Random random, int count)
    {
        byte[] bytes = new byte[count];
        random.NextBytes(bytes);
        return bytes;
    }
}
