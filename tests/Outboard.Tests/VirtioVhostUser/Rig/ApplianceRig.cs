// The whole way in one process: a front-end's socket, the device, its driver, and a back-end behind the driver.
using Outboard.Linux.Sockets;
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio;
using Outboard.Virtio.Queue.Driver;
using Outboard.VirtioVhostUser.Channel;
using Outboard.VirtioVhostUser.Device;
using Outboard.VirtioVhostUser.Protocol;
using Xunit;

namespace Outboard.Tests.VirtioVhostUser;

internal sealed class ApplianceRig : IAsyncDisposable
{
    public const ulong PlainFeatures = VirtioVhostUserSpec.AuxiliaryByQueue;

    private readonly DirectoryInfo _folder = Directory.CreateTempSubdirectory("outboard-");
    private readonly CancellationTokenSource _end = new();
    private readonly Stack<IDisposable> _owned = new();
    private readonly ChannelSource _listening;
    private readonly Task _serving;
    private CancellationTokenSource? _backendEnd;
    private Task _backend = Task.CompletedTask;

    private ApplianceRig(VirtioVhostUserOptions options)
    {
        Device = new VirtioVhostUserDevice(options with { Logger = Log });
        SocketPath = Path.Combine(_folder.FullName, "frontend.sock");
        _listening = ChannelSource.Listen(SocketPath);
        _serving = Device.ServeAsync(_listening, _end.Token);
    }

    public static VirtioVhostUserOptions Options => new() { WindowBytes = 256 << 20, Rings = 4 };

    public LogRecorder Log { get; } = new();

    public VirtioVhostUserDevice Device { get; }

    public InProcessAccess Access { get; private set; } = null!;

    public string SocketPath { get; }

    public static async Task<ApplianceRig> StartAsync(
        InProcessOptions? access = null, VirtioVhostUserOptions? options = null)
    {
        ApplianceRig rig = new(options ?? Options);
        rig.Access = await InProcessAccess.StartAsync(
            rig.Device, (access ?? new InProcessOptions()) with { Logger = rig.Log });
        return rig;
    }

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
        Access = await InProcessAccess.StartAsync(
            Device, (access ?? new InProcessOptions()) with { Logger = Log });
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
        await _end.CancelAsync();
        await _serving.WaitAsync(Eventually.Limit);
        _listening.Dispose();
        Device.Dispose();
        _end.Dispose();
        _folder.Delete(recursive: true);
        Assert.Empty(Log.Critical);
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
