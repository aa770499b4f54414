// Who listens: the back-end as client, the load generator as listener, and both through each other's ends.
using Outboard.Tests.VhostUser;
using Xunit;

namespace Outboard.Tests.Cli;

public sealed class DirectionTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    private string SocketPath => _folder["s"];

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task A_back_end_that_connects_serves_loads_that_listen_one_after_another()
    {
        await using OutboardProcess backend = OutboardProcess.Start(
            "block", $"--connect={SocketPath}", "--memory-size=4M", "--quiet");
        for (int i = 0; i < 2; i++)
        {
            Outcome load = await OutboardProcess.RunAsync(
                "bench", "block", $"--listen={SocketPath}", "--verify", "--duration=0.05", "--range=1M");
            Assert.True(load.ExitCode == 0, load.Errors);
        }

        backend.Signal("TERM");
        Assert.Equal(0, (await backend.EndAsync()).ExitCode);
    }

    [Fact]
    public async Task A_load_goes_on_at_the_next_back_end()
    {
        string image = _folder["disk.img"];
        using (FileStream file = new(image, FileMode.CreateNew, FileAccess.Write))
        {
            file.SetLength(4 << 20);
        }

        OutboardProcess backend = StartBackend(image);
        await backend.ListensAsync(SocketPath);
        await using OutboardProcess load = OutboardProcess.Start(
            "bench", "block", $"--socket-path={SocketPath}", "--verify", "--duration=2", "--reconnect=60", "--json");
        await Eventually.TrueAsync(
            () => File.ReadAllBytes(image).AsSpan().ContainsAnyExcept((byte)0), "the load writes to the disk");
        backend.Signal("KILL");
        await backend.EndAsync();
        await backend.DisposeAsync();
        await using OutboardProcess next = StartBackend(image);
        Outcome outcome = await load.EndAsync();
        Assert.True(outcome.ExitCode == 0, outcome.Errors);
        Assert.Contains("\"failures\": 0", outcome.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Ways_to_get_a_front_end_exclude_each_other()
    {
        Outcome outcome = await OutboardProcess.RunAsync(
            "block", $"--connect={SocketPath}", $"--socket-path={SocketPath}", "--null-size=1M");
        outcome.AssertFailed(2, "--connect=", "--socket-path=", "exclude each other");
        outcome = await OutboardProcess.RunAsync("bench", "block", "--listen=a", "--socket-path=b");
        outcome.AssertFailed(2, "--listen", "--socket-path", "exclude each other");
    }

    private OutboardProcess StartBackend(string image) =>
        OutboardProcess.Start("block", $"--socket-path={SocketPath}", $"--blk-file={image}", "--quiet");
}
