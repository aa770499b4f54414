// DMA_WRITE: the server's data for the client, and the three forms of its answer.
using Outboard.Linux;
using Outboard.Linux.Memory;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Commands;

public sealed class DmaWriteTests : ServerTest
{
    [Fact]
    public async Task From_a_client_it_is_not_known()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.RefusedAsync(
            WireClient.Inval, VfioUserCommand.DmaWrite, [.. WireClient.Bytes(new DmaAccessPayload(0, 1)), 1]);
        await client.ExpectServedAsync();
    }

    [Theory]
    [InlineData(0, 0)]
    [InlineData(12, 0)]
    [InlineData(16, 0)]
    [InlineData(4, Errno.Protocol)]
    [InlineData(20, Errno.Protocol)]
    public async Task Answers_with_and_without_a_head(int answerBytes, uint status)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        await client.MapAsync(0x1000, 0x1000, null);
        await client.WriteRegionAsync(2, 0x10, new byte[] { 1, 2, 3, 4 });
        await client.WriteRegionAsync(0, 0x40, 0x1100UL);
        await client.WriteRegionAsync(0, 0x48, 4u);
        await client.WriteRegionAsync(0, 0x54, 0x10u);
        await client.SendAsync(VfioUserCommand.RegionWrite, WireClient.Write(0, 0x4c, WireClient.Bytes(2u)));
        WireMessage asked = await client.ReceiveAsync();
        Assert.Equal(VfioUserCommand.DmaWrite, asked.Header.Command);
        Assert.Equal([.. WireClient.Bytes(new DmaAccessPayload(0x1100, 4)), 1, 2, 3, 4], asked.Payload);
        byte[] answer = new byte[answerBytes];
        asked.Payload.AsSpan(0, Math.Min(answerBytes, 16)).CopyTo(answer);
        MessageHeader header = new(
            asked.Header.Id, VfioUserCommand.DmaWrite, (uint)(16 + answerBytes), MessageFlags.Reply, 0);
        await client.SendRawAsync([.. WireClient.Bytes(header), .. answer]);
        await client.ReceiveAsync();
        Assert.Equal(status, await client.ReadRegionAsync<uint>(0, 0x50));
    }

    [Theory]
    [InlineData(3)]
    [InlineData(3 | 4)]
    [InlineData(3 | 8)]
    public async Task Shared_memory_is_written_without_messages(uint flags)
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x3000);
        await client.MapAsync(0x10000, 0x1000, memory, flags, offset: 0x1000);
        await client.MapAsync(0x11000, 0x1000, memory, flags, offset: 0);
        await client.WriteRegionAsync(2, 0, new byte[] { 1, 2, 3, 4 });
        await client.WriteRegionAsync(0, 0x40, 0x10ffeUL);
        await client.WriteRegionAsync(0, 0x48, 4u);
        await client.WriteRegionAsync(0, 0x4c, 2u);
        Assert.Equal(0u, await client.ReadRegionAsync<uint>(0, 0x50));
        using MemoryMapping mapping = MemoryMapping.Map(memory, 0, 0x3000);
        Assert.Equal([1, 2], mapping.Segment.Span.Slice(0x1ffe, 2).ToArray());
        Assert.Equal([3, 4], mapping.Segment.Span[..2].ToArray());
    }

    [Fact]
    public async Task Read_only_memory_is_not_written()
    {
        using WireClient client = await ConnectNegotiatedAsync();
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x1000);
        await client.MapAsync(0, 0x1000, memory, flags: 1);
        await client.WriteRegionAsync(0, 0x48, 4u);
        await client.WriteRegionAsync(0, 0x4c, 2u);
        Assert.Equal((uint)Errno.AccessDenied, await client.ReadRegionAsync<uint>(0, 0x50));
    }
}
