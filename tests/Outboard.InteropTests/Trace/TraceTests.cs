// TraceTests.cs - "outboard trace" between programs that others wrote: nothing breaks, and every message is told, none
// of them with a problem: between a stock QEMU guest and our back-end, and between qemu-io and qemu-storage-daemon.
using System.Text.Json;
using Outboard.InteropTests.Block;
using Outboard.InteropTests.Lab;
using Outboard.InteropTests.VfioUser;
using Xunit;

namespace Outboard.InteropTests.Trace;

public sealed class TraceTests
{
    private const string Serial = "traced";

    private static readonly TimeSpan s_limit = TimeSpan.FromSeconds(60);

    [Fact]
    public async Task A_guest_and_our_back_end_are_listened_to()
    {
        using TempFolder folder = new();
        await using IBlockBackendUnderTest backend = await OutboardBlockBackend.StartAsync(
            OptionsIn(folder) with { Serial = Serial });
        await using PeerProcess trace = await StartAsync(folder, backend.SocketPath);
        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("block-identity.sh"),
            Variables = new Dictionary<string, string> { ["SERIAL"] = Serial, ["READ_ONLY"] = "0" },
            DeviceArguments =
            [
                "-chardev", $"socket,id=disk,path={folder.Combine("traced.sock")}",
                "-device", "vhost-user-blk-pci,chardev=disk",
            ],
        });
        outcome.RequireSuccess();

        JsonElement[] messages = await EndAsync(trace);
        string[] names = [.. messages.Select(Name)];
        Assert.All(
            (string[])["SET_BACKEND_REQ_FD", "ADD_MEM_REG", "SET_VRING_KICK", "GET_CONFIG", "GET_VRING_BASE"],
            name => Assert.Contains(name, names));
        RequireSound(messages);
        Assert.Contains("1.b1", Channels(trace));
    }

    [Fact]
    public async Task A_foreign_front_end_and_a_foreign_back_end_are_listened_to()
    {
        using TempFolder folder = new();
        await using IBlockBackendUnderTest backend = await StorageDaemonBackend.StartAsync(OptionsIn(folder));
        await using PeerProcess trace = await StartAsync(folder, backend.SocketPath);
        string traced = folder.Combine("traced.sock");
        for (int round = 0; round < 3; round++)
        {
            await QemuIo.RunAsync(
                traced, $"write -P {round + 1} 0 256k", $"read -P {round + 1} 0 256k", "discard 1M 64k", "flush");
        }

        await QemuIo.BenchAsync(traced, requests: 2000, depth: 16, size: 4096);
        JsonElement[] messages = await EndAsync(trace);
        Assert.Equal(
            [1, 2, 3, 4],
            messages.Select(message => message.GetProperty("connection").GetInt32()).Distinct().Order());
        Assert.Contains("SET_MEM_TABLE ADD_MEM_REG".Split(' '), name => messages.Any(m => Name(m) == name));
        RequireSound(messages);
    }

    /// <summary>QEMU's memory at the start, a driver, resets: all of it by vfio-user.</summary>
    [Fact]
    public async Task A_guest_and_our_PCI_device_are_listened_to()
    {
        using TempFolder folder = new();
        string socket = folder.Combine("rng.sock");
        await using PeerProcess device = PeerProcess.StartProgram(
            "dotnet", OutboardProgram.Path, "rng", $"--vfio-user-socket={socket}");
        await device.WaitForSocketAsync(socket, s_limit);
        await using PeerProcess trace = await StartAsync(folder, socket, "--vfio-user");
        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("rng.sh"),
            Variables = new Dictionary<string, string> { ["BLOCKS"] = "64" },
            DeviceArguments = VfioUserGuest.Device(folder.Combine("traced.sock")),
        });
        outcome.RequireSuccess();

        JsonElement[] messages = await EndAsync(trace);
        string[] names = [.. messages.Select(Name)];
        Assert.All(
            (string[])["VERSION", "DMA_MAP", "DMA_UNMAP", "DEVICE_SET_IRQS", "REGION_READ", "REGION_WRITE",
                "DEVICE_RESET"],
            name => Assert.Contains(name, names));
        Assert.Contains(messages, message => message.GetProperty("fds").GetInt32() == 1);
        RequireSound(messages);
    }

    private static BlockBackendOptions OptionsIn(TempFolder folder) => new()
    {
        SocketPath = folder.Combine("block.sock"),
        ImagePath = folder.CreateImage("disk.img", 32 << 20),
        QueueCount = 1,
    };

    private static async Task<PeerProcess> StartAsync(TempFolder folder, string backendPath, params string[] options)
    {
        string path = folder.Combine("traced.sock");
        PeerProcess trace = PeerProcess.StartProgram(
            "dotnet",
            [OutboardProgram.Path, "trace", $"--listen={path}", $"--connect={backendPath}", "--json", .. options]);
        await trace.WaitForSocketAsync(path, s_limit);
        return trace;
    }

    /// <summary>Ends the trace and gives its messages.</summary>
    private static async Task<JsonElement[]> EndAsync(PeerProcess trace)
    {
        await trace.SignalAsync("TERM");
        Assert.True(await trace.WaitForExitAsync(s_limit) == 0, trace.Describe());
        return [.. Entries(trace).Where(entry => entry.TryGetProperty("name", out _))];
    }

    private static IEnumerable<JsonElement> Entries(PeerProcess trace) =>
        trace.Output.Text.Split('\n', StringSplitOptions.RemoveEmptyEntries)
            .Select(line => JsonDocument.Parse(line).RootElement);

    private static IEnumerable<string> Channels(PeerProcess trace) =>
        Entries(trace).Select(entry => entry.GetProperty("channel").GetString()!);

    private static string Name(JsonElement message) => message.GetProperty("name").GetString() ?? "?";

    /// <summary>No message has a problem, and every reply answers a request of the same name.</summary>
    private static void RequireSound(JsonElement[] messages)
    {
        Assert.All(messages, message => Assert.False(message.TryGetProperty("problem", out _), message.ToString()));
        Dictionary<long, string> byNumber = messages.ToDictionary(m => m.GetProperty("number").GetInt64(), Name);
        JsonElement[] replies = [.. messages.Where(message => message.GetProperty("reply").GetBoolean())];
        Assert.NotEmpty(replies);
        Assert.All(replies, reply => Assert.Equal(Name(reply), byNumber[reply.GetProperty("answers").GetInt64()]));
    }
}
