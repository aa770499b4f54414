// OutboardKillTests.cs - the short form of eng/kill-run.sh: "outboard block" is killed again and again under a verified
// load of our own front-end, and no request is lost or doubled. And a foreign back-end that is killed: without a record
// of requests in flight, our front-end submits them again.
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Block;

public sealed class OutboardKillTests
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(6);

    [Theory]
    [InlineData("--seed=1", "--queues=2")]
    [InlineData("--seed=2", "--queues=2", "--io=io_uring", "--direct")]
    [InlineData("--seed=3", "--packed", "--indirect")]
    [InlineData("--seed=4", "--packed", "--queues=2", "--io=threads", "--direct")]
    public async Task Nothing_is_lost_or_doubled_through_ten_kills(params string[] options)
    {
        using TempFolder folder = new();
        await using PeerProcess run = PeerProcess.StartProgram(
            "dotnet",
            [OutboardProgram.Path, "bench", "kill", "--kills=10", $"--folder={folder.Combine("kill")}", .. options]);
        int status = await run.WaitForExitAsync(s_limit);
        Assert.True(status == 0, run.Describe());
        Assert.Contains("lost 0, doubled 0, wrong 0", run.Output.Text, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_load_outlives_a_foreign_back_end_that_is_killed()
    {
        using TempFolder folder = new();
        BlockBackendOptions options = new()
        {
            SocketPath = folder.Combine("block.sock"),
            ImagePath = folder.CreateImage("disk.img", 16 << 20),
            QueueCount = 2,
        };
        IBlockBackendUnderTest backend = await StorageDaemonBackend.StartAsync(options);
        try
        {
            await using PeerProcess load = PeerProcess.StartProgram(
                "dotnet",
                [
                    OutboardProgram.Path, "bench", "block", $"--socket-path={options.SocketPath}", "--verify",
                    "--duration=12", "--reconnect=60", "--queues=2", "--queue-depth=16", "--range=8M", "--json",
                ]);
            for (int i = 0; i < 2; i++)
            {
                await Task.Delay(TimeSpan.FromSeconds(3), TestContext.Current.CancellationToken);
                await backend.KillAsync();
                await backend.DisposeAsync();
                File.Delete(options.SocketPath);
                backend = await StorageDaemonBackend.StartAsync(options);
            }

            int status = await load.WaitForExitAsync(s_limit);
            Assert.True(status == 0, load.Describe());
            Assert.Contains("\"reconnections\": 2", load.Output.Text, StringComparison.Ordinal);
        }
        finally
        {
            await backend.DisposeAsync();
        }
    }
}
