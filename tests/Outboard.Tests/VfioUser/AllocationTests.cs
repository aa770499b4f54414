// What a doorbell costs that comes as a message: nothing is allocated for it. Counted over the whole process, so
// nothing runs beside it.
using Outboard.Pci;
using Outboard.Tests.Linux;
using Outboard.VfioUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Pci;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VfioUser;

[Collection(DescriptorCounting.Name)]
public sealed class AllocationTests : ServerTest
{
    private const int MessagesAtOnce = 500;
    private const int Rounds = 40;

    private readonly VirtioPciFunction _function = new(new SilentDevice());

    private protected override PciFunction Function => _function;

    [Fact]
    public async Task A_doorbell_by_message_allocates_nothing()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        byte[] doorbell = WireClient.Write(0, 0x3000, [0, 0]);
        MessageHeader header =
            new(1, VfioUserCommand.RegionWrite, (uint)(16 + doorbell.Length), MessageFlags.NoReply, 0);
        byte[] one = [.. WireClient.Bytes(header), .. doorbell];
        byte[] many = [.. Enumerable.Repeat(one, MessagesAtOnce).SelectMany(message => message)];
        await SendAsync(client, many);
        long before = GC.GetTotalAllocatedBytes(precise: true);
        await SendAsync(client, many);
        double each = (GC.GetTotalAllocatedBytes(precise: true) - before) / (double)(MessagesAtOnce * Rounds);

        // the client's own sends and the last answer are part of the count
        Assert.True(each < 4, $"{each} bytes for each message");
    }

    private protected override ValueTask EndFunctionAsync() => _function.DisposeAsync();

    private static async Task SendAsync(WireClient client, byte[] many)
    {
        for (int round = 0; round < Rounds; round++)
        {
            await client.SendRawAsync(many);
        }

        await client.ExpectServedAsync();
    }

    private sealed class SilentDevice() : VirtioDevice(VirtioDeviceId.Entropy, [16]);
}
