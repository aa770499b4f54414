// ConsoleGuestTests.cs - a stock Linux guest uses our console and its second port, over either protocol.
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using Outboard.InteropTests.Lab;
using Outboard.InteropTests.VfioUser;
using Xunit;

namespace Outboard.InteropTests.Terminal;

public sealed class ConsoleGuestTests
{
    private const int LineCount = 2000;
    private const string PortName = "org.example.test";

    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);

    private static string AllLines { get; } = string.Concat(
        Enumerable.Range(1, LineCount).Select(line => string.Create(CultureInfo.InvariantCulture, $"{line}\n")));

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_guest_writes_and_reads(bool vfioUser)
    {
        using TempFolder folder = new();
        string socket = folder.Combine("console.sock");
        string terminal = folder.Combine("terminal.sock");
        string log = folder.Combine("log");
        string portLog = folder.Combine("port");
        string option = vfioUser ? "--vfio-user-socket" : "--socket-path";
        await using PeerProcess device = PeerProcess.StartProgram(
            "dotnet",
            OutboardProgram.Path, "console", $"{option}={socket}", $"--terminal-socket={terminal}", $"--log={log}",
            $"--port={PortName},{portLog}", $"--state-file={folder.Combine("state")}");
        await device.WaitForSocketAsync(socket, s_startLimit);
        await device.WaitForSocketAsync(terminal, s_startLimit);
        Task answering = AnswerAsync(terminal);

        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("console.sh"),
            Variables = new Dictionary<string, string>
            {
                ["LINES"] = $"{LineCount}",
                ["PORT"] = PortName,
            },
            DeviceArguments = vfioUser
                ? VfioUserGuest.Device(socket)
                :
                [
                    "-chardev", $"socket,id=device,path={socket}", "-device",
                    "vhost-user-test-device-pci,chardev=device,virtio-id=3,num_vqs=6,vq_size=128,config_size=12",
                ],
        });

        outcome.RequireSuccess();
        await answering.WaitAsync(s_startLimit, TestContext.Current.CancellationToken);
        await device.TerminateAsync();
        Assert.Equal(0, device.ExitCode);
        Assert.DoesNotContain("warning", device.Errors.Text);
        Assert.Equal($"ready\n{AllLines}", await ReadAsync(log));
        Assert.Equal(AllLines, await ReadAsync(portLog));
    }

    /// <summary>
    /// QEMU itself does not survive the end of such a back-end, so "outboard bridge" stands between; the guest notices
    /// nothing but the wait.
    /// </summary>
    [Theory]
    [InlineData("--split-rings")]
    [InlineData("--verbose")]
    public async Task Each_byte_is_in_the_log_once_while_the_back_end_is_killed(string option)
    {
        const int passes = 3;
        const int linesOfPass = 400;
        using TempFolder folder = new();
        string back = folder.Combine("back.sock");
        string front = folder.Combine("front.sock");
        string[] arguments =
        [
            OutboardProgram.Path, "console", $"--socket-path={back}", $"--log={folder.Combine("log")}",
            $"--port={PortName},{folder.Combine("port")}", $"--state-file={folder.Combine("state")}",
        ];
        PeerProcess device = PeerProcess.StartProgram("dotnet", arguments);
        try
        {
            await device.WaitForSocketAsync(back, s_startLimit);
            await using PeerProcess bridge = PeerProcess.StartProgram(
                "dotnet",
                OutboardProgram.Path, "bridge", $"--vfio-user-socket={front}", $"--vhost-user-socket={back}",
                "--type=console", "--num-queues=6", option);
            await bridge.WaitForSocketAsync(front, s_startLimit);
            await using GuestVm guest = await GuestVm.StartAsync(new GuestOptions
            {
                Script = GuestOptions.ReadScript("console-kill.sh"),
                Variables = new Dictionary<string, string>
                {
                    ["PASSES"] = $"{passes}",
                    ["LINES"] = $"{linesOfPass}",
                    ["PORT"] = PortName,
                },
                DeviceArguments = VfioUserGuest.Device(front),
            });
            for (int pass = 1; pass <= passes; pass++)
            {
                foreach (int line in (int[])[50, 150, 250])
                {
                    await guest.WaitForLineAsync($"PROGRESS {pass} {line}");
                    await device.KillAsync();
                    await device.DisposeAsync();
                    device = PeerProcess.StartProgram("dotnet", arguments);
                    await device.WaitForSocketAsync(back, s_startLimit);
                }
            }

            (await guest.FinishAsync()).RequireSuccess();
            await bridge.TerminateAsync();
            Assert.DoesNotContain("has to be reset", bridge.Errors.Text, StringComparison.Ordinal);
            await device.TerminateAsync();
        }
        finally
        {
            await device.DisposeAsync();
        }

        (int Pass, int Line)[] lines =
        [
            .. from pass in Enumerable.Range(1, passes)
               from line in Enumerable.Range(1, linesOfPass)
               select (pass, line),
        ];
        string log = string.Concat(lines.Select(at => $"pass {at.Pass} line {at.Line}\n"));
        Assert.Equal(log, await ReadAsync(folder.Combine("log")));
        string port = string.Concat(lines.Select(at => $"{at.Pass}.{at.Line}\n"));
        Assert.Equal(port, await ReadAsync(folder.Combine("port")));
    }

    private static Task<string> ReadAsync(string path) =>
        File.ReadAllTextAsync(path, TestContext.Current.CancellationToken);

    /// <summary>The person at the terminal: waits for the guest, and types a line.</summary>
    private static async Task AnswerAsync(string terminal)
    {
        using Socket socket = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(new UnixDomainSocketEndPoint(terminal), TestContext.Current.CancellationToken);
        StringBuilder seen = new();
        byte[] piece = new byte[4096];
        while (await socket.ReceiveAsync(piece, TestContext.Current.CancellationToken) is var count and > 0)
        {
            bool wasReady = seen.ToString().Contains("ready\n", StringComparison.Ordinal);
            seen.Append(Encoding.ASCII.GetString(piece, 0, count));
            if (!wasReady && seen.ToString().Contains("ready\n", StringComparison.Ordinal))
            {
                await socket.SendAsync("from outside\n"u8.ToArray(), TestContext.Current.CancellationToken);
            }

            if (seen.ToString().EndsWith($"\n{LineCount}\n", StringComparison.Ordinal))
            {
                break;
            }
        }
    }
}
