// The device as a PCI function over vfio-user, its driver over our client, and a back-end behind that: two socket pairs
// and no virtual machine. The front-end's memory lies in one file, as its machine's would.
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.Tests.VfioUser.Client;
using Outboard.Tests.VhostUser;
using Outboard.VfioUser.Client;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio;
using Outboard.Virtio.Pci;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Device;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

internal sealed class VfioUserRig : IAsyncDisposable
{
    public const ulong WindowBytes = 64 << 20;
    public const int Rings = 4;

    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("outboard-");
    private readonly FileSharedMemory _file = new(MemFd.Create("outboard-tenant", WindowBytes));
    private readonly Stack<IDisposable> _owned = new();
    private readonly ulong _features;
    private CancellationTokenSource _end = new();
    private ChannelSource? _listening;
    private Task _serving = Task.CompletedTask;
    private CancellationTokenSource? _backendEnd;
    private Task _backend = Task.CompletedTask;

    private VfioUserRig(ulong features) => _features = features;

    public LogRecorder Log { get; } = new();

    public VirtioVhostUserDevice Device { get; private set; } = null!;

    public VirtioPciFunction Function { get; private set; } = null!;

    public ServedFunction Served { get; private set; } = null!;

    private string SocketPath => Path.Combine(_folder.FullName, "frontend.sock");

    public static async Task<VfioUserRig> StartAsync(ulong features = ulong.MaxValue)
    {
        VfioUserRig rig = new(features);
        await rig.StartDeviceAsync();
        return rig;
    }

    /// <summary>Memory of the front-end's machine, just started: a part of the file, zeroed.</summary>
    public DriverMemory Memory(ulong offset, ulong sizeBytes, ulong guestAddress)
    {
        DriverMemory memory =
            new(new FileSharedMemory(_file.Descriptor.Duplicate()), offset, sizeBytes, guestAddress);
        _owned.Push(memory);
        MemFd.PunchHole(_file.Descriptor, offset, sizeBytes);
        return memory;
    }

    public Task<VhostUserFrontend> ConnectFrontendAsync(VhostUserFrontendOptions? options = null) =>
        VhostUserFrontend.ConnectAsync(SocketPath, options, TestContext.Current.CancellationToken);

    public Task<VfioUserClient> ConnectClientAsync() =>
        VfioUserClient.ConnectAsync(Served.Path, null, TestContext.Current.CancellationToken);

    /// <summary>The driver, which owns its connection.</summary>
    public async Task<PciAccess> ConnectDriverAsync()
    {
        VfioUserClient client = await ConnectClientAsync();
        DriverMemory memory = new(2 << 20);
        async ValueTask ReleaseAsync()
        {
            await client.DisposeAsync();
            memory.Dispose();
        }

        await client.MapAsync(memory.GuestAddress, memory.File, 0, memory.SizeBytes);
        return await PciAccess.StartAsync(
            client, memory, ReleaseAsync, features: _features,
            cancellation: TestContext.Current.CancellationToken);
    }

    public async Task StartBackendAsync(VirtioDevice device)
    {
        PciAccess access = await ConnectDriverAsync();
        _backendEnd = new CancellationTokenSource();
        _backend = ServeAsync(device, access, _backendEnd.Token);
    }

    /// <summary>Ends the back-end and its driver.</summary>
    public async Task StopBackendAsync()
    {
        if (_backendEnd is { } end)
        {
            await end.CancelAsync();
            await _backend.WaitAsync(Eventually.Limit);
            end.Dispose();
            _backendEnd = null;
        }
    }

    /// <summary>Another process serves the device, with the same file.</summary>
    public async Task RestartDeviceAsync()
    {
        await StopDeviceAsync();
        await StartDeviceAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await StopBackendAsync();
        await StopDeviceAsync();
        while (_owned.TryPop(out IDisposable? thing))
        {
            thing.Dispose();
        }

        _file.Dispose();
        _folder.Delete(recursive: true);
        Assert.Empty(Log.Critical);
    }

    private Task StartDeviceAsync()
    {
        Device = new VirtioVhostUserDevice(new VirtioVhostUserOptions
        {
            Logger = Log,
            WindowBytes = WindowBytes,
            Rings = Rings,
            MemoryFile = _file,
        });
        Function = new VirtioPciFunction(Device, new VirtioPciOptions { Logger = Log, WorkerCount = 1 });
        Served = new ServedFunction(Function);
        _end = new CancellationTokenSource();
        _listening = ChannelSource.Listen(SocketPath);
        _serving = Device.ServeAsync(_listening, _end.Token);
        return Task.CompletedTask;
    }

    private async Task StopDeviceAsync()
    {
        await _end.CancelAsync();
        await _serving.WaitAsync(Eventually.Limit);
        _listening!.Dispose();
        _end.Dispose();
        await Served.DisposeAsync();
        await Function.DisposeAsync();
        Device.Dispose();
    }

    private async Task ServeAsync(VirtioDevice device, PciAccess access, CancellationToken cancellation)
    {
        using VirtioVhostUserSource source = new(access, Log);
        await VhostUserBackend.ServeAsync(
            device, source, new VhostUserBackendOptions { Logger = Log }, cancellation);
    }
}
