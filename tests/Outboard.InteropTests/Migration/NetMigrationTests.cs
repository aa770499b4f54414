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
    [InlineData("mrg_rxbuf=on", false)]
    [InlineData("packed=on", false)]
    [InlineData("mrg_rxbuf=on", true)]
    public async Task A_guest_keeps_its_connections_and_is_found_in_its_new_place(string properties, bool isPostcopy)
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
        await using PeerProcess firstTrace = await StartTraceAsync(folder, 0);
        await using PeerProcess secondTrace = await StartTraceAsync(folder, 1);
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
            guest = await MoveAsync(guest, sides[1], folder.Combine("there.sock"), isPostcopy);
            await guest.WaitForLineAsync("IDLE");

            guest = await MoveAsync(guest, sides[0], folder.Combine("back.sock"), isPostcopy: false);
            await WaitForPlaceAsync(network, s_taps[0]);
            await guest.SendAsync("go on\n");
            (await guest.FinishAsync()).RequireSuccess();
            AssertSaid(folder, 0, "SET_LOG_BASE", "SEND_RARP", "SET_DEVICE_STATE_FD", "CHECK_DEVICE_STATE");
            AssertSaid(folder, 1, isPostcopy ? ["POSTCOPY_ADVISE", "POSTCOPY_LISTEN", "POSTCOPY_END"] : []);
        }
        finally
        {
            await guest.DisposeAsync();
        }
    }

    private static async Task<GuestVm> MoveAsync(GuestVm guest, GuestOptions there, string socket, bool isPostcopy)
    {
        if (isPostcopy)
        {
            GuestVm arrived = await MigratingGuest.MoveByPostcopyAsync(guest, there, socket);
            await guest.DisposeAsync();
            return arrived;
        }

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
                "dotnet", OutboardProgram.Path, "net", $"--socket-path={BackendSocket(folder, side)}",
                $"--tap={s_taps[side]}"));
        await backend.WaitForSocketAsync(BackendSocket(folder, side), s_startLimit);
        return backend;
    }

    /// <summary>Stands between QEMU and the back-end, and writes down what they say.</summary>
    private static async Task<PeerProcess> StartTraceAsync(TempFolder folder, int side)
    {
        PeerProcess trace = PeerProcess.StartProgram(
            "dotnet",
            [
                OutboardProgram.Path, "trace", $"--listen={Socket(folder, side)}",
                $"--connect={BackendSocket(folder, side)}", $"--output={TraceFile(folder, side)}",
            ]);
        await trace.WaitForSocketAsync(Socket(folder, side), s_startLimit);
        return trace;
    }

    private static void AssertSaid(TempFolder folder, int side, params string[] requests)
    {
        string trace = File.ReadAllText(TraceFile(folder, side));
        Assert.All(requests, request => Assert.Contains($" {request}", trace, StringComparison.Ordinal));
    }

    private static string TraceFile(TempFolder folder, int side) => folder.Combine($"trace-{side}.txt");

    private static string BackendSocket(TempFolder folder, int side) => folder.Combine($"net-{side}-backend.sock");

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
