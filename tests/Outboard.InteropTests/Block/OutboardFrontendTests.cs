// OutboardFrontendTests.cs - our own front-end, by way of "outboard bench block --verify", against a back-end that
// nobody here wrote and against our own: every block is written, rewritten at random and compared.
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Block;

public sealed class OutboardFrontendTests
{
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(3);

    [Theory]
    [InlineData("--mode=irq", "--queues=2")]
    [InlineData("--mode=poll", "--indirect")]
    [InlineData("--mode=eventfd", "--memory=table")]
    [InlineData("--mode=irq", "--no-event-idx")]
    public async Task A_foreign_back_end_keeps_every_block(string mode, string more)
    {
        using TempFolder folder = new();
        BlockBackendOptions options = OptionsIn(folder);
        await using IBlockBackendUnderTest backend = await StorageDaemonBackend.StartAsync(options);
        await VerifyAsync(backend, mode, more);
    }

    [Theory]
    [InlineData("--mode=irq", "--queues=2")]
    [InlineData("--mode=poll", "--indirect")]
    [InlineData("--mode=eventfd", "--memory=table")]
    [InlineData("--mode=irq", "--no-event-idx")]
    [InlineData("--mode=irq", "--packed")]
    public async Task Our_back_end_keeps_every_block(string mode, string more)
    {
        using TempFolder folder = new();
        BlockBackendOptions options = OptionsIn(folder);
        await using IBlockBackendUnderTest backend = await OutboardBlockBackend.StartAsync(options);
        await VerifyAsync(backend, mode, more);
    }

    private static BlockBackendOptions OptionsIn(TempFolder folder) => new()
    {
        SocketPath = folder.Combine("block.sock"),
        ImagePath = folder.CreateImage("disk.img", 32 << 20),
        QueueCount = 2,
    };

    private static async Task VerifyAsync(IBlockBackendUnderTest backend, params string[] options)
    {
        await using PeerProcess load = PeerProcess.StartProgram(
            "dotnet",
            [
                OutboardProgram.Path, "bench", "block", $"--socket-path={backend.SocketPath}", "--verify",
                "--duration=1", "--queue-depth=16", .. options,
            ]);
        int status = await load.WaitForExitAsync(s_limit);
        Assert.True(status == 0, load.Describe());
    }
}
