// What a doorbell costs that comes as a message: nothing is allocated for it, whether the server finds many at once or
// is woken for each. Counted over the whole process, so nothing runs beside it; the client's side allocates nothing
// either, and the round counts in which the runtime had the least to do of its own.
using System.Net.Sockets;
using Outboard.Pci;
using Outboard.Tests.Linux;
using Outboard.Tests.VhostUser;
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
    private const int Repeats = 20;

    private readonly VirtioPciFunction _function = new(new SilentDevice());

    private protected override PciFunction Function => _function;

    [Fact]
    public async Task A_doorbell_by_message_allocates_nothing()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using Doorbells doorbells = new(client, 0x3000, MessagesAtOnce);
        double least = double.MaxValue;
        for (int round = 0; round < Doorbells.Rounds; round++)
        {
            long before = GC.GetTotalAllocatedBytes(precise: true);
            for (int i = 0; i < Repeats; i++)
            {
                doorbells.Ring();
            }

            await client.ExpectServedAsync();
            long bytes = GC.GetTotalAllocatedBytes(precise: true) - before;
            least = Math.Min(least, bytes / (double)(MessagesAtOnce * Repeats));
        }

        // the last question and its answer are part of the count
        Assert.True(least < 4, $"{least} bytes for each message");
    }

    private protected override ValueTask EndFunctionAsync() => _function.DisposeAsync();

    private sealed class SilentDevice() : VirtioDevice(VirtioDeviceId.Entropy, [16]);
}

/// <summary>The same for a server that waits before each message.</summary>
[Collection(DescriptorCounting.Name)]
public sealed class WaitingAllocationTests : ServerTest
{
    private const int Messages = 1000;

    /// <summary>A single waiting method that keeps its state on the heap takes more for each message.</summary>
    private const int FewBytes = 64;

    private readonly FakeFunction _function = new();

    private protected override PciFunction Function => _function;

    [Fact]
    public async Task A_doorbell_that_wakes_the_server_allocates_nothing()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using Doorbells doorbells = new(client, 0, 1);
        int wanted = 0;
        Func<bool> isServed = () => _function.Writes >= wanted;
        double least = double.MaxValue;
        for (int round = 0; round < Doorbells.Rounds; round++)
        {
            long before = GC.GetTotalAllocatedBytes(precise: true);
            for (int i = 0; i < Messages; i++)
            {
                doorbells.Ring();
                wanted++;
                Doorbells.Until(isServed);
            }

            long bytes = GC.GetTotalAllocatedBytes(precise: true) - before;
            least = Math.Min(least, bytes / (double)Messages);
        }

        Assert.True(least < FewBytes, $"{least} bytes for each message");
    }
}

/// <summary>Posted writes of a client, sent without an allocation.</summary>
internal sealed class Doorbells : IDisposable
{
    /// <summary>The first ones warm up.</summary>
    public const int Rounds = 5;

    private readonly Socket _socket;
    private readonly byte[] _messages;

    public Doorbells(WireClient client, ulong offset, int atOnce)
    {
        _socket = new Socket(new SafeSocketHandle(client.DuplicateDescriptor().Release(), ownsHandle: true))
        {
            Blocking = false,
        };
        byte[] doorbell = WireClient.Write(0, offset, [0, 0]);
        MessageHeader header =
            new(1, VfioUserCommand.RegionWrite, (uint)(16 + doorbell.Length), MessageFlags.NoReply, 0);
        byte[] one = [.. WireClient.Bytes(header), .. doorbell];
        _messages = [.. Enumerable.Repeat(one, atOnce).SelectMany(message => message)];
    }

    /// <summary>Sends them, waiting for room.</summary>
    public void Ring()
    {
        long start = Environment.TickCount64;
        for (int sent = 0; sent < _messages.Length;)
        {
            int count = _socket.Send(_messages.AsSpan(sent), SocketFlags.None, out SocketError error);
            Assert.True(error is SocketError.Success or SocketError.WouldBlock);
            sent += Math.Max(count, 0);
            Pause(start);
        }
    }

    public static void Until(Func<bool> condition)
    {
        for (long start = Environment.TickCount64; !condition();)
        {
            Pause(start);
        }
    }

    public void Dispose() => _socket.Dispose();

    private static void Pause(long start)
    {
        Assert.True(Environment.TickCount64 - start < Eventually.Limit.TotalMilliseconds);
        Thread.Yield();
    }
}
