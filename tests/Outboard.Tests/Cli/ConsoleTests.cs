// The console as a program: its standard streams, its pseudo terminal, its logs.
using System.Globalization;
using System.Text;
using System.Text.RegularExpressions;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Cli;

public sealed partial class ConsoleTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();
    private readonly DriverMemory _memory = new(1 << 20);

    private static CancellationToken Token => TestContext.Current.CancellationToken;

    private string Socket => _folder["socket"];

    public void Dispose()
    {
        _memory.Dispose();
        _folder.Dispose();
    }

    [Fact]
    public async Task Output_goes_to_standard_output_and_to_the_log()
    {
        string log = _folder["log"];
        await using OutboardProcess process = OutboardProcess.Start(
            "console", $"--socket-path={Socket}", "--stdio", $"--log={log}", "--quiet");
        await process.ListensAsync(Socket);
        await WriteAsync("for people ", "and for the record\n");
        process.Signal("TERM");
        Outcome outcome = await process.EndAsync();
        Assert.Equal(new Outcome(0, "for people and for the record\n", string.Empty), outcome);
        Assert.Equal(outcome.Output, await File.ReadAllTextAsync(log, Token));
    }

    [Theory]
    [InlineData("'{0}'")]
    [InlineData("/dev/null")]
    public async Task Input_comes_from_standard_input(string source)
    {
        string typed = _folder.Write("typed", "as if typed\n");
        string redirected = string.Format(CultureInfo.InvariantCulture, source, typed);
        string shell = $"exec '{OutboardProcess.Program}' console --socket-path='{Socket}' --stdio < {redirected}";
        await using OutboardProcess process = OutboardProcess.StartProgram("/bin/sh", ["-c", shell]);
        await process.ListensAsync(Socket);
        await using (VhostUserFrontend frontend = await VhostUserFrontend.ConnectAsync(Socket, null, Token))
        {
            await frontend.ShareMemoryAsync(_memory, Token);
            FrontendQueue queue = await frontend.StartQueueAsync(0, 16, _memory, Token);
            DriverBuffer buffer = _memory.Allocate(64);
            Assert.True(queue.Ring.TryAdd([], [buffer], 1));
            queue.Submit();
            if (source != "/dev/null")
            {
                Assert.True(queue.WaitForUsed((int)OutboardProcess.Limit.TotalMilliseconds));
                Assert.True(queue.Ring.TryCollect(out _, out uint written));
                Assert.Equal("as if typed\n", Encoding.ASCII.GetString(buffer.Span[..(int)written]));
            }

            await frontend.StopQueueAsync(queue, Token);
            Assert.False(queue.Ring.TryCollect(out _, out _));
        }

        process.Signal("TERM");
        Assert.Equal(0, (await process.EndAsync()).ExitCode);
    }

    [Fact]
    public async Task Path_of_the_pseudo_terminal_is_told()
    {
        await using OutboardProcess process = OutboardProcess.Start("console", $"--socket-path={Socket}", "--pty");
        await process.ListensAsync(Socket);
        process.Signal("TERM");
        Outcome outcome = await process.EndAsync();
        Assert.Equal(0, outcome.ExitCode);
        Assert.Matches(TerminalPath(), outcome.Errors);
    }

    [Fact]
    public async Task Log_of_another_console_or_of_another_state_is_refused()
    {
        string log = _folder.Write("log", "0123456789");
        string state = $"--state-file={_folder["state"]}";
        await using (OutboardProcess process = OutboardProcess.Start(
            "console", $"--socket-path={Socket}", $"--log={log}", state))
        {
            await process.ListensAsync(Socket);
            Outcome second = await OutboardProcess.RunAsync(
                "console", $"--socket-path={_folder["other"]}", $"--log={log}");
            second.AssertFailed(1, $"--log={log}", "in use by another process");
        }

        await File.WriteAllTextAsync(log, "0123", Token);
        Outcome cut = await OutboardProcess.RunAsync(
            "console", $"--socket-path={_folder["other"]}", $"--log={log}", state);
        cut.AssertFailed(1, log, "has 4 bytes, 10 were written");
        Outcome port = await OutboardProcess.RunAsync(
            "console", $"--socket-path={_folder["other"]}", $"--log={log}", $"--port=a,{_folder["b"]}", state);
        port.AssertFailed(1, state, "number of queues");
    }

    private async Task WriteAsync(params string[] texts)
    {
        await using VhostUserFrontend frontend = await VhostUserFrontend.ConnectAsync(Socket, null, Token);
        await frontend.ShareMemoryAsync(_memory, Token);
        FrontendQueue queue = await frontend.StartQueueAsync(1, 16, _memory, Token);
        foreach (string text in texts)
        {
            DriverBuffer buffer = _memory.Allocate((uint)text.Length);
            Encoding.ASCII.GetBytes(text, buffer.Span);
            Assert.True(queue.Ring.TryAdd([buffer], [], 1));
            queue.Submit();
            Assert.True(queue.WaitForUsed((int)OutboardProcess.Limit.TotalMilliseconds));
            Assert.True(queue.Ring.TryCollect(out _, out _));
        }

        await frontend.StopQueueAsync(queue, Token);
    }

    [GeneratedRegex("terminal /dev/pts/[0-9]+")]
    private static partial Regex TerminalPath();
}
