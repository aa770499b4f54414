// NetPeerTests.cs - a stock Linux guest reaches another QEMU's network through our back-end: that QEMU has no machine,
// only a hub that joins its "-netdev stream" or "-netdev dgram" with its user-mode network. No root is needed.
using System.Security.Cryptography;
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Net;

public sealed class NetPeerTests
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

    private static async Task RunGuestAsync(TempFolder folder, string option)
    {
        string socket = folder.Combine("net.sock");
        await using PeerProcess backend = PeerProcess.StartProgram(
            "dotnet", OutboardProgram.Path, "net", $"--socket-path={socket}", option);
        await backend.WaitForSocketAsync(socket, s_startLimit);
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
}
