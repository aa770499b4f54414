// A controller that is served over vfio-user, its client, memory, and our driver. Bad input goes in by raw commands.
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Nvme;
using Outboard.Devices.Nvme.Driver;
using Outboard.Devices.Nvme.Queues;
using Outboard.Devices.Nvme.Spec;
using Outboard.Pci.Driver;
using Outboard.Tests.VfioUser.Client;
using Outboard.VfioUser.Client;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Devices.Nvme;

internal sealed class NvmeRig : IAsyncDisposable
{
    public const int DiskBytes = 8 << 20;
    private readonly List<Disk> _disks;
    private readonly ServedFunction _served;

    private NvmeRig(List<Disk> disks, NvmeController controller, ServedFunction served, VfioUserClient client)
    {
        _disks = disks;
        Controller = controller;
        _served = served;
        Client = client;
    }

    public NvmeController Controller { get; }

    public VfioUserClient Client { get; }

    public DriverMemory Memory { get; } = new(32 << 20);

    public NvmeDriver Driver { get; private set; } = null!;

    public string ServedPath => _served.Path;

    private static CancellationToken Cancellation => TestContext.Current.CancellationToken;

    /// <summary>Serves memory disks (or the given ones), and takes hold of the controller.</summary>
    public static async Task<NvmeRig> StartAsync(
        NvmeOptions? options = null, bool isShared = true, bool shadow = true, int blockSize = 512,
        bool readOnly = false, params Disk[] disks)
    {
        List<Disk> all = disks.Length > 0 ? [.. disks] : [new MemoryDisk(DiskBytes), new MemoryDisk(DiskBytes)];
        NvmeController controller = new(
            [.. all.Select(disk => new NvmeNamespace(disk, blockSize, readOnly))],
            options ?? new NvmeOptions { QueuePairs = 4, QueueSize = 64, WorkerCount = 2 });
        ServedFunction served = new(controller);
        VfioUserClient client = await VfioUserClient.ConnectAsync(served.Path);
        NvmeRig rig = new(all, controller, served, client);
        await client.MapAsync(
            rig.Memory.GuestAddress, rig.Memory.File.Descriptor, 0, rig.Memory.SizeBytes, isShared,
            cancellation: Cancellation);
        await rig.RestartAsync(shadow);
        return rig;
    }

    /// <summary>A new driver takes hold of the controller.</summary>
    public async Task RestartAsync(bool shadow = true)
    {
        Driver?.Dispose();
        Driver = await NvmeDriver.StartAsync(Client, Memory, shadow, Cancellation);
    }

    public Task<NvmeDriverQueue> CreateQueueAsync(int id = 1, uint size = 16, bool hasInterrupt = true) =>
        Driver.CreateQueueAsync(id, size, hasInterrupt, Cancellation);

    public DriverBuffer Allocate(uint bytes = 4096) => Memory.Allocate(bytes, 4096);

    /// <summary>Carries out an admin command.</summary>
    public async Task<NvmeStatus> AdminAsync(NvmeCommand command) =>
        (await Driver.ExecuteAsync(command, Cancellation)).Status;

    /// <summary>Goes over to the pin.</summary>
    public async Task DisableVectorsAsync()
    {
        byte[] config = new byte[256];
        await Client.ReadAsync(PciHandle.Config, 0, config, Cancellation);
        int at = Controller.Interrupts.Msix!.Offset;
        await Client.WriteAsync(PciHandle.Config, (ulong)at + 2, new byte[2], Cancellation);
    }

    /// <summary>Reads a log page.</summary>
    public async Task<byte[]> ReadLogAsync(NvmeLogPage page, int bytes, uint flags = 0)
    {
        NvmeStatus status = await AdminAsync(new NvmeCommand
        {
            Opcode = (byte)NvmeAdminOpcode.GetLogPage,
            Namespace = uint.MaxValue,
            Pointer1 = Driver.Data.GuestAddress,
            Word10 = (uint)page | flags | ((uint)((bytes / 4) - 1) << 16),
        });
        Assert.Equal(NvmeStatus.Success, status);
        return Driver.Data.Span[..bytes].ToArray();
    }

    /// <summary>Carries out an I/O command.</summary>
    public static async Task<NvmeStatus> RunAsync(NvmeDriverQueue queue, NvmeCommand command)
    {
        Assert.True(queue.TryAdd(in command));
        queue.Submit();
        NvmeFinished finished = (await CollectAsync(queue, 1))[0];
        Assert.Equal(command.Id, finished.Id);
        return (NvmeStatus)finished.Status;
    }

    /// <summary>Waits for so many commands.</summary>
    public static async Task<List<NvmeFinished>> CollectAsync(NvmeDriverQueue queue, int count)
    {
        List<NvmeFinished> all = [];
        NvmeFinished[] some = new NvmeFinished[16];
        long start = Environment.TickCount64;
        while (all.Count < count)
        {
            int got = queue.Collect(some);
            all.AddRange(some[..got]);
            if (got == 0)
            {
                Assert.True(Environment.TickCount64 - start < 20_000, $"{all.Count} of {count} commands finished");
                await Task.Delay(1, Cancellation);
            }
        }

        return all;
    }

    /// <summary>A read or write of whole blocks, with PRPs made for any buffer of pages.</summary>
    public NvmeCommand Move(
        NvmeIoOpcode opcode, DriverBuffer data, ulong block, int blockSize = 512, uint number = 1, uint skip = 0)
    {
        NvmeCommand command = new()
        {
            Opcode = (byte)opcode,
            Id = (ushort)(block + 7),
            Namespace = number,
            Pointer1 = data.GuestAddress + skip,
            Word10 = (uint)block,
            Word12 = ((data.Length - skip) / (uint)blockSize) - 1,
        };
        uint length = (command.Word12 + 1) * (uint)blockSize;
        uint first = 4096 - (skip % 4096);
        if (length > first)
        {
            uint pages = (length - first + 4095) / 4096;
            ulong next = data.GuestAddress + skip + first;
            command.Pointer2 = pages == 1 ? next : MakeList(next, pages);
        }

        return command;
    }

    /// <summary>Random bytes in a new buffer.</summary>
    public DriverBuffer Fill(uint bytes)
    {
        DriverBuffer buffer = Allocate(bytes);
        Random.Shared.NextBytes(buffer.Span);
        return buffer;
    }

    public async ValueTask DisposeAsync()
    {
        Driver?.Dispose();
        await Client.DisposeAsync();
        await _served.DisposeAsync();
        await Controller.DisposeAsync();
        _disks.ForEach(disk => disk.Dispose());
        Memory.Dispose();
    }

    private ulong MakeList(ulong next, uint pages)
    {
        DriverBuffer list = Allocate();
        ulong start = list.GuestAddress;
        for (uint i = 0, at = 0; i < pages; i++)
        {
            if (at == 511 && i < pages - 1)
            {
                DriverBuffer more = Allocate();
                BitConverter.TryWriteBytes(list.Span[(511 * 8)..], more.GuestAddress);
                list = more;
                at = 0;
            }

            BitConverter.TryWriteBytes(list.Span[(int)(at++ * 8)..], next + (i * 4096));
        }

        return start;
    }
}

/// <summary>Lists out of a dictionary: for the parser alone.</summary>
internal sealed class TestLists : GuestLists
{
    public Dictionary<ulong, byte[]> Pages { get; } = [];

    public int Reads { get; private set; }

    internal override bool TryRead(ulong address, Span<byte> destination)
    {
        Reads++;
        for (int i = 0; i < destination.Length; i++)
        {
            ulong at = address + (ulong)i;
            destination[i] = Pages.TryGetValue(at & ~4095UL, out byte[]? page) ? page[at & 4095] : (byte)0;
        }

        return true;
    }
}
