// The sample card with DMA, built from its one file and driven by our client: what a driver of it does.
using System.Security.Cryptography;
using Outboard.Linux.Events;
using Outboard.Pci.Interrupts;
using Outboard.VfioUser.Client;
using Outboard.VfioUser.Protocol;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Tidy;

public sealed class SampleCardTests : IDisposable
{
    private readonly SampleRun _samples = new();

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    public void Dispose() => _samples.Dispose();

    [Fact]
    public async Task The_copy_card_copies_and_interrupts()
    {
        string card = await _samples.BuildAsync("HelloDma");
        string socket = _samples.PathOf("card.sock");
        await using IAsyncDisposable serving = await _samples.ServeAsync(card, socket);
        await using VfioUserClient client = await VfioUserClient.ConnectAsync(socket, null, Cancellation);
        using DriverMemory memory = new(1 << 20);
        DriverBuffer source = memory.Allocate(65536);
        DriverBuffer destination = memory.Allocate(65536);
        RandomNumberGenerator.Fill(source.Span);
        using EventFd done = new();
        await client.BindAsync(InterruptKind.Msix, 0, [done], Cancellation);
        foreach (bool isShared in (bool[])[true, false])
        {
            destination.Span.Clear();
            await client.MapAsync(
                memory.GuestAddress, memory.File.Descriptor, 0, memory.SizeBytes, isShared, cancellation: Cancellation);
            Assert.Equal(0, await CopyAsync(client, done, source.GuestAddress, destination.GuestAddress));
            Assert.True(source.Span.SequenceEqual(destination.Span));
            await client.UnmapAsync(memory.GuestAddress, memory.SizeBytes, Cancellation);
        }

        Assert.NotEqual(0, await CopyAsync(client, done, source.GuestAddress, destination.GuestAddress));
    }

    private static async Task<int> CopyAsync(VfioUserClient client, EventFd done, ulong source, ulong destination)
    {
        await client.WriteAsync(0, 0, BitConverter.GetBytes(source), Cancellation);
        await client.WriteAsync(0, 8, BitConverter.GetBytes(destination), Cancellation);
        await client.WriteAsync(0, 16, BitConverter.GetBytes(65536), Cancellation);
        await client.WriteAsync(0, 20, BitConverter.GetBytes(1), Cancellation);
        Assert.NotEqual(0UL, done.Wait(20_000));
        byte[] status = new byte[4];
        await client.ReadAsync(0, 20, status, Cancellation);
        return BitConverter.ToInt32(status);
    }
}
