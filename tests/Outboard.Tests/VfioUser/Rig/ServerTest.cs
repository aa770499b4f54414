// A server in this process, and raw clients that come to it one after another.
using Outboard.Devices.TestCard;
using Outboard.Linux.Sockets;
using Outboard.Pci;
using Outboard.Tests.VhostUser;
using Outboard.VfioUser.Channel;
using Outboard.VfioUser.Server;
using Xunit;

namespace Outboard.Tests.VfioUser;

/// <summary>Tests against a server, by default with the test card.</summary>
public abstract class ServerTest : IAsyncDisposable
{
    private readonly TestCardFunction _card = new();
    private readonly List<WireClient> _clients = [];
    private readonly CancellationTokenSource _ending = new();
    private Task _serving = Task.CompletedTask;

    internal LogRecorder Log { get; } = new();

    private protected virtual PciFunction Function => _card;

    /// <remarks>Nothing is answered for the device, however busy the machine is.</remarks>
    private protected virtual VfioUserServerOptions Options =>
        new() { MaxDmaMaps = 64, AnswerLimit = Eventually.Limit };

    public async ValueTask DisposeAsync()
    {
        foreach (WireClient client in _clients)
        {
            client.Dispose();
        }

        await _ending.CancelAsync();
        await _serving;
        _ending.Dispose();
        await EndFunctionAsync();
        _card.Dispose();
        Assert.Empty(Log.Critical);
        GC.SuppressFinalize(this);
    }

    private protected virtual ValueTask EndFunctionAsync() => default;

    /// <summary>A client whose connection is served once that of the one before has ended.</summary>
    private protected WireClient Connect()
    {
        (UnixSocket ours, UnixSocket theirs) = UnixSocket.CreatePair();
        WireClient client = new(ours);
        _clients.Add(client);
        Task before = _serving;
        _serving = ServeAfterAsync(before, theirs);
        return client;
    }

    private protected async Task<WireClient> ConnectNegotiatedAsync(string? json = WireClient.AllCapabilities)
    {
        WireClient client = Connect();
        await client.NegotiateAsync(json);
        return client;
    }

    private async Task ServeAfterAsync(Task before, UnixSocket socket)
    {
        await before;
        try
        {
            await VfioUserServer.ServeConnectionAsync(
                Function, new SocketChannel(socket), Options with { Logger = Log }, _ending.Token);
        }
        catch (OperationCanceledException)
        {
            // the test is over
        }
    }
}
