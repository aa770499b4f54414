// NetMigrationTests.cs - a guest moves between two stock QEMU processes, each with a back-end of ours on a tap of its
// own; a bridge joins the taps. TCP connections go on, and a guest that says nothing is found in its new place, since
// the back-end announces it there.
using System.Security.Cryptography;
using System.Text.RegularExpressions;
using Outboard.InteropTests.Lab;
using Outboard.InteropTests.Net;
using Xunit;

namespace Outboard.InteropTests.Migration;

public sealed partial class NetMigrationTests
{
    private const int FileBytes = 2 << 20;
    private const string Mac = "52:54:00:77:00:02";
    private const string Bridge = "outboard-br";

    private static readonly string[] s_taps = ["outboard0", "outboard1"];
    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);

    [GeneratedRegex(@"^PROGRESS \d+$", RegexOptions.Multiline)]
    private static partial Regex Progress { get; }

    [Theory]
    [InlineData("mrg_rxbuf=on")]
    [InlineData("packed=on")]
    public async Task A_guest_keeps_its_connections_and_is_found_in_its_new_place(string properties)
    {
        using TempFolder folder = new();
        string file = folder.Combine("data");
        byte[] data = RandomNumberGenerator.GetBytes(FileBytes);
        await File.WriteAllBytesAsync(file, data, TestContext.Current.CancellationToken);
        await using TapNetwork network = await TapNetwork.MakeBridgeAsync(Bridge, s_taps);
        Peers peers = await Peers.ReadyAsync();
        await using PeerProcess download = PeerProcess.StartProgram(
            "ip", network.Inside(peers.Runner, "busybox", "nc", "-ll", "-p", "5001", "-e", "busybox", "cat", file));
        await using PeerProcess first = await StartBackendAsync(network, folder, 0);
        await using PeerProcess second = await StartBackendAsync(network, folder, 1);
        GuestOptions options = new()
        {
            Script = GuestOptions.ReadScript("migrate-net.sh"),
            Variables = new Dictionary<string, string>
            {
                ["HOST"] = TapNetwork.HostAddress,
                ["GUEST"] = TapNetwork.GuestAddress,
                ["ROUNDS"] = "40",
                ["SUM"] = Convert.ToHexStringLower(SHA256.HashData(data)),
            },
            OffersQmp = true,
            MemoryMegabytes = 256,
        };
        GuestOptions[] sides =
            [.. s_taps.Select((_, side) => options with { DeviceArguments = Arguments(folder, side, properties) })];
        GuestVm guest = await GuestVm.StartAsync(sides[0]);
        try
        {
            await guest.WaitForAsync(Progress);
            guest = await MoveAsync(guest, sides[1], folder.Combine("there.sock"));
            await guest.WaitForLineAsync("IDLE");

            guest = await MoveAsync(guest, sides[0], folder.Combine("back.sock"));
            await WaitForPlaceAsync(network, s_taps[0]);
            await guest.SendAsync("go on\n");
            (await guest.FinishAsync()).RequireSuccess();
        }
        finally
        {
            await guest.DisposeAsync();
        }
    }

    private static async Task<GuestVm> MoveAsync(GuestVm guest, GuestOptions there, string socket)
    {
        GuestVm next = await MigratingGuest.StartIncomingAsync(there, socket);
        try
        {
            await MigratingGuest.MoveAsync(guest, socket);
            await guest.DisposeAsync();
            return next;
        }
        catch
        {
            await next.DisposeAsync();
            throw;
        }
    }

    private static async Task<PeerProcess> StartBackendAsync(TapNetwork network, TempFolder folder, int side)
    {
        PeerProcess backend = PeerProcess.StartProgram(
            "ip",
            network.Inside(
                "dotnet", OutboardProgram.Path, "net", $"--socket-path={Socket(folder, side)}",
                $"--tap={s_taps[side]}"));
        await backend.WaitForSocketAsync(Socket(folder, side), s_startLimit);
        return backend;
    }

    private static string Socket(TempFolder folder, int side) => folder.Combine($"net-{side}.sock");

    private static string[] Arguments(TempFolder folder, int side, string properties) =>
    [
        "-chardev", $"socket,id=net,path={Socket(folder, side)}",
        "-netdev", "vhost-user,id=net,chardev=net",
        "-device", $"virtio-net-pci,netdev=net,mac={Mac},romfile=,{properties}",
    ];

    /// <summary>Waits until the bridge knows the guest behind a tap; the guest says nothing meanwhile.</summary>
    private static async Task WaitForPlaceAsync(TapNetwork network, string tap)
    {
        DateTime limit = DateTime.UtcNow + s_startLimit;
        while (true)
        {
            string table = await network.RunInsideAsync("bridge", "fdb", "show", "br", Bridge);
            if (table.Split('\n').Any(line => line.StartsWith($"{Mac} dev {tap} ", StringComparison.Ordinal)))
            {
                return;
            }

            Assert.True(DateTime.UtcNow < limit, $"the bridge does not know {Mac} behind {tap}:\n{table}");
            await Task.Delay(100, TestContext.Current.CancellationToken);
        }
    }
}
