// TapHost.cs - the host at the other end of a tap, in a network namespace of its own: TCP servers of busybox, one that
// gives a file to whoever connects, and one that tells the checksum of what it gets. For guests that run net.sh.
using System.Security.Cryptography;
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Net;

internal sealed class TapHost : IAsyncDisposable
{
    private const int FileBytes = 3 << 20;
    private const string Mtu = "1500";

    private readonly PeerProcess _download;
    private readonly PeerProcess _upload;

    private TapHost(TapNetwork network, PeerProcess download, PeerProcess upload)
    {
        Network = network;
        _download = download;
        _upload = upload;
    }

    /// <summary>The namespace, with its tap.</summary>
    public TapNetwork Network { get; }

    /// <summary>The variables of net.sh.</summary>
    public required IReadOnlyDictionary<string, string> GuestVariables { get; init; }

    /// <summary>Makes the namespace and starts the servers.</summary>
    /// <param name="folder">Where the file is made.</param>
    /// <param name="pairs">Pairs of queues that the tap has, and the guest is to see.</param>
    public static async Task<TapHost> StartAsync(TempFolder folder, int pairs)
    {
        string file = folder.Combine("data");
        byte[] data = RandomNumberGenerator.GetBytes(FileBytes);
        await File.WriteAllBytesAsync(file, data, TestContext.Current.CancellationToken);
        TapNetwork network = await TapNetwork.MakeAsync(pairs);
        Peers peers = await Peers.ReadyAsync();
        PeerProcess download = PeerProcess.StartProgram(
            "ip", network.Inside(peers.Runner, "busybox", "nc", "-ll", "-p", "5001", "-e", "busybox", "cat", file));
        PeerProcess upload = PeerProcess.StartProgram(
            "ip", network.Inside(peers.Runner, "busybox", "nc", "-ll", "-p", "5002", "-e", "busybox", "sha256sum"));
        return new TapHost(network, download, upload)
        {
            GuestVariables = new Dictionary<string, string>
            {
                ["QUEUES"] = $"{pairs}",
                ["HOST"] = TapNetwork.HostAddress,
                ["GUEST"] = TapNetwork.GuestAddress,
                ["MTU"] = Mtu,
                ["SUM"] = Convert.ToHexStringLower(SHA256.HashData(data)),
            },
        };
    }

    public async ValueTask DisposeAsync()
    {
        await _download.DisposeAsync();
        await _upload.DisposeAsync();
        await Network.DisposeAsync();
    }
}
