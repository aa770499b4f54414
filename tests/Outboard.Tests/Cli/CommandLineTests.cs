// The command line: --print-capabilities wins, --help is everywhere, and what is wrong is told in one line that names
// the thing, the value and the remedy.
using System.Globalization;
using Xunit;

namespace Outboard.Tests.Cli;

public sealed class CommandLineTests
{
    private const string Capabilities = """{"type":"block","features":["read-only","blk-file"]}""" + "\n";

    [Theory]
    [InlineData("block --print-capabilities")]
    [InlineData("block --print-capabilities --no-such-option")]
    [InlineData("block --socket-path=/a --fd=3 --blk-file=/none --print-capabilities --num-queues=x")]
    [InlineData("--no-such-option block stray --print-capabilities")]
    [InlineData("block --help --print-capabilities")]
    public async Task Print_capabilities_wins_over_everything(string arguments)
    {
        Outcome outcome = await OutboardProcess.RunAsync(arguments.Split(' '));
        Assert.Equal(new Outcome(0, Capabilities, string.Empty), outcome);
    }

    [Theory]
    [InlineData("net --print-capabilities --tap=x --no-such-option", "net")]
    [InlineData("--bogus rng --fd=x --print-capabilities", "rng")]
    public async Task Print_capabilities_wins_for_every_back_end(string arguments, string type)
    {
        Outcome outcome = await OutboardProcess.RunAsync(arguments.Split(' '));
        string expected = $"{{\"type\":\"{type}\",\"features\":[]}}\n";
        Assert.Equal(new Outcome(0, expected, string.Empty), outcome);
    }

    [Fact]
    public async Task A_link_named_outboard_block_is_the_block_back_end()
    {
        using TemporaryFolder folder = new();
        string link = folder["outboard-block"];
        File.CreateSymbolicLink(link, OutboardProcess.Program);
        await using OutboardProcess asked = OutboardProcess.StartProgram(link, ["--print-capabilities"]);
        Assert.Equal(new Outcome(0, Capabilities, string.Empty), await asked.EndAsync());

        await using OutboardProcess wrong = OutboardProcess.StartProgram(link, ["--bogus"]);
        (await wrong.EndAsync()).AssertFailed(2, "outboard-block: ", "--bogus", "outboard-block --help");
    }

    [Theory]
    [InlineData("--help", "block")]
    [InlineData("block --help", "--socket-path")]
    [InlineData("console --help", "--log")]
    [InlineData("counter --help", "--state-file")]
    [InlineData("register --help", "--state-fd")]
    [InlineData("list-backends --help", "--type")]
    [InlineData("install-descriptors --help", "--prefix")]
    [InlineData("bench --help", "block")]
    [InlineData("bench block --help", "--socket-path")]
    [InlineData("demo --help", "--folder")]
    [InlineData("inspect --help", "--type")]
    [InlineData("trace --help", "--listen")]
    [InlineData("virtio-vhost-user --help", "--appliance-socket")]
    public async Task Help_is_everywhere(string arguments, string word)
    {
        Outcome outcome = await OutboardProcess.RunAsync(arguments.Split(' '));
        Assert.Equal(0, outcome.ExitCode);
        Assert.Empty(outcome.Errors);
        Assert.Contains(word, outcome.Output, StringComparison.Ordinal);
        Assert.Contains("Usage:", outcome.Output, StringComparison.Ordinal);
    }

    [Fact]
    public async Task Version_is_told()
    {
        Outcome outcome = await OutboardProcess.RunAsync("--version");
        Assert.Equal(0, outcome.ExitCode);
        Assert.Matches(@"^\d+\.\d+\.\d+", outcome.Output);
    }

    [Theory]
    [InlineData("", "outboard --help")]
    [InlineData("frobnicate", "frobnicate", "outboard --help")]
    [InlineData("block --bogus", "--bogus", "outboard block --help")]
    [InlineData("block --bogus=3", "--bogus=3", "outboard block --help")]
    [InlineData("block stray", "stray", "outboard block --help")]
    [InlineData("block --null-size=1M --socket-path=/s --cpu=0,x", "--cpu=0,x", "processor numbers")]
    [InlineData("block --null-size=1M --socket-path=/s --cpu=8191", "--cpu=8191", "choose from 0")]
    [InlineData("block --null-size=1M --socket-path=/s --busy-poll --poll-us=5", "--busy-poll", "--poll-us")]
    [InlineData("nvme --null-size=1M --vfio-user-socket=/s --cpu=8191", "--cpu=8191", "choose from 0")]
    [InlineData("list-backends --bogus", "--bogus", "outboard list-backends --help")]
    [InlineData("install-descriptors", "--prefix")]
    [InlineData("list-backends --print-capabilities", "--print-capabilities")]
    [InlineData("block --null-size=1M", "--socket-path=PATH", "--fd=N")]
    [InlineData("block --null-size=1M --socket-path=/a --fd=7", "--socket-path=/a", "--fd=7", "give one")]
    [InlineData("virtio-vhost-user", "--appliance-socket=PATH")]
    [InlineData("virtio-vhost-user --appliance-socket=/a", "--vhost-user-socket=PATH", "--vhost-user-connect=PATH")]
    [InlineData("virtio-vhost-user --personality=vhost-pci --appliance-socket=/a", "--vfio-user-socket=PATH")]
    [InlineData("virtio-vhost-user --personality=pci", "--personality=pci", "virtio-vhost-user, vhost-pci")]
    [InlineData("register --state-file=/no/a --completion-delay=x", "--completion-delay=x")]
    [InlineData("relay --from=/a --reconnect=-1", "--reconnect=-1")]
    [InlineData("virtio-vhost-user --vfio-user-socket=/a", "--memory-file=PATH")]
    [InlineData("virtio-vhost-user --appliance-socket=/a --vfio-user-socket=/b", "exclude each other")]
    [InlineData("virtio-vhost-user --appliance-socket=/a --memory-file=/b", "--memory-file")]
    [InlineData("virtio-vhost-user --appliance-socket=/a --rings=127", "--rings=127", "from 1 to 126")]
    [InlineData("virtio-vhost-user --appliance-socket=/a --window=3M", "--window=3", "power of two")]
    [InlineData("block --null-size=1M --virtio-vhost-user=1 --socket-path=/a", "--virtio-vhost-user=1", "give one")]
    [InlineData("block --null-size=1M --socket-path=/a --no-msix", "--no-msix", "--vfio-user-socket=PATH")]
    [InlineData("block --socket-path=/a", "--blk-file=PATH", "--memory-size=SIZE", "--null-size=SIZE")]
    [InlineData("block --socket-path=/a --null-size=1M --memory-size=1M", "--null-size", "--memory-size", "give one")]
    [InlineData("block --socket-path=/a --null-size=12Q", "--null-size=12Q", "64M")]
    [InlineData("block --socket-path=/a --null-size=0", "--null-size=0")]
    [InlineData("block --socket-path=/a --null-size=-5", "--null-size=-5")]
    [InlineData("block --socket-path=/a --null-size=9999999999999T", "--null-size=9999999999999T")]
    [InlineData("block --socket-path=/a --null-size=1M --num-queues=0", "--num-queues=0", "from 1 to")]
    [InlineData("block --socket-path=/a --null-size=1M --num-queues=x", "--num-queues=x", "from 1 to")]
    [InlineData("block --socket-path=/a --null-size=1M --queue-size=100", "--queue-size=100", "power of two")]
    [InlineData("block --socket-path=/a --null-size=1M --block-size=1000", "--block-size=1000", "power of two")]
    [InlineData("block --socket-path=/a --null-size=1M --io=fast", "--io=fast", "io_uring")]
    [InlineData("block --socket-path=/a --null-size=1M --direct", "--direct", "--blk-file")]
    [InlineData("block --socket-path=/a --null-size=1M --write-cache --no-write-cache", "--write-cache", "give one")]
    [InlineData("block --socket-path=/a --null-size=1M --quiet --verbose", "--quiet", "give one")]
    [InlineData("block --socket-path=/a --null-size=1M --serial=123456789012345678901", "--serial=1234", "20")]
    [InlineData("block --socket-path=/a --null-size=1M --serial --read-only", "--serial")]
    [InlineData("block --socket-path=/a --socket-path=/b --null-size=1M", "--socket-path")]
    [InlineData("block --socket-path=/a --null-size=1M --fault-error-rate=2", "--fault-error-rate=2", "0 to 1")]
    [InlineData("block --socket-path=/a --null-size=1M --fault-seed=2", "--fault-seed", "--fault-error-rate")]
    [InlineData("block --null-size=1M --fd=x", "--fd=x")]
    [InlineData("console --socket-path=/a", "nowhere", "--log=FILE", "--pty", "--terminal-socket=PATH")]
    [InlineData("console --socket-path=/a --pty --stdio", "--pty and --stdio", "give one")]
    [InlineData("console --socket-path=/a --pty --state-file=/b", "--state-file", "--log=FILE")]
    [InlineData("console --socket-path=/a --pty --size=80", "--size=80", "80x25")]
    [InlineData("console --socket-path=/a --pty --port=x", "--port=x", "a comma")]
    [InlineData("counter --socket-path=/a", "no state", "--state-file=PATH", "--state-fd=N")]
    [InlineData("register --socket-path=/a --state-file=/b --state-fd=5", "--state-file=/b and --state-fd=5")]
    [InlineData("test-card --vfio-user-socket=/a --quiet --verbose", "--quiet", "give one")]
    [InlineData("block --null-size=1M --fd=1", "--fd=1", "3 or above")]
    [InlineData("block --null-size=1M --fd=999", "--fd=999", "not open")]
    public async Task A_wrong_command_line_is_told_in_one_line(string arguments, params string[] words)
    {
        Outcome outcome = await OutboardProcess.RunAsync(
            arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries));
        outcome.AssertFailed(2, words);
    }

    [Fact]
    public async Task An_argument_that_begins_with_an_at_sign_is_no_response_file()
    {
        Outcome outcome = await OutboardProcess.RunAsync("block", "--null-size=1M", "@/etc/hostname");
        outcome.AssertFailed(2, "@/etc/hostname");
    }

    [Fact]
    public async Task A_failed_start_is_told_in_one_line()
    {
        using TemporaryFolder folder = new();
        string socket = $"--socket-path={folder["s"]}";
        string odd = folder.WriteZeroes("odd", 1000);
        string fine = folder.WriteZeroes("fine", 3 * 512);
        string missing = folder["missing"];

        await Fails([socket, $"--blk-file={missing}"], $"--blk-file={missing}", "create it first");
        await Fails([socket, $"--blk-file={folder.Path}"], folder.Path, "directory");
        await Fails([socket, "--blk-file=/dev/null"], "--blk-file=/dev/null", "neither");
        await Fails([socket, $"--blk-file={odd}"], $"--blk-file={odd}", "1000 bytes", "512");
        await Fails([socket, $"--blk-file={fine}", "--block-size=4096"], "1536 bytes", "4096", "--block-size");
        await Fails([$"--socket-path={folder["no/where"]}", "--null-size=1M"], folder["no/where"], "create it first");
        await Fails(
            [$"--socket-path=/tmp/{new string('x', 108)}", "--null-size=1M"], "xxx", "113 bytes", "shorter path");
        await Fails(["--virtio-vhost-user=ff:1f.0", "--null-size=1M"], "=ff:1f.0", "no PCI device 0000:ff:1f.0");
        Assert.False(File.Exists(folder["s"]));

        static async Task Fails(string[] arguments, params string[] words) =>
            (await OutboardProcess.RunAsync(["block", .. arguments])).AssertFailed(1, words);
    }

    [Fact]
    public async Task A_file_in_the_place_of_the_socket_is_not_touched()
    {
        using TemporaryFolder folder = new();
        string file = folder.Write("precious", "data");
        Outcome outcome = await OutboardProcess.RunAsync("block", "--null-size=1M", $"--socket-path={file}");
        outcome.AssertFailed(1, $"--socket-path={file}", "no socket", "choose another path");
        Assert.Equal("data", File.ReadAllText(file));
    }

    [Fact]
    public async Task Sizes_have_units()
    {
        (string Text, long Bytes)[] sizes = [("512", 512), ("3k", 3L << 10), ("5M", 5L << 20), ("2T", 2L << 40)];
        foreach ((string text, long bytes) in sizes)
        {
            using TemporaryFolder folder = new();
            await using OutboardProcess process = OutboardProcess.Start(
                "block", $"--null-size={text}", $"--socket-path={folder["s"]}");
            await process.ListensAsync(folder["s"]);
            process.Signal("TERM");
            Outcome outcome = await process.EndAsync();
            Assert.Contains(bytes.ToString(CultureInfo.InvariantCulture), outcome.Errors, StringComparison.Ordinal);
        }
    }
}
