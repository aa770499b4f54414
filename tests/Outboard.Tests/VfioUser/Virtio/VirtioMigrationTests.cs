// A virtio function moves to another process, by our own client, while requests go on. The copy of guest memory gets
// only what the log of dirty pages tells, so a page that the device wrote and did not mark is found missing.
using System.Buffers.Binary;
using System.Security.Cryptography;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Block.Driver;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Pci;
using Outboard.Pci.Driver;
using Outboard.Pci.Interrupts;
using Outboard.Tests.VfioUser.Client;
using Outboard.Tests.VhostUser;
using Outboard.VfioUser.Client;
using Outboard.VfioUser.Protocol;
using Outboard.Virtio.Pci;
using Outboard.Virtio.Pci.Driver;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.VfioUser.Virtio;

public sealed class VirtioMigrationTests : IAsyncLifetime
{
    private const int DiskBytes = 4 << 20;
    private const int Page = 4096;
    private const int Slots = 32;
    private const ulong AllPages = 4 << 20;
    private readonly MemoryDisk _disk = new(DiskBytes);
    private readonly DriverMemory _memory = new(AllPages);
    private readonly DriverBuffer[] _headers = new DriverBuffer[Slots];
    private readonly DriverBuffer[] _data = new DriverBuffer[Slots];
    private readonly DriverBuffer[] _status = new DriverBuffer[Slots];
    private readonly byte[] _content = RandomNumberGenerator.GetBytes(DiskBytes);
    private Machine _source = null!;
    private byte[] _copy = [];

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    private Span<byte> Memory => _memory.Memory.Regions[0].Segment.Span;

    public async ValueTask InitializeAsync()
    {
        _source = await Machine.StartAsync(_disk);
        await Task.Run(FillAsync, Cancellation);
    }

    public async ValueTask DisposeAsync()
    {
        await _source.DisposeAsync();
        _memory.Dispose();
        _disk.Dispose();
    }

    [Theory]
    [InlineData(true, true)]
    [InlineData(true, false)]
    [InlineData(false, true)]
    [InlineData(false, false)]
    public async Task A_disk_moves_while_it_is_read(bool isPacked, bool hasPreCopy)
    {
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(
            _source.Client, isPacked ? ulong.MaxValue : ~VirtioFeatures.RingPacked, Cancellation);
        await _source.Client.MapAsync(_memory.GuestAddress, _memory.File, 0, AllPages, Cancellation);
        VirtioPciQueue queue = await driver.StartQueueAsync(1, 128, _memory, Cancellation);
        await driver.RunAsync(Cancellation);
        MakeBuffers();
        List<byte> stream = [];
        await _source.Client.StartDirtyLogAsync(cancellation: Cancellation);
        _copy = Memory.ToArray();
        if (hasPreCopy)
        {
            await _source.Client.SetMigrationStateAsync(MigrationState.PreCopy, Cancellation);
            await MigrationStream.ReadAllAsync(_source.Client, stream);
            Assert.NotEmpty(stream);
        }

        int dirty = 0;
        for (int round = 0; round < 3; round++)
        {
            await ReadAsync(queue, round * Slots, Slots / 2);
            dirty += await CopyDirtyAsync();
        }

        // these are on their way when the device is stopped: it has taken them, or some, or none
        Submit(queue, 3 * Slots, Slots);
        queue.Submit();
        CopyDriversWrites(queue);
        await _source.Client.SetMigrationStateAsync(MigrationState.StopCopy, Cancellation);
        dirty += await CopyDirtyAsync();
        Assert.Equal(0, await CopyDirtyAsync());
        await MigrationStream.ReadAllAsync(_source.Client, stream);
        RequireCopied(queue);
        Assert.InRange(dirty, Slots * 3, (Slots * 5) + 16);

        await using Machine destination = await Machine.StartAsync(_disk);
        await ArriveAsync(destination, queue, stream);
        Assert.NotEqual(0UL, queue.Call.Wait(20_000));
        await CollectAsync(queue, 3 * Slots, Slots);
        for (int round = 4; round < 8; round++)
        {
            Submit(queue, round * Slots, Slots);
            queue.Ring.Publish();
            await destination.KickAsync(1);
            await CollectAsync(queue, round * Slots, Slots);
        }

        byte[] status = new byte[1];
        await destination.Client.ReadAsync(0, VirtioPciRegister.DeviceStatus, status, Cancellation);
        Assert.Equal(15, status[0]);
    }

    /// <summary>The client may stop and go on without moving; requests wait in the ring meanwhile.</summary>
    [Fact]
    public async Task A_stopped_function_holds_nothing_and_goes_on()
    {
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(_source.Client, cancellation: Cancellation);
        await _source.Client.MapAsync(_memory.GuestAddress, _memory.File, 0, AllPages, Cancellation);
        VirtioPciQueue queue = await driver.StartQueueAsync(1, 128, _memory, Cancellation);
        await driver.RunAsync(Cancellation);
        MakeBuffers();
        foreach (MigrationState state in (MigrationState[])[MigrationState.Stop, MigrationState.StopCopy])
        {
            await _source.Client.SetMigrationStateAsync(state, Cancellation);
            Submit(queue, 0, 4);
            queue.Submit();
            queue.Kick();
            await _source.Client.UnmapAsync(_memory.GuestAddress, AllPages, Cancellation);
            await _source.Client.MapAsync(_memory.GuestAddress, _memory.File, 0, AllPages, Cancellation);
            Assert.False(queue.Ring.TryCollect(out _, out _));
            await _source.Client.SetMigrationStateAsync(MigrationState.Running, Cancellation);
            await CollectAsync(queue, 0, 4);
        }

        // a client that leaves while it is stopped does not leave it so
        await _source.Client.SetMigrationStateAsync(MigrationState.Stop, Cancellation);
        await _source.ReconnectAsync();
        await _source.Client.MapAsync(_memory.GuestAddress, _memory.File, 0, AllPages, Cancellation);
        Submit(queue, 4, 4);
        queue.Ring.Publish();
        await _source.KickAsync(1);
        await CollectAsync(queue, 4, 4);
    }

    [Fact]
    public async Task What_was_written_to_the_configuration_space_moves()
    {
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(_source.Client, cancellation: Cancellation);
        const uint writeback = 0x2000 + 32;
        byte[] value = new byte[1];
        await _source.Client.ReadAsync(0, writeback, value, Cancellation);
        byte written = (byte)(1 - value[0]);
        await _source.Client.WriteAsync(0, writeback, new[] { written }, Cancellation);
        await _source.Client.WriteAsync(PciHandle.Config, 0x3c, new byte[] { 0x5a }, Cancellation);
        List<byte> stream = await MigrationStream.LeaveAsync(_source.Client);
        await using Machine destination = await Machine.StartAsync(_disk);
        await MigrationStream.ArriveAsync(destination.Client, stream);
        await destination.Client.ReadAsync(0, writeback, value, Cancellation);
        Assert.Equal(written, value[0]);
        await destination.Client.ReadAsync(PciHandle.Config, 0x3c, value, Cancellation);
        Assert.Equal(0x5a, value[0]);
        await destination.Client.ReadAsync(0, VirtioPciRegister.DeviceStatus, value, Cancellation);
        Assert.Equal(11, value[0]);
    }

    [Fact]
    public async Task Streams_that_do_not_suit_are_refused_and_a_reset_leads_out()
    {
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(_source.Client, cancellation: Cancellation);
        byte[] stream = [.. await MigrationStream.LeaveAsync(_source.Client)];
        await using Machine destination = await Machine.StartAsync(_disk, queues: 2);
        await Refused(destination, stream);
        using MemoryDisk other = new(DiskBytes);
        await using Machine good = await Machine.StartAsync(other);
        for (int i = 0; i < 40; i++)
        {
            byte[] altered = [.. stream];
            altered[i < 16 ? i : Random.Shared.Next(24, stream.Length)] ^= 0xff;
            await Refused(good, altered);
        }

        await Refused(good, [.. stream, 1]);
        await Refused(good, stream[..^1]);
        await Refused(good, stream[..7]);
        await Refused(good, stream[..24]);
        await good.Client.SetMigrationStateAsync(MigrationState.Resuming, Cancellation);
        await good.Client.SetMigrationStateAsync(MigrationState.Running, Cancellation);
        await good.Client.SetMigrationStateAsync(MigrationState.Resuming, Cancellation);
        await good.Client.WriteMigrationDataAsync(stream, Cancellation);
        await good.Client.SetMigrationStateAsync(MigrationState.Running, Cancellation);
    }

    [Fact]
    public async Task An_unmap_reports_what_was_written_until_then()
    {
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(_source.Client, cancellation: Cancellation);
        await _source.Client.MapAsync(_memory.GuestAddress, _memory.File, 0, AllPages, Cancellation);
        VirtioPciQueue queue = await driver.StartQueueAsync(0, 64, _memory, Cancellation);
        await driver.RunAsync(Cancellation);
        MakeBuffers();
        await _source.Client.StartDirtyLogAsync(cancellation: Cancellation);
        await _source.Client.TakeDirtyLogAsync(_memory.GuestAddress, AllPages, cancellation: Cancellation);
        Submit(queue, 0, 8);
        queue.Submit();
        await CollectAsync(queue, 0, 8);
        byte[] bits = await _source.Client.UnmapLoggedAsync(
            _memory.GuestAddress, AllPages, cancellation: Cancellation);
        for (int slot = 0; slot < Slots; slot++)
        {
            int page = (int)((_data[slot].GuestAddress - _memory.GuestAddress) / Page);
            Assert.Equal(slot < 8, (bits[page / 8] >> (page % 8) & 1) != 0);
        }
    }

    private static async Task Refused(Machine machine, byte[] stream)
    {
        await machine.Client.SetMigrationStateAsync(MigrationState.Resuming, Cancellation);
        VfioUserException? refusal = null;
        try
        {
            await machine.Client.WriteMigrationDataAsync(stream, Cancellation);
            await machine.Client.SetMigrationStateAsync(MigrationState.Stop, Cancellation);
        }
        catch (VfioUserException error)
        {
            refusal = error;
        }

        Assert.NotNull(refusal);
        await machine.Client.ResetAsync(Cancellation);
        Assert.Equal(MigrationState.Running, await machine.Client.GetMigrationStateAsync(Cancellation));
    }

    private async Task ArriveAsync(Machine destination, VirtioPciQueue queue, List<byte> stream)
    {
        await destination.Client.MapAsync(_memory.GuestAddress, _memory.File, 0, AllPages, Cancellation);
        queue.Call.Take();
        await destination.Client.BindAsync(InterruptKind.Msix, 2, [queue.Call], Cancellation);
        await destination.Client.SetMigrationStateAsync(MigrationState.Resuming, Cancellation);
        await destination.Client.WriteMigrationDataAsync(stream.ToArray(), Cancellation);
        await destination.Client.SetMigrationStateAsync(MigrationState.Running, Cancellation);
    }

    private async Task FillAsync()
    {
        using DriverMemory memory = new(1 << 20);
        await _source.Client.MapAsync(memory.GuestAddress, memory.File, 0, memory.SizeBytes, Cancellation);
        using VirtioPciDriver driver = await VirtioPciDriver.StartAsync(_source.Client, cancellation: Cancellation);
        VirtioPciQueue queue = await driver.StartQueueAsync(0, 16, memory, Cancellation);
        await driver.RunAsync(Cancellation);
        BlockDriver block = new(queue, 1, 1 << 17);
        for (int at = 0; at < DiskBytes; at += 1 << 17)
        {
            block.Write((ulong)at, _content.AsSpan(at, 1 << 17));
        }

        await driver.ResetAsync(Cancellation);
        await _source.Client.UnmapAsync(memory.GuestAddress, memory.SizeBytes, Cancellation);
    }

    private void MakeBuffers()
    {
        for (int slot = 0; slot < Slots; slot++)
        {
            _headers[slot] = _memory.Allocate(16);
        }

        for (int slot = 0; slot < Slots; slot++)
        {
            _data[slot] = _memory.Allocate(Page, Page);
            _status[slot] = _memory.Allocate(1, Page);
        }
    }

    /// <summary>Reads of one page each, of places that follow from their number.</summary>
    private void Submit(VirtioPciQueue queue, int first, int count)
    {
        for (int i = 0; i < count; i++)
        {
            _data[i].Span.Fill(0xdd);
            _status[i].Span.Fill(0xdd);
            _headers[i].Span.Clear();
            BinaryPrimitives.WriteUInt64LittleEndian(_headers[i].Span[8..], (ulong)Place(first + i) / 512);
            Assert.True(queue.Ring.TryAdd([_headers[i]], [_data[i], _status[i]], (uint)i));
        }
    }

    private static int Place(int number) => number * 7 % (DiskBytes / Page) * Page;

    private async Task ReadAsync(VirtioPciQueue queue, int first, int count)
    {
        Submit(queue, first, count);
        queue.Submit();
        await CollectAsync(queue, first, count);
    }

    private async Task CollectAsync(VirtioPciQueue queue, int first, int count)
    {
        for (int i = 0; i < count; i++)
        {
            uint token = 0;
            await Eventually.TrueAsync(() => queue.Ring.TryCollect(out token, out _), "the request is used");
            Check(first, (int)token);
        }
    }

    private void Check(int first, int slot)
    {
        Assert.Equal(0, _status[slot].Span[0]);
        Assert.True(_data[slot].Span.SequenceEqual(_content.AsSpan(Place(first + slot), Page)));
    }

    /// <returns>Pages that were dirty.</returns>
    private async Task<int> CopyDirtyAsync()
    {
        byte[] bits = await _source.Client.TakeDirtyLogAsync(
            _memory.GuestAddress, AllPages, cancellation: Cancellation);
        int count = 0;
        for (int page = 0; page < (int)AllPages / Page; page++)
        {
            if ((bits[page / 8] >> (page % 8) & 1) != 0)
            {
                Memory.Slice(page * Page, Page).CopyTo(_copy.AsSpan(page * Page));
                count++;
            }
        }

        return count;
    }

    /// <summary>
    /// Copies what the driver wrote: whoever moves a guest sees its processors' writes by other means. Pages that the
    /// device writes meanwhile are dirty, and are copied once more.
    /// </summary>
    private void CopyDriversWrites(VirtioPciQueue queue)
    {
        for (int slot = 0; slot < Slots; slot++)
        {
            Copy(_data[slot].GuestAddress, Page);
            Copy(_status[slot].GuestAddress, 1);
        }

        Copy(queue.Ring.Addresses.Descriptors, 16 * queue.Ring.Size);
    }

    private void Copy(ulong address, int bytes)
    {
        int at = (int)(address - _memory.GuestAddress);
        Memory.Slice(at, bytes).CopyTo(_copy.AsSpan(at));
    }

    /// <summary>What the device wrote, and nobody else, is in the copy: data, states, the used ring.</summary>
    private void RequireCopied(VirtioPciQueue queue)
    {
        List<(ulong Address, int Bytes)> ranges = [];
        for (int slot = 0; slot < Slots; slot++)
        {
            ranges.Add((_data[slot].GuestAddress, Page));
            ranges.Add((_status[slot].GuestAddress, 1));
        }

        bool isPacked = queue.Ring is PackedDriverQueue;
        ranges.Add(isPacked
            ? (queue.Ring.Addresses.Descriptors, 16 * queue.Ring.Size)
            : (queue.Ring.Addresses.Used, 4 + (8 * queue.Ring.Size)));
        foreach ((ulong address, int bytes) in ranges)
        {
            int at = (int)(address - _memory.GuestAddress);
            Assert.True(
                Memory.Slice(at, bytes).SequenceEqual(_copy.AsSpan(at, bytes)), $"0x{address:x}, {bytes} bytes");
        }
    }

    /// <summary>A process with the device, and its client.</summary>
    private sealed class Machine : IAsyncDisposable
    {
        private readonly VirtioPciFunction _function;
        private readonly ServedFunction _served;

        private Machine(MemoryDisk disk, int queues)
        {
            _function = new VirtioPciFunction(
                new BlockDevice(disk, new BlockDeviceOptions { QueueCount = queues }));
            _served = new ServedFunction(_function);
        }

        public VfioUserClient Client { get; private set; } = null!;

        public static async Task<Machine> StartAsync(MemoryDisk disk, int queues = 4)
        {
            Machine machine = new(disk, queues);
            machine.Client = await VfioUserClient.ConnectAsync(machine._served.Path, null, Cancellation);
            return machine;
        }

        public async Task ReconnectAsync()
        {
            await Client.DisposeAsync();
            Client = await VfioUserClient.ConnectAsync(_served.Path, null, Cancellation);
        }

        public Task KickAsync(int queue) =>
            Client.WriteAsync(0, 0x3000 + (4 * (ulong)queue), BitConverter.GetBytes((ushort)queue), Cancellation);

        public async ValueTask DisposeAsync()
        {
            await Client.DisposeAsync();
            await _served.DisposeAsync();
            await _function.DisposeAsync();
        }
    }
}
