// Our client against our server: what a driver or a tool does with the test card.
using System.Buffers.Binary;
using Outboard.Devices.TestCard;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Pci;
using Outboard.Pci.Bars;
using Outboard.Pci.Interrupts;
using Outboard.VfioUser.Client;
using Outboard.VfioUser.Protocol;
using Xunit;

namespace Outboard.Tests.VfioUser.Client;

public sealed class VfioUserClientTests : IAsyncDisposable
{
    private readonly TestCardFunction _card = new();
    private readonly ServedFunction _served;

    public VfioUserClientTests() => _served = new ServedFunction(_card);

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public async ValueTask DisposeAsync()
    {
        await _served.DisposeAsync();
        _card.Dispose();
    }

    [Fact]
    public async Task Regions_and_their_memory()
    {
        await using VfioUserClient client = await ConnectAsync();
        Assert.Equal(new DeviceInfoPayload(16, 3, 9, 5), await client.GetInfoAsync(Cancellation));
        using RegionInfo absent = await client.GetRegionInfoAsync(3, Cancellation);
        Assert.Equal((RegionFlags.None, 0UL), (absent.Flags, absent.SizeBytes));
        using RegionInfo buffer = await client.GetRegionInfoAsync(2, Cancellation);
        Assert.Equal([new BarArea(0x1000, 0x1000), new BarArea(0x3000, 0x1000)], buffer.Areas);
        using MemoryMapping mapping = buffer.Memory!.Map(buffer.Offset, buffer.SizeBytes);
        await client.WriteAsync(2, 0x1000, new byte[] { 1, 2, 3 }, Cancellation);
        Assert.Equal([1, 2, 3], mapping.Segment.Span.Slice(0x1000, 3).ToArray());
        byte[] large = new byte[0x200000];
        Random.Shared.NextBytes(large);
        await client.WriteAsync(4, 0, large, Cancellation);
        byte[] read = new byte[large.Length];
        await client.ReadAsync(4, 0, read, Cancellation);
        Assert.Equal(large, read);
        VfioUserException refusal = await Assert.ThrowsAsync<VfioUserException>(
            () => client.ReadAsync(3, 0, new byte[1], Cancellation));
        Assert.Equal((Errno.InvalidArgument, VfioUserCommand.RegionRead), (refusal.Errno, refusal.Command));
    }

    [Fact]
    public async Task Interrupts_and_doorbells()
    {
        await using VfioUserClient client = await ConnectAsync();
        Assert.Equal(8, await client.CountVectorsAsync(InterruptKind.Msix, Cancellation));
        EventFd[] events = [.. Enumerable.Range(0, 8).Select(_ => new EventFd())];
        await client.BindAsync(InterruptKind.Msix, 0, events, Cancellation);
        await client.SetIrqsAsync(
            InterruptKind.Msix, SetIrqsFlags.DataNone | SetIrqsFlags.Trigger, 2, 3, Cancellation);
        Assert.Equal([0, 0, 1, 1, 1, 0, 0, 0], events.Select(eventFd => (int)eventFd.Take()));
        await client.BindAsync(InterruptKind.Msix, 0, null, Cancellation);
        await client.SetIrqsAsync(
            InterruptKind.Msix, SetIrqsFlags.DataNone | SetIrqsFlags.Trigger, 0, 8, Cancellation);
        Assert.All(events, eventFd => Assert.Equal(0UL, eventFd.Take()));
        IReadOnlyList<PciDoorbell> doorbells = await client.OpenDoorbellsAsync(0, Cancellation);
        Assert.Equal([(0x100UL, null), (0x104UL, 0xcafeUL), (0x108UL, null)],
            doorbells.Select(doorbell => (doorbell.Offset, doorbell.Match)));
        Assert.Same(doorbells[0].Event, doorbells[1].Event);
        doorbells[2].Event.Signal();
        Assert.Equal(1u, await ReadAsync(client, TestCardRegister.CountB));
        Assert.Empty(await client.OpenDoorbellsAsync(1, Cancellation));
    }

    /// <summary>Our client answers our server's messages: on one socket, between commands, and on a second
    /// one.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task Memory_by_messages(bool twin)
    {
        await using VfioUserClient client = await ConnectAsync(new VfioUserClientOptions
        {
            WantsTwinSocket = twin,
            MaxTransferBytes = 1000,
        });
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x10000);
        await client.MapAsync(0x10000, memory, 0x4000, 0x2000, isShared: false, cancellation: Cancellation);
        await client.MapAsync(0x12000, memory, 0x8000, 0x2000, isShared: false, cancellation: Cancellation);
        using MemoryMapping mapping = MemoryMapping.Map(memory, 0, 0x10000);
        Random.Shared.NextBytes(mapping.Segment.Span);
        byte[] expected =
            [.. mapping.Segment.Span.Slice(0x4000, 0x2000), .. mapping.Segment.Span.Slice(0x8000, 0x2000)];
        await TransferAsync(client, 1, 0x10000, 0x4000);
        byte[] buffer = new byte[0x4000];
        await client.ReadAsync(2, 0, buffer, Cancellation);
        Assert.Equal(expected, buffer);
        expected.AsSpan().Reverse();
        await client.WriteAsync(2, 0, expected, Cancellation);
        await TransferAsync(client, 2, 0x10000, 0x4000);
        Assert.Equal(expected[..0x2000], mapping.Segment.Span.Slice(0x4000, 0x2000).ToArray());
        Assert.Equal(expected[0x2000..], mapping.Segment.Span.Slice(0x8000, 0x2000).ToArray());
    }

    /// <summary>Pre-copy with dirty pages, then the rest, into another card; its state is that of the first.</summary>
    [Fact]
    public async Task A_card_moves_to_another_process()
    {
        using TestCardFunction other = new();
        await using ServedFunction otherServed = new(other);
        await using VfioUserClient source = await ConnectAsync();
        await using VfioUserClient target =
            await VfioUserClient.ConnectAsync(otherServed.Path, cancellation: Cancellation);
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x10000);
        await source.MapAsync(0, memory, 0, 0x10000, isShared: true, cancellation: Cancellation);
        await source.WriteAsync(0, TestCardRegister.Scratch, new byte[] { 8, 7, 6, 5, 4, 3, 2, 1 }, Cancellation);
        await source.StartDirtyLogAsync(cancellation: Cancellation);
        await target.SetMigrationStateAsync(MigrationState.Resuming, Cancellation);
        await source.SetMigrationStateAsync(MigrationState.PreCopy, Cancellation);
        await CopyAsync(source, target);
        await source.WriteAsync(2, 100, new byte[] { 0x42 }, Cancellation);
        await TransferAsync(source, 2, 0x3000, 0x10);
        Assert.Equal(
            [0b1000, 0, 0, 0, 0, 0, 0, 0], await source.TakeDirtyLogAsync(0, 0x10000, cancellation: Cancellation));
        await source.SetMigrationStateAsync(MigrationState.StopCopy, Cancellation);
        await CopyAsync(source, target);
        await source.StopDirtyLogAsync(Cancellation);
        await target.SetMigrationStateAsync(MigrationState.Running, Cancellation);
        Assert.Equal(MigrationState.Running, await target.GetMigrationStateAsync(Cancellation));
        byte[] state = new byte[8];
        await target.ReadAsync(0, TestCardRegister.Scratch, state, Cancellation);
        Assert.Equal([8, 7, 6, 5, 4, 3, 2, 1], state);
        await target.ReadAsync(2, 100, state, Cancellation);
        Assert.Equal(0x42, state[0]);
    }

    [Fact]
    public async Task A_server_that_comes_back_gets_everything_again()
    {
        await using VfioUserClient client = await ConnectAsync(
            new VfioUserClientOptions { ReconnectLimit = TimeSpan.FromSeconds(20) });
        using FileDescriptor memory = MemFd.Create("outboard-test", 0x4000);
        using EventFd interrupt = new();
        await client.MapAsync(0, memory, 0, 0x1000, isShared: true, cancellation: Cancellation);
        await client.MapAsync(0x8000, memory, 0x2000, 0x1000, isShared: false, cancellation: Cancellation);
        await client.BindAsync(InterruptKind.Msix, 5, [interrupt], Cancellation);
        await _served.StopAsync();
        Task<uint> waiting = ReadAsync(client, TestCardRegister.DmaCount);
        _served.Start();
        try
        {
            await waiting;
        }
        catch (IOException)
        {
            // the command that finds out about the loss fails, if the client does not know of it already
        }

        Assert.Equal(2u, await ReadAsync(client, TestCardRegister.DmaCount));
        Assert.Equal(1, client.Reconnections);
        await TransferAsync(client, 1, 0x8000, 16);
        await client.WriteAsync(0, TestCardRegister.IrqTrigger, new byte[] { 5, 0, 2, 0 }, Cancellation);
        Assert.Equal(1UL, interrupt.Take());
        await client.UnmapAsync(0, 0x1000, Cancellation);
        Assert.Equal(1u, await ReadAsync(client, TestCardRegister.DmaCount));
    }

    [Fact]
    public async Task Nobody_there_is_told_at_once()
    {
        await Assert.ThrowsAnyAsync<IOException>(
            () => VfioUserClient.ConnectAsync(_served.Path + "x", cancellation: Cancellation));
    }

    private static async Task CopyAsync(VfioUserClient source, VfioUserClient target)
    {
        byte[] part = new byte[5000];
        int count;
        while ((count = await source.ReadMigrationDataAsync(part, Cancellation)) > 0)
        {
            await target.WriteMigrationDataAsync(part.AsMemory(0, count), Cancellation);
        }
    }

    private static async Task<uint> ReadAsync(VfioUserClient client, int register)
    {
        byte[] bytes = new byte[4];
        await client.ReadAsync(0, (ulong)register, bytes, Cancellation);
        return BinaryPrimitives.ReadUInt32LittleEndian(bytes);
    }

    private static async Task TransferAsync(VfioUserClient client, uint command, ulong address, uint length)
    {
        byte[] registers = new byte[16];
        BinaryPrimitives.WriteUInt64LittleEndian(registers, address);
        BinaryPrimitives.WriteUInt32LittleEndian(registers.AsSpan(8), length);
        BinaryPrimitives.WriteUInt32LittleEndian(registers.AsSpan(12), command);
        await client.WriteAsync(0, TestCardRegister.DmaAddress, registers, Cancellation);
        Assert.Equal(0u, await ReadAsync(client, TestCardRegister.DmaStatus));
    }

    private Task<VfioUserClient> ConnectAsync(VfioUserClientOptions? options = null) =>
        VfioUserClient.ConnectAsync(_served.Path, options, Cancellation);
}
