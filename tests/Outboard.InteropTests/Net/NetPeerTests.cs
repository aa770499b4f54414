// NetPeerTests.cs - a stock Linux guest reaches another QEMU's network through our back-end: that QEMU has no machine,
// only a hub that joins its "-netdev stream" or "-netdev dgram" with its user-mode network. No root is needed.
using System.Security.Cryptography;
using System.Text.RegularExpressions;
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Net;

public sealed partial class NetPeerTests
{
    private const int FileBytes = 2 << 20;
    private const string Server = "10.0.2.100";

    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);

    [Fact]
    public async Task A_guest_reaches_the_network_behind_a_stream()
    {
        using TempFolder folder = new();
        string peer = folder.Combine("peer.sock");
        await using PeerProcess network = await StartNetworkAsync(
            folder, $"stream,id=peer,server=on,addr.type=unix,addr.path={peer}");
        await network.WaitForSocketAsync(peer, s_startLimit);
        await RunGuestAsync(folder, $"--stream={peer}");
    }

    [Fact]
    public async Task A_guest_reaches_the_network_behind_a_stream_that_it_waits_for()
    {
        using TempFolder folder = new();
        string peer = folder.Combine("peer.sock");
        await RunGuestAsync(folder, $"--stream-listen={peer}", async backend =>
        {
            // QEMU connects, goes away, and another one comes.
            string netdev = $"stream,id=peer,server=off,addr.type=unix,addr.path={peer}";
            await using (PeerProcess first = await StartNetworkAsync(folder, netdev))
            {
                await backend.Errors.WaitForAsync(PeerIsThere, s_startLimit);
            }

            await backend.Errors.WaitForAsync(PeerWentAway, s_startLimit);
            return await StartNetworkAsync(folder, netdev);
        });
    }

    [Fact]
    public async Task A_guest_reaches_the_network_behind_a_stream_that_was_away()
    {
        using TempFolder folder = new();
        string peer = folder.Combine("peer.sock");
        string netdev = $"stream,id=peer,server=on,addr.type=unix,addr.path={peer}";
        PeerProcess first = await StartNetworkAsync(folder, netdev);
        await using (first)
        {
            await first.WaitForSocketAsync(peer, s_startLimit);
            await RunGuestAsync(folder, $"--stream={peer}", async backend =>
            {
                await first.KillAsync();
                await backend.Errors.WaitForAsync(PeerWentAway, s_startLimit);
                PeerProcess second = await StartNetworkAsync(folder, netdev);
                await backend.Errors.WaitForAsync(PeerIsThere, s_startLimit);
                return second;
            });
        }
    }

    [Fact]
    public async Task A_guest_reaches_the_network_behind_datagrams()
    {
        using TempFolder folder = new();
        string ours = folder.Combine("ours.sock");
        string theirs = folder.Combine("theirs.sock");
        await using PeerProcess network = await StartNetworkAsync(
            folder, $"dgram,id=peer,local.type=unix,local.path={theirs},remote.type=unix,remote.path={ours}");
        await RunGuestAsync(folder, $"--dgram={ours},{theirs}");
    }

    private static async Task<PeerProcess> StartNetworkAsync(TempFolder folder, string netdev)
    {
        string file = folder.Combine("data");
        await File.WriteAllBytesAsync(file, RandomNumberGenerator.GetBytes(FileBytes));
        return await PeerProcess.StartPeerAsync(
            "qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none",
            "-netdev", netdev,
            "-netdev",
            $"user,id=user,restrict=on,guestfwd=tcp:{Server}:5001-cmd:busybox cat {file}," +
            $"guestfwd=tcp:{Server}:5002-cmd:busybox cat",
            "-netdev", "hubport,id=first,hubid=0,netdev=peer",
            "-netdev", "hubport,id=second,hubid=0,netdev=user");
    }

    private static async Task RunGuestAsync(
        TempFolder folder, string option, Func<PeerProcess, Task<PeerProcess>>? startPeer = null)
    {
        string socket = folder.Combine("net.sock");
        await using PeerProcess backend = PeerProcess.StartProgram(
            "dotnet", OutboardProgram.Path, "net", $"--socket-path={socket}", option);
        await backend.WaitForSocketAsync(socket, s_startLimit);
        await using PeerProcess? peer = startPeer is null ? null : await startPeer(backend);
        byte[] data = await File.ReadAllBytesAsync(folder.Combine("data"));

        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("net-peer.sh"),
            Variables = new Dictionary<string, string>
            {
                ["HOST"] = "10.0.2.2",
                ["SERVER"] = Server,
                ["BYTES"] = $"{FileBytes}",
                ["SUM"] = Convert.ToHexStringLower(SHA256.HashData(data)),
            },
            DeviceArguments =
            [
                "-chardev", $"socket,id=net,path={socket}",
                "-netdev", "vhost-user,id=net,chardev=net",
                "-device", "virtio-net-pci,netdev=net,romfile=",
            ],
        });

        outcome.RequireSuccess();
    }

    [GeneratedRegex("the peer is there")]
    private static partial Regex PeerIsThere { get; }

    [GeneratedRegex("the peer went away")]
    private static partial Regex PeerWentAway { get; }
}
