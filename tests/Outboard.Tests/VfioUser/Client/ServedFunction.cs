// A function that is served at a path, and can be lost and served again.
using Outboard.Linux.Sockets;
using Outboard.Pci;
using Outboard.Tests.VhostUser;
using Outboard.VfioUser.Server;

namespace Outboard.Tests.VfioUser.Client;

internal sealed class ServedFunction : IAsyncDisposable
{
    /// <summary>Nothing is answered for the device, however busy the machine is.</summary>
    private static readonly VfioUserServerOptions s_options = new() { AnswerLimit = Eventually.Limit };

    private readonly PciFunction _function;
    private CancellationTokenSource _ending = new();
    private Task _serving = Task.CompletedTask;

    public ServedFunction(PciFunction function)
    {
        _function = function;
        Path = System.IO.Path.Combine(Directory.CreateTempSubdirectory("outboard-vfio-").FullName, "s");
        Start();
    }

    public string Path { get; }

    public void Start()
    {
        UnixListener listener = UnixListener.Bind(Path);
        _ending = new CancellationTokenSource();
        CancellationToken token = _ending.Token;
        _serving = Task.Run(async () =>
        {
            using (listener)
            {
                await VfioUserServer.ServeAsync(_function, listener, s_options, token);
            }
        });
    }

    /// <summary>The server goes away, with connections and socket.</summary>
    public async Task StopAsync()
    {
        await _ending.CancelAsync();
        await _serving;
        _ending.Dispose();
    }

    public async ValueTask DisposeAsync()
    {
        await StopAsync();
        Directory.Delete(System.IO.Path.GetDirectoryName(Path)!, recursive: true);
    }
}
