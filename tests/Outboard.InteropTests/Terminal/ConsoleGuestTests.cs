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
                    "-chardev", $"socket,id=console,path={socket}", "-device",
                    "vhost-user-test-device-pci,chardev=console,virtio-id=3,num_vqs=6,vq_size=128,config_size=12",
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
