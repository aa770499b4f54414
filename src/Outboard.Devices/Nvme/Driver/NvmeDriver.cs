// The driver's side of NVMe: any controller that somebody serves as a PCI function can be driven with it, without a
// virtual machine.
//
//   StartAsync -> CreateQueueAsync ... -> NvmeDriverQueue is used -> DeleteQueueAsync, StopAsync
//
// Completions of admin commands are waited for by looking. Not here: several controllers, namespace management,
// metadata, SGLs (but for tests), host memory buffers.
using System.Buffers.Binary;
using System.Diagnostics;
using Outboard.Devices.Nvme.Spec;
using Outboard.Linux.Events;
using Outboard.Memory;
using Outboard.Pci.Bars;
using Outboard.Pci.Driver;
using Outboard.Pci.Interrupts;
using Outboard.Pci.Spec;
using Outboard.Virtio.Queue.Driver;

namespace Outboard.Devices.Nvme.Driver;

/// <summary>Drives an NVMe controller. Not thread-safe; each I/O queue may be used by a thread of its own.</summary>
public sealed class NvmeDriver : IDisposable
{
    private const uint AdminEntries = 64;
    private const uint PageBytes = 4096;
    private const uint MemoryAndDma = 6;
    private const uint EnabledWithEntrySizes = 0x00460001;
    private const ushort MsixEnable = 1 << 15;
    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(20);

    private PciHandle _device;
    private readonly DriverMemory _memory;
    private readonly Dictionary<ushort, NvmeCompletion> _early = [];
    private readonly List<EventFd> _events = [];
    private readonly List<PciDoorbell> _doorbells = [];
    private readonly List<(NvmeRings Rings, EventFd? Completed)> _queues = [];
    private DriverBuffer _data;
    private DriverBuffer _shadow;
    private NvmeRings _admin = null!;
    private ushort _lastId;

    private NvmeDriver(PciHandle device, DriverMemory memory)
    {
        _device = device;
        _memory = memory;
    }

    /// <summary>Bytes of a command's data at most.</summary>
    public uint MaxTransferBytes { get; private set; }

    /// <summary>I/O queue pairs that may be made.</summary>
    public int QueuePairs { get; private set; }

    /// <summary>Whether doorbells are in memory.</summary>
    public bool UsesShadowDoorbells { get; private set; }

    internal ulong Capabilities { get; private set; }

    internal NvmeRings Admin => _admin;

    internal DriverMemory Memory => _memory;

    internal int StrideBytes => 4 << (int)((Capabilities >> 32) & 0xf);

    /// <summary>Takes a controller: disables it, makes the admin queues, enables it.</summary>
    /// <param name="device">The function.</param>
    /// <param name="memory">Memory that the device can reach already.</param>
    /// <param name="shadowDoorbells">Put doorbells into memory, if the controller offers that.</param>
    /// <param name="cancellation">Gives up waiting.</param>
    /// <exception cref="InvalidDataException">The controller does not work.</exception>
    public static async Task<NvmeDriver> StartAsync(
        PciHandle device, DriverMemory memory, bool shadowDoorbells = true, CancellationToken cancellation = default)
    {
        ArgumentNullException.ThrowIfNull(device);
        ArgumentNullException.ThrowIfNull(memory);
        NvmeDriver driver = new(device, memory);
        try
        {
            await driver.EnableAsync(cancellation).ConfigureAwait(false);
            await driver.SetUpAsync(shadowDoorbells, cancellation).ConfigureAwait(false);
            return driver;
        }
        catch
        {
            driver.Dispose();
            throw;
        }
    }

    /// <summary>Lets go of eventfds. The controller is not told; see <see cref="StopAsync"/>.</summary>
    public void Dispose()
    {
        _events.ForEach(bell => bell.Dispose());
        _doorbells.ForEach(doorbell => doorbell.Event.Dispose());
    }

    /// <summary>Size of a namespace: logical blocks, and bytes of one.</summary>
    /// <exception cref="InvalidDataException">There is none of this number.</exception>
    public async Task<(ulong Blocks, int BlockBytes)> GetSizeAsync(
        uint number, CancellationToken cancellation = default)
    {
        byte[] data = await IdentifyAsync(NvmeIdentify.Namespace, number, cancellation).ConfigureAwait(false);
        int shift = data[130 + ((data[26] & 0xf) * 4)];
        return (BinaryPrimitives.ReadUInt64LittleEndian(data), 1 << shift);
    }

    /// <summary>Makes a pair of I/O queues.</summary>
    /// <param name="id">Identifier, from 1.</param>
    /// <param name="size">Entries.</param>
    /// <param name="hasInterrupt">Whether <see cref="NvmeDriverQueue.Completed"/> is signalled.</param>
    /// <param name="cancellation">Gives up waiting.</param>
    /// <exception cref="InvalidDataException">The controller refuses.</exception>
    public async Task<NvmeDriverQueue> CreateQueueAsync(
        int id, uint size, bool hasInterrupt = true, CancellationToken cancellation = default)
    {
        NvmeRings rings = new(_device, _memory, id, size, StrideBytes);
        EventFd? completed = null;
        if (hasInterrupt)
        {
            completed = new EventFd();
            _events.Add(completed);
            await _device.BindAsync(InterruptKind.Msix, id, [completed], cancellation).ConfigureAwait(false);
        }

        if (UsesShadowDoorbells)
        {
            rings.UseShadow(
                MemoryWindow.Of(_shadow.Slice(0, PageBytes).Memory),
                MemoryWindow.Of(_shadow.Slice(PageBytes, PageBytes).Memory));
        }

        uint sizeAndId = ((size - 1) << 16) | (uint)id;
        await RequireAsync(new NvmeCommand
        {
            Opcode = (byte)NvmeAdminOpcode.CreateCompletionQueue,
            Pointer1 = rings.CompletionAddress,
            Word10 = sizeAndId,
            Word11 = ((uint)(hasInterrupt ? id : 0) << 16) | (hasInterrupt ? 3u : 1),
        }, cancellation).ConfigureAwait(false);
        await RequireAsync(new NvmeCommand
        {
            Opcode = (byte)NvmeAdminOpcode.CreateSubmissionQueue,
            Pointer1 = rings.SubmissionAddress,
            Word10 = sizeAndId,
            Word11 = ((uint)id << 16) | 1,
        }, cancellation).ConfigureAwait(false);
        rings.Bell = await FindBellAsync(id, cancellation).ConfigureAwait(false);
        _queues.Add((rings, completed));
        return new NvmeDriverQueue(rings, completed);
    }

    /// <summary>Deletes a pair of I/O queues; what is in flight comes to its end before.</summary>
    public async Task DeleteQueueAsync(int id, CancellationToken cancellation = default)
    {
        foreach (NvmeAdminOpcode opcode in (NvmeAdminOpcode[])
            [NvmeAdminOpcode.DeleteSubmissionQueue, NvmeAdminOpcode.DeleteCompletionQueue])
        {
            await RequireAsync(
                new NvmeCommand { Opcode = (byte)opcode, Word10 = (uint)id }, cancellation).ConfigureAwait(false);
        }
    }

    /// <summary>Disables the controller: nothing uses the memory any more when the task ends.</summary>
    public async Task StopAsync(CancellationToken cancellation = default)
    {
        await WriteRegisterAsync(NvmeRegister.Configuration, 0, cancellation).ConfigureAwait(false);
        await WaitForStatusAsync(NvmeControllerStatus.None, cancellation).ConfigureAwait(false);
    }

    /// <summary>Goes over to another function, which the controller has moved to with its queues.</summary>
    internal async Task FollowAsync(PciHandle device, CancellationToken cancellation = default)
    {
        _device = device;
        _admin.Device = device;
        foreach ((NvmeRings rings, EventFd? completed) in _queues)
        {
            rings.Device = device;
            rings.Bell = null;
            if (completed is not null)
            {
                await device.BindAsync(InterruptKind.Msix, rings.Id, [completed], cancellation).ConfigureAwait(false);
            }
        }
    }

    internal async Task<byte[]> IdentifyAsync(
        NvmeIdentify what, uint number, CancellationToken cancellation = default)
    {
        await RequireAsync(new NvmeCommand
        {
            Opcode = (byte)NvmeAdminOpcode.Identify,
            Namespace = number,
            Pointer1 = _data.GuestAddress,
            Word10 = (uint)what,
        }, cancellation).ConfigureAwait(false);
        return _data.Span.ToArray();
    }

    /// <summary>A page of memory for the data of admin commands.</summary>
    internal DriverBuffer Data => _data;

    /// <summary>Writes a doorbell in memory, whatever the queue says: for tests.</summary>
    internal void SetShadow(int index, uint value) =>
        MemoryWindow.Of(_shadow.Memory).WriteRelease32((uint)(index * StrideBytes), value);

    /// <summary>Adds an admin command, and tells its identifier.</summary>
    internal ushort Submit(NvmeCommand command)
    {
        command.Id = ++_lastId;
        if (!_admin.TryAdd(in command))
        {
            throw new InvalidDataException("the admin queue is full");
        }

        _admin.Ring();
        return command.Id;
    }

    /// <summary>Waits for an admin command.</summary>
    /// <exception cref="TimeoutException">It does not come.</exception>
    internal async Task<NvmeCompletion> WaitAsync(ushort id, CancellationToken cancellation = default)
    {
        long start = Stopwatch.GetTimestamp();
        NvmeCompletion completion;
        while (!_early.Remove(id, out completion))
        {
            if (_admin.TryTake(out completion))
            {
                _admin.Release();
                _early[completion.Id] = completion;
                continue;
            }

            if (Stopwatch.GetElapsedTime(start) > s_limit)
            {
                throw new TimeoutException($"admin command {id} is not completed");
            }

            await Task.Delay(1, cancellation).ConfigureAwait(false);
        }

        return completion;
    }

    /// <summary>Whether an admin command has completed already.</summary>
    internal bool IsCompleted(ushort id)
    {
        while (_admin.TryTake(out NvmeCompletion completion))
        {
            _admin.Release();
            _early[completion.Id] = completion;
        }

        return _early.ContainsKey(id);
    }

    internal Task<NvmeCompletion> ExecuteAsync(NvmeCommand command, CancellationToken cancellation = default) =>
        WaitAsync(Submit(command), cancellation);

    internal async Task<ulong> ReadRegisterAsync(int offset, int bytes, CancellationToken cancellation = default)
    {
        byte[] data = new byte[sizeof(ulong)];
        await _device.ReadAsync(0, (ulong)offset, data.AsMemory(0, bytes), cancellation).ConfigureAwait(false);
        return BinaryPrimitives.ReadUInt64LittleEndian(data);
    }

    internal Task WriteRegisterAsync(int offset, uint value, CancellationToken cancellation = default) =>
        _device.WriteAsync(0, (ulong)offset, BitConverter.GetBytes(value), cancellation);

    internal async Task WaitForStatusAsync(NvmeControllerStatus wanted, CancellationToken cancellation = default)
    {
        const uint mask = (uint)(NvmeControllerStatus.Ready | NvmeControllerStatus.Fatal);
        long start = Stopwatch.GetTimestamp();
        while (true)
        {
            ulong status =
                await ReadRegisterAsync(NvmeRegister.Status, sizeof(uint), cancellation).ConfigureAwait(false);
            if ((status & mask) == (uint)wanted)
            {
                return;
            }

            if (Stopwatch.GetElapsedTime(start) > s_limit)
            {
                throw new InvalidDataException($"status 0x{status:x}, wanted {wanted}");
            }

            await Task.Delay(1, cancellation).ConfigureAwait(false);
        }
    }

    private async Task RequireAsync(NvmeCommand command, CancellationToken cancellation)
    {
        NvmeCompletion completion = await ExecuteAsync(command, cancellation).ConfigureAwait(false);
        if (completion.Status != NvmeStatus.Success)
        {
            throw new InvalidDataException(
                $"admin command 0x{command.Opcode:x2}: status 0x{(ushort)completion.Status:x}");
        }
    }

    private async Task EnableAsync(CancellationToken cancellation)
    {
        Capabilities = await ReadRegisterAsync(0, sizeof(ulong), cancellation).ConfigureAwait(false);
        await StopAsync(cancellation).ConfigureAwait(false);
        await _device.WriteAsync(
            PciHandle.Config, PciRegister.Command, BitConverter.GetBytes((ushort)MemoryAndDma), cancellation)
            .ConfigureAwait(false);
        await EnableVectorsAsync(cancellation).ConfigureAwait(false);
        _data = _memory.Allocate(PageBytes, PageBytes);
        _admin = new NvmeRings(_device, _memory, 0, AdminEntries, StrideBytes);
        await WriteRegisterAsync(
            NvmeRegister.AdminQueueAttributes, ((AdminEntries - 1) << 16) | (AdminEntries - 1), cancellation)
            .ConfigureAwait(false);
        foreach ((int register, ulong address) in ((int, ulong)[])[
            (NvmeRegister.AdminSubmissionQueue, _admin.SubmissionAddress),
            (NvmeRegister.AdminCompletionQueue, _admin.CompletionAddress)])
        {
            await _device.WriteAsync(0, (ulong)register, BitConverter.GetBytes(address), cancellation)
                .ConfigureAwait(false);
        }

        await WriteRegisterAsync(NvmeRegister.Configuration, EnabledWithEntrySizes, cancellation)
            .ConfigureAwait(false);
        await WaitForStatusAsync(NvmeControllerStatus.Ready, cancellation).ConfigureAwait(false);
    }

    /// <summary>Finds the MSI-X capability and enables it.</summary>
    private async Task EnableVectorsAsync(CancellationToken cancellation)
    {
        byte[] config = new byte[256];
        await _device.ReadAsync(PciHandle.Config, 0, config, cancellation).ConfigureAwait(false);
        int at = config[PciRegister.CapabilityPointer] & 0xfc;
        for (int steps = 0; at >= 0x40 && steps < 48; steps++, at = config[at + 1] & 0xfc)
        {
            if (config[at] == (byte)PciCapabilityId.Msix)
            {
                ushort control = (ushort)(BinaryPrimitives.ReadUInt16LittleEndian(config.AsSpan(at + 2)) | MsixEnable);
                await _device.WriteAsync(
                    PciHandle.Config, (ulong)at + 2, BitConverter.GetBytes(control), cancellation)
                    .ConfigureAwait(false);
                return;
            }
        }
    }

    private async Task SetUpAsync(bool shadowDoorbells, CancellationToken cancellation)
    {
        byte[] controller =
            await IdentifyAsync(NvmeIdentify.Controller, 0, cancellation).ConfigureAwait(false);
        MaxTransferBytes = controller[77] == 0 ? 1u << 20 : PageBytes << Math.Min((int)controller[77], 12);
        NvmeCompletion granted = await ExecuteAsync(new NvmeCommand
        {
            Opcode = (byte)NvmeAdminOpcode.SetFeatures,
            Word10 = (uint)NvmeFeature.QueueCount,
            Word11 = 0xfffe_fffe,
        }, cancellation).ConfigureAwait(false);
        QueuePairs = (int)Math.Min(granted.Result & 0xffff, granted.Result >> 16) + 1;
        bool isOffered = (BinaryPrimitives.ReadUInt16LittleEndian(controller.AsSpan(256)) & (1 << 8)) != 0;
        if (shadowDoorbells && isOffered)
        {
            _shadow = _memory.Allocate(2 * PageBytes, PageBytes);
            _shadow.Span.Clear();
            await RequireAsync(new NvmeCommand
            {
                Opcode = (byte)NvmeAdminOpcode.DoorbellBufferConfig,
                Pointer1 = _shadow.GuestAddress,
                Pointer2 = _shadow.GuestAddress + PageBytes,
            }, cancellation).ConfigureAwait(false);
            UsesShadowDoorbells = true;
        }
    }

    private async Task<EventFd?> FindBellAsync(int id, CancellationToken cancellation)
    {
        if (!UsesShadowDoorbells)
        {
            return null;
        }

        IReadOnlyList<PciDoorbell> all =
            await _device.OpenDoorbellsAsync(0, cancellation).ConfigureAwait(false);
        _doorbells.AddRange(all);
        ulong offset = (ulong)(NvmeRegister.Doorbells + (id * 2 * StrideBytes));
        return all.FirstOrDefault(doorbell => doorbell.Offset == offset)?.Event;
    }
}
