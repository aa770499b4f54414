// A block device served in this process, and a connection to it with one driver: real sockets, real threads.
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Block.Driver;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio.Queue.Driver;
using Outboard.Virtio.Spec;
using Xunit;

namespace Outboard.Tests.Devices.Block.Driver;

internal sealed class BlockRig : IAsyncDisposable
{
    private const int QueueSize = 256;

    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("outboard-");
    private readonly CancellationTokenSource _end = new();
    private readonly Disk _disk;
    private readonly Task _serving;
    private VhostUserFrontend? _frontend;
    private DriverMemory? _memory;
    private FrontendQueue? _queue;
    private BlockDriver? _driver;

    private BlockRig(Disk disk, BlockDeviceOptions? options)
    {
        _disk = disk;
        TaskCompletionSource listening = new(TaskCreationOptions.RunContinuationsAsynchronously);
        VhostUserBackendOptions serving = new() { OnListening = listening.SetResult };
        _serving = VhostUserBackend.ServeAsync(new BlockDevice(disk, options), SocketPath, serving, _end.Token);
        Listening = listening.Task;
    }

    public string SocketPath => Path.Combine(_folder.FullName, "s");

    public BlockDriver Driver => _driver!;

    public BlockConfigView Config { get; private set; } = new();

    private Task Listening { get; }

    /// <summary>Serves a disk, without connecting.</summary>
    public static async Task<BlockRig> ServeAsync(Disk disk, BlockDeviceOptions? options = null)
    {
        BlockRig rig = new(disk, options);
        await rig.Listening;
        return rig;
    }

    /// <summary>Serves a disk, and connects a driver.</summary>
    public static async Task<BlockRig> ConnectAsync(
        Disk disk, BlockDeviceOptions? options = null, int slots = 32, uint dataBytes = 65536, uint segmentBytes = 0,
        bool indirect = false)
    {
        BlockRig rig = await ServeAsync(disk, options);
        VhostUserFrontend frontend = await VhostUserFrontend.ConnectAsync(
            rig.SocketPath, new VhostUserFrontendOptions { UseIndirect = indirect });
        rig._frontend = frontend;
        rig.Config = BlockConfigView.Decode(await frontend.GetConfigAsync(0, BlockConfig.Bytes), frontend.Features);
        rig._memory = new DriverMemory(BlockDriver.MemoryBytes(slots, dataBytes) + (1 << 20));
        await frontend.ShareMemoryAsync(rig._memory);
        rig._queue = await frontend.StartQueueAsync(0, QueueSize, rig._memory);
        rig._driver = new BlockDriver(rig._queue, slots, dataBytes, segmentBytes);
        return rig;
    }

    /// <summary>Submits, and waits until everything in flight is completed.</summary>
    public List<BlockCompletion> FinishAll()
    {
        List<BlockCompletion> all = [];
        BlockCompletion[] some = new BlockCompletion[Driver.SlotCount];
        Driver.Submit();
        while (Driver.InFlight > 0)
        {
            int count = Driver.Collect(some);
            all.AddRange(some[..count]);
            Assert.True(count > 0 || _queue!.WaitForUsed(10_000), "the device completes nothing");
        }

        return all;
    }

    public async ValueTask DisposeAsync()
    {
        if (_frontend is not null)
        {
            await _frontend.DisposeAsync();
        }

        await _end.CancelAsync();
        await _serving;
        _queue?.Dispose();
        _memory?.Dispose();
        _disk.Dispose();
        _end.Dispose();
        _folder.Delete(recursive: true);
    }
}
