// A back-end, the device that is made of it, and its PCI function: all in this process, by the two sockets.
using Outboard.Linux.Sockets;
using Outboard.Tests.VhostUser;
using Outboard.VhostUser.Backend;
using Outboard.VhostUser.Channel;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio;
using Outboard.Virtio.Pci;

namespace Outboard.Tests.VfioUser.Bridge;

internal sealed class RemoteRig : IAsyncDisposable
{
    private readonly DirectoryInfo _folder;
    private readonly ChannelSource _source;
    private CancellationTokenSource _end = new();
    private Task _serving = Task.CompletedTask;

    private RemoteRig(DirectoryInfo folder)
    {
        _folder = folder;
        _source = ChannelSource.Connect(
            SocketPath, new BackOff(TimeSpan.FromMilliseconds(1), TimeSpan.FromMilliseconds(20)));
    }

    public LogRecorder Log { get; } = new();

    public RemoteDevice Device { get; private set; } = null!;

    public VirtioPciFunction Function { get; private set; } = null!;

    private string SocketPath => Path.Combine(_folder.FullName, "b");

    public static async Task<RemoteRig> StartAsync(
        VirtioDevice device, VhostUserBackendOptions? backend = null, RemoteDeviceOptions? options = null)
    {
        RemoteRig rig = new(Directory.CreateTempSubdirectory("outboard-bridge-"));
        rig.Serve(device, backend);
        try
        {
            rig.Device = await RemoteDevice.ConnectAsync(
                rig._source, (options ?? new RemoteDeviceOptions()) with { Logger = rig.Log });
        }
        catch
        {
            await rig.DisposeAsync();
            throw;
        }

        rig.Function = new VirtioPciFunction(rig.Device);
        return rig;
    }

    /// <summary>A back-end begins.</summary>
    public void Serve(VirtioDevice device, VhostUserBackendOptions? options = null)
    {
        UnixListener listener = UnixListener.Bind(SocketPath);
        _end = new CancellationTokenSource();
        CancellationToken token = _end.Token;
        _serving = Task.Run(async () =>
        {
            using (listener)
            {
                await VhostUserBackend.ServeAsync(device, listener, options ?? new VhostUserBackendOptions(), token);
            }
        });
    }

    /// <summary>The back-end ends, with its connection.</summary>
    public async Task EndAsync()
    {
        await _end.CancelAsync();
        await _serving.WaitAsync(Eventually.Limit);
    }

    public async ValueTask DisposeAsync()
    {
        if (Function is not null)
        {
            await Function.DisposeAsync();
        }

        await EndAsync();
        _end.Dispose();
        _source.Dispose();
        _folder.Delete(recursive: true);
    }
}
