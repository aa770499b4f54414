// The whole way in one process: a front-end's socket, the device, its driver, and a back-end behind the driver. The
// device is a virtio-vhost-user device, or a vhost-pci adapter in front of the same engine.
using Outboard.Linux.Sockets;
using Outboard.Pci.Driver;
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Device;
using Outboard.VirtioVhostUser.Protocol;
using Outboard.VirtioVhostUser.VhostPci;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

internal sealed class ApplianceRig : IAsyncDisposable
{
    public const ulong PlainFeatures = VirtioVhostUserSpec.AuxiliaryByQueue;

    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("outboard-");
    private readonly CancellationTokenSource _end = new();
    private readonly Stack<IDisposable> _owned = new();
    private readonly Stack<DriverMemory> _driverMemory = new();
    private readonly ChannelSource _listening;
    private readonly Task _serving;
    private CancellationTokenSource? _backendEnd;
    private Task _backend = Task.CompletedTask;

    private ApplianceRig(VirtioVhostUserOptions options, bool isVhostPci)
    {
        Device = new VirtioVhostUserDevice(options with { Logger = Log });
        SocketPath = Path.Combine(_folder.FullName, "frontend.sock");
        _listening = ChannelSource.Listen(SocketPath);
        _serving = Device.ServeAsync(_listening, _end.Token);
        Adapter = isVhostPci ? new VhostPciFunction(Device) : null;
    }

    public static VirtioVhostUserOptions Options => new() { WindowBytes = 256 << 20, Rings = 4 };

    public LogRecorder Log { get; } = new();

    public VirtioVhostUserDevice Device { get; }

    /// <summary>The adapter; null where the device is driven by itself.</summary>
    public VhostPciFunction? Adapter { get; }

    /// <summary>Who has taken hold of the adapter.</summary>
    public LocalPciHandle? Handle { get; private set; }

    public DriverAccess Access { get; private set; } = null!;

    public string SocketPath { get; }

    public static async Task<ApplianceRig> StartAsync(
        InProcessOptions? access = null, VirtioVhostUserOptions? options = null, bool isVhostPci = false)
    {
        ApplianceRig rig = new(options ?? Options, isVhostPci);
        rig.Access = await rig.TakeHoldAsync(access);
        return rig;
    }

    /// <summary>Resets the device in the midst of whatever it does.</summary>
    public Task ResetDriverAsync() => Access switch
    {
        InProcessAccess access => access.ResetAsync(),
        _ => ((VhostPciAccess)Access).ResetAsync(),
    };

    /// <summary>Serves a device behind the driver.</summary>
    public void StartBackend(VirtioDevice device, VhostUserBackendOptions? options = null)
    {
        _backendEnd = new CancellationTokenSource();
        _backend = ServeAsync(device, options ?? new VhostUserBackendOptions(), _backendEnd.Token);
    }

    /// <summary>Ends the back-end and its driver, which resets the device; then takes hold of it anew.</summary>
    public async Task RestartDriverAsync(InProcessOptions? access = null)
    {
        await StopBackendAsync();
        Access = await TakeHoldAsync(access);
    }

    public T Own<T>(T thing)
        where T : IDisposable
    {
        _owned.Push(thing);
        return thing;
    }

    public DriverMemory Memory(ulong sizeBytes = 1 << 20, ulong guestAddress = 0x1_0000_0000) =>
        Own(new DriverMemory(sizeBytes, guestAddress));

    public async Task<WirePeer> ConnectAsync() =>
        Own(new WirePeer(await UnixSocket.ConnectAsync(SocketPath, TestContext.Current.CancellationToken)));

    public Task<VhostUserFrontend> ConnectFrontendAsync(VhostUserFrontendOptions? options = null) =>
        VhostUserFrontend.ConnectAsync(SocketPath, options, TestContext.Current.CancellationToken);

    public async ValueTask DisposeAsync()
    {
        while (_owned.TryPop(out IDisposable? thing))
        {
            thing.Dispose();
        }

        if (_backendEnd is null)
        {
            await Access.DisposeAsync();
        }

        await StopBackendAsync();
        if (Adapter is not null)
        {
            await Handle!.DisposeAsync();
            await Adapter.DisposeAsync();
        }

        await _end.CancelAsync();
        await _serving.WaitAsync(Eventually.Limit);
        _listening.Dispose();
        Device.Dispose();
        while (_driverMemory.TryPop(out DriverMemory? memory))
        {
            memory.Dispose();
        }

        _end.Dispose();
        _folder.Delete(recursive: true);
        Assert.Empty(Log.Critical);
    }

    private async Task<DriverAccess> TakeHoldAsync(InProcessOptions? access)
    {
        access = (access ?? new InProcessOptions()) with { Logger = Log };
        if (Adapter is null)
        {
            return await InProcessAccess.StartAsync(Device, access);
        }

        if (Handle is not null)
        {
            await Handle.DisposeAsync();
        }

        DriverMemory memory = new(8 << 20, 0x4000_0000);
        _driverMemory.Push(memory);
        Handle = new LocalPciHandle(Adapter);
        await Handle.MapAsync(memory.GuestAddress, memory.File, 0, memory.SizeBytes, default);
        return await VhostPciAccess.StartAsync(Handle, memory, access.Features);
    }

    private async Task ServeAsync(VirtioDevice device, VhostUserBackendOptions options, CancellationToken cancellation)
    {
        using VirtioVhostUserSource source = new(Access, Log);
        await VhostUserBackend.ServeAsync(device, source, options with { Logger = Log }, cancellation);
    }

    private async Task StopBackendAsync()
    {
        if (_backendEnd is { } end)
        {
            await end.CancelAsync();
            await _backend.WaitAsync(Eventually.Limit);
            end.Dispose();
            _backendEnd = null;
        }
    }
}
