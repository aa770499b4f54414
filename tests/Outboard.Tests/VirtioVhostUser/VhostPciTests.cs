// The vhost-pci adapter: what the engine does behind virtio registers it does behind these. The classes that derive
// from tests of the engine run all of them once more; the rest is what the adapter has of its own: registers, windows
// in BARs, vectors, a client that goes away.
using System.Buffers.Binary;
using Outboard.Linux;
using Outboard.Linux.Events;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Pci.Driver;
using Outboard.Pci.Interrupts;
using Outboard.Pci.Spec;
using Outboard.Tests.VfioUser.Client;
using Outboard.Tests.VhostUser;
using Outboard.VfioUser.Client;
using Outboard.VhostUser.Protocol;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Protocol;
using Outboard.VirtioVhostUser.VhostPci;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

public sealed class VhostPciMessagePassingTests : MessagePassingTests
{
    private protected override bool IsVhostPci => true;
}

public sealed class VhostPciHostileDriverTests : HostileDriverTests
{
    private protected override bool IsVhostPci => true;
}

public sealed class VhostPciRaceTests : RaceTests
{
    private protected override bool IsVhostPci => true;
}

public sealed class VhostPciEndedSessionTests : EndedSessionTests
{
    private protected override bool IsVhostPci => true;
}

public sealed class VhostPciExplicitPlacementTests : ExplicitPlacementTests
{
    private protected override bool IsVhostPci => true;
}

public sealed class VhostPciPlainPlacementTests : PlainPlacementTests
{
    private protected override bool IsVhostPci => true;
}

public sealed class VhostPciTests : DeviceTest
{
    private const int Bar = VhostPciSpec.RegistersBar;

    private protected override bool IsVhostPci => true;

    private LocalPciHandle Handle => Rig.Handle!;

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    [Fact]
    public async Task It_has_the_resources_of_its_design()
    {
        Assert.False(await VhostPciAccess.IsAdapterAsync(Handle, Token) && Rig.Access is not VhostPciAccess);
        Assert.Equal(Rig.Device.Rings, Rig.Access.Rings);
        Assert.Equal(VhostPciSpec.ExplicitOffsets, Rig.Access.Features);
        Assert.Equal(3 + Rig.Device.Rings, await Handle.CountVectorsAsync(InterruptKind.Msix, Token));
        Assert.Equal(
            3 + (2 * Rig.Device.Rings), (await Handle.OpenDoorbellsAsync(Bar, Token)).Select(Close).Count());
        using SharedMemory memory = Rig.Access.OpenWindow(VirtioVhostUserSpec.MemoryWindow)!;
        using SharedMemory log = Rig.Access.OpenWindow(VirtioVhostUserSpec.LogWindow)!;
        Assert.Equal(await ReadAsync(VhostPciSpec.MemoryBytes), memory.SizeBytes);
        Assert.Equal(await ReadAsync(VhostPciSpec.LogBytes), log.SizeBytes);
        Assert.Null(Rig.Access.OpenWindow(VirtioVhostUserSpec.InflightWindow));

        // A function that may not use the bus raises no interrupt in a machine.
        byte[] command = new byte[sizeof(ushort)];
        await Handle.ReadAsync(PciHandle.Config, PciRegister.Command, command, Token);
        Assert.True(((PciCommand)command[0]).HasFlag(PciCommand.Memory | PciCommand.Dma));
    }

    [Fact]
    public async Task The_record_of_requests_in_flight_is_hidden()
    {
        using WirePeer peer = await NegotiateAsync();
        await peer.SendAsync(FrontendRequest.GetInflightFd, WirePeer.NoReply, new byte[InflightPayload.Bytes]);
        Assert.All(await peer.ReplyAsync(FrontendRequest.GetInflightFd), value => Assert.Equal(0, value));
    }

    [Fact]
    public async Task Windows_are_answered_by_accesses_as_well()
    {
        using DriverMemory memory = new(1 << 16);
        memory.Allocate(8192).Span.Fill(0x5A);
        using WirePeer peer = await NegotiateAsync();
        await PassAsync(
            peer, FrontendRequest.AddMemReg, WirePeer.Bytes(RawRing.Describe(memory)), memory.File.Descriptor);
        byte[] found = new byte[9000];
        await Handle.ReadAsync(VhostPciSpec.MemoryBar, 100, found, Token);
        Assert.True(found.AsSpan(0, 8092).IndexOfAnyExcept((byte)0x5A) < 0);
        Assert.True(found.AsSpan(8092).IndexOfAnyExcept((byte)0) < 0);
        await Handle.WriteAsync(VhostPciSpec.MemoryBar, 4095, new byte[] { 1, 2, 3 }, Token);
        Assert.Equal([0x5A, 1, 2, 3, 0x5A], memory.Segment.Span[4094..4099].ToArray());

        // Nothing is mapped there; nothing is a window there.
        ulong end = await ReadAsync(VhostPciSpec.MemoryBytes);
        foreach (ulong offset in (ulong[])[end - 4, end, end + 4096])
        {
            await Handle.WriteAsync(VhostPciSpec.MemoryBar, offset, new byte[8], Token);
            found.AsSpan().Fill(1);
            await Handle.ReadAsync(VhostPciSpec.MemoryBar, offset, found.AsMemory(0, 8), Token);
            Assert.Equal(new byte[8], found[..8]);
        }
    }

    [Fact]
    public async Task Memory_that_its_owner_truncates_reads_as_zero()
    {
        using FileDescriptor file = MemFd.CreateUnsealed("truncated", 1 << 16);
        using FileDescriptor other = file.Duplicate();
        using FileSharedMemory memory = new(other);
        using (MemoryMapping mapping = memory.Map(0, 1 << 16))
        {
            mapping.Segment.Span.Fill(0x5A);
        }

        using WirePeer peer = await NegotiateAsync();
        SingleMemoryRegionPayload region = new(0, new MemoryRegionPayload(0, 1 << 16, 0x10000, 0));
        await PassAsync(peer, FrontendRequest.AddMemReg, WirePeer.Bytes(region), file);
        byte[] found = new byte[4];
        await Handle.ReadAsync(VhostPciSpec.MemoryBar, 0, found, Token);
        Assert.Equal([0x5A, 0x5A, 0x5A, 0x5A], found);
        MemFd.Resize(file, 0);
        await Handle.ReadAsync(VhostPciSpec.MemoryBar, 4096, found, Token);
        Assert.Equal(new byte[4], found);
        await Handle.WriteAsync(VhostPciSpec.MemoryBar, 8192, found, Token);
    }

    [Fact]
    public async Task Each_ring_has_a_vector_and_doorbells_of_its_own()
    {
        using WirePeer peer = await NegotiateAsync();
        using EventFd kick = new();
        using EventFd call = new();
        using EventFd error = new();
        byte[] ring = RawRing.NotifierPayload(2, true);
        await PassAsync(peer, FrontendRequest.SetVringKick, ring, kick.Descriptor);
        await AcknowledgeAsync(peer, FrontendRequest.SetVringKick);
        await PassAsync(peer, FrontendRequest.SetVringCall, ring, call.Descriptor);
        await AcknowledgeAsync(peer, FrontendRequest.SetVringCall);
        await PassAsync(peer, FrontendRequest.SetVringErr, ring, error.Descriptor);
        kick.Signal();
        Assert.NotEqual(0UL, Driver.KickOf(2).Wait(5000));
        Assert.Equal(0UL, Driver.KickOf(1).Take());
        Rig.Access.Ring(VirtioVhostUserSpec.CallOf(2));
        Assert.NotEqual(0UL, call.Wait(5000));

        // As an access, of any width.
        byte[] value = new byte[4];
        await Handle.WriteAsync(Bar, VhostPciSpec.DoorbellOf(2 + VirtioVhostUserSpec.ErrorOf(2)), value, Token);
        Assert.NotEqual(0UL, error.Wait(5000));
        Assert.Equal(0UL, call.Take());
    }

    [Theory]
    [InlineData(0, 0UL)]
    [InlineData(0, 3UL)]
    [InlineData(1, 512UL)]
    [InlineData(1, 0xffffUL)]
    public async Task A_queue_that_cannot_be_needs_a_reset(int queue, ulong size)
    {
        await ResetByHandAsync();
        await WriteAsync(VhostPciSpec.Size(queue), size);
        await WriteAsync(VhostPciSpec.Enable(queue), 1);
        await ExpectNeedsResetAsync();
    }

    [Theory]
    [InlineData(0UL)]
    [InlineData(0x4000_0001UL)]
    [InlineData(ulong.MaxValue)]
    public async Task A_queue_that_lies_nowhere_needs_a_reset(ulong address)
    {
        await ResetByHandAsync();
        await WriteAsync(VhostPciSpec.Size(0), 16);
        await WriteAsync(VhostPciSpec.Descriptors(0), address);
        await WriteAsync(VhostPciSpec.Available(0), address);
        await WriteAsync(VhostPciSpec.Used(0), address);
        await WriteAsync(VhostPciSpec.Enable(0), 1);
        await ExpectNeedsResetAsync();
    }

    [Fact]
    public async Task Registers_of_a_queue_that_runs_stay()
    {
        using WirePeer peer = await ConnectAsync();
        ulong size = await ReadAsync(VhostPciSpec.Size(0));
        await WriteAsync(VhostPciSpec.Size(0), 4);
        await WriteAsync(VhostPciSpec.Descriptors(0), 0);
        await WriteAsync(VhostPciSpec.Enable(0), 0);
        await WriteAsync(VhostPciSpec.Taken, 0);
        await WriteAsync(VhostPciSpec.Rings, 1);
        Assert.Equal(size, await ReadAsync(VhostPciSpec.Size(0)));
        Assert.Equal(1UL, await ReadAsync(VhostPciSpec.Enable(0)));
        Assert.Equal(VhostPciSpec.ExplicitOffsets, await ReadAsync(VhostPciSpec.Taken));
        Assert.Equal((ulong)Rig.Device.Rings, await ReadAsync(VhostPciSpec.Rings));
        Driver.Post();
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        await Driver.ReceiveAsync(FrontendRequest.GetFeatures);
    }

    [Fact]
    public async Task Memory_that_is_taken_away_takes_the_session_with_it()
    {
        using WirePeer peer = await ConnectAsync();
        await Handle.UnmapAsync(0x4000_0000, 8 << 20, Token);
        await ExpectNeedsResetAsync();
        await peer.ExpectClosedAsync();
        await Assert.ThrowsAsync<IOException>(() => Handle.UnmapAsync(0x4000_0000, 8 << 20, Token));
    }

    [Fact]
    public async Task A_client_that_goes_away_ends_the_session_and_the_next_one_begins_anew()
    {
        using WirePeer peer = await ConnectAsync();
        await Handle.DisposeAsync();
        await peer.ExpectClosedAsync();
        await Rig.Access.DisposeAsync();
        await Rig.RestartDriverAsync();
        RawDriver driver = new(Rig.Access);
        driver.Post();
        await driver.ArmAsync();
        using WirePeer next = await Rig.ConnectAsync();
        await next.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        await driver.ReceiveAsync(FrontendRequest.GetFeatures);
    }

    /// <summary>Whatever a guest writes, wherever: no exception, and a reset puts everything right.</summary>
    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task Any_access_is_possible(int seed)
    {
        Random random = new(seed);
        byte[] bytes = new byte[64];
        for (int step = 0; step < 3000; step++)
        {
            int bar = random.Next(8) == 0 ? VhostPciSpec.LogBar : Bar;
            int count = 1 << random.Next(7);
            ulong limit = bar == Bar ? random.Next(3) > 0 ? 256 : VhostPciSpec.RegistersBarBytes : 1 << 20;
            ulong offset = Math.Min((ulong)random.NextInt64((long)limit), limit - (ulong)count);
            random.NextBytes(bytes);
            if (random.Next(3) == 0)
            {
                await Handle.ReadAsync(bar, offset, bytes.AsMemory(0, count), Token);
            }
            else
            {
                bytes.AsSpan().Fill((byte)random.Next(3));
                await Handle.WriteAsync(bar, offset, bytes.AsMemory(0, count), Token);
            }
        }

        await Rig.Access.DisposeAsync();
        await Rig.RestartDriverAsync();
        RawDriver driver = new(Rig.Access);
        driver.Post();
        await driver.ArmAsync();
        using WirePeer peer = await Rig.ConnectAsync();
        await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
        await driver.ReceiveAsync(FrontendRequest.GetFeatures);
    }

    /// <summary>The same function behind a socket: registers, queues, doorbells and vectors are messages.</summary>
    [Fact]
    public async Task It_is_served_over_vfio_user()
    {
        await Rig.Access.DisposeAsync();
        await Handle.DisposeAsync();
        await using (ServedFunction served = new(Rig.Adapter!))
        await using (VfioUserClient client = await VfioUserClient.ConnectAsync(served.Path))
        {
            using DriverMemory memory = new(4 << 20, 0x4000_0000);
            await client.MapAsync(memory.GuestAddress, memory.File, 0, memory.SizeBytes, Token);
            await using VhostPciAccess access = await VhostPciAccess.StartAsync(
                client, memory, cancellation: Token);
            RawDriver driver = new(access);
            driver.Post();
            await driver.ArmAsync();
            using WirePeer peer = await Rig.ConnectAsync();
            await driver.ExpectStatusAsync(Connected);
            await peer.SendAsync(FrontendRequest.GetFeatures, WirePeer.NoReply, []);
            await driver.ReceiveAsync(FrontendRequest.GetFeatures);
            driver.Reply(FrontendRequest.GetFeatures, 7UL);
            Assert.Equal(WirePeer.Bytes(7UL), await peer.ReplyAsync(FrontendRequest.GetFeatures));
            using EventFd kick = new();
            await peer.SendAsync(
                FrontendRequest.SetVringKick, WirePeer.NoReply, RawRing.NotifierPayload(3, true), kick.Descriptor);
            await driver.ReceiveAsync(FrontendRequest.SetVringKick);
            kick.Signal();
            Assert.NotEqual(0UL, driver.KickOf(3).Wait(5000));
        }

        await Rig.RestartDriverAsync();
    }

    [Fact]
    public async Task An_adapter_that_is_lost_ends_the_source()
    {
        await Rig.Access.DisposeAsync();
        await Handle.DisposeAsync();
        await using (ServedFunction served = new(Rig.Adapter!))
        await using (VfioUserClient client = await VfioUserClient.ConnectAsync(served.Path))
        {
            using DriverMemory memory = new(4 << 20, 0x4000_0000);
            await client.MapAsync(memory.GuestAddress, memory.File, 0, memory.SizeBytes, Token);
            using VirtioVhostUserSource source = new(
                await VhostPciAccess.StartAsync(client, memory, cancellation: Token), Rig.Log);
            Task waiting = source.NextAsync(Timeout.InfiniteTimeSpan, Token);
            await served.StopAsync();
            await Assert.ThrowsAnyAsync<Exception>(() => waiting.WaitAsync(Eventually.Limit, Token));
            served.Start();
        }

        await Rig.RestartDriverAsync();
    }

    private static int Close(Outboard.Pci.Bars.PciDoorbell doorbell)
    {
        doorbell.Event.Dispose();
        return 0;
    }

    private async Task ResetByHandAsync()
    {
        await WriteAsync(VhostPciSpec.Reset, 1);
        Assert.Equal(0UL, await ReadAsync(VhostPciSpec.Status));
        Assert.Equal(0UL, await ReadAsync(VhostPciSpec.Enable(0)));
    }

    private async Task ExpectNeedsResetAsync()
    {
        Assert.Equal(VhostPciSpec.NeedsReset, await ReadAsync(VhostPciSpec.Status));
        Assert.True(await Rig.Access.HasChangedAsync(default), "the driver is told");
        await WriteAsync(VhostPciSpec.Status, Up);
        await ResetByHandAsync();
    }

    private async Task<ulong> ReadAsync(ConfigField field)
    {
        byte[] bytes = new byte[sizeof(ulong)];
        await Handle.ReadAsync(Bar, (ulong)field.Offset, bytes.AsMemory(0, field.SizeBytes), Token);
        return BinaryPrimitives.ReadUInt64LittleEndian(bytes);
    }

    private Task WriteAsync(ConfigField field, ulong value)
    {
        byte[] bytes = new byte[sizeof(ulong)];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        return Handle.WriteAsync(Bar, (ulong)field.Offset, bytes.AsMemory(0, field.SizeBytes), Token);
    }
}
