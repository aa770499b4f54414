// The program as a vfio-user server, and as one who looks at such a server.
using Outboard.VfioUser.Client;
using Xunit;

namespace Outboard.Tests.Cli;

public sealed class VfioUserTests : IDisposable
{
    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task The_test_card_is_described()
    {
        await using OutboardProcess card =
            OutboardProcess.Start("test-card", $"--vfio-user-socket={_folder["s"]}", "--quiet");
        await card.ListensAsync(_folder["s"]);
        Outcome outcome = await InspectAsync();
        Assert.Equal(0, outcome.ExitCode);
        foreach (string part in (string[])[
            "f00d:7e57", "cafe:babe", "ff0000", "4096 bytes, 32-bit", "32 bytes, ports",
            "16384 bytes, 64-bit, prefetchable, mappable: 0x1000+0x1000 0x3000+0x1000", "power management",
            "MSI-X, 8 vectors, table BAR 5 0x0, pending bits BAR 5 0x800", "serial number 11223344-55667788"])
        {
            Assert.Contains(part, outcome.Output);
        }
    }

    [Fact]
    public async Task A_disk_is_a_virtio_function_and_ends_on_a_signal()
    {
        await using OutboardProcess disk = OutboardProcess.Start(
            "block", $"--vfio-user-socket={_folder["s"]}", "--memory-size=1M", "--num-queues=2", "--quiet");
        await disk.ListensAsync(_folder["s"]);
        Outcome outcome = await InspectAsync();
        Assert.Contains("1af4:1042 (virtio block)", outcome.Output);
        Assert.Contains("virtio: doorbells, BAR 0 0x3000, 8 bytes", outcome.Output);
        await using VfioUserClient client = await VfioUserClient.ConnectAsync(
            _folder["s"], cancellation: TestContext.Current.CancellationToken);
        disk.Signal("TERM");
        Assert.Equal(0, (await disk.EndAsync()).ExitCode);
        Assert.False(File.Exists(_folder["s"]));
    }

    [Theory]
    [InlineData("block", "interrupts, MSI      0")]
    [InlineData("nvme", "interrupts, MSI      1")]
    public async Task A_device_that_is_to_be_unplugged_has_no_msix(string command, string msi)
    {
        await using OutboardProcess disk = OutboardProcess.Start(
            command, $"--vfio-user-socket={_folder["s"]}", "--memory-size=1M", "--no-msix", "--quiet");
        await disk.ListensAsync(_folder["s"]);
        Outcome outcome = await InspectAsync();
        Assert.DoesNotContain("MSI-X,", outcome.Output);
        Assert.Contains("interrupts, MSI-X    0", outcome.Output);
        Assert.Contains(msi, outcome.Output);
    }

    [Fact]
    public async Task A_bridge_shows_a_back_end_and_ends_on_a_signal()
    {
        await using OutboardProcess disk = OutboardProcess.Start(
            "block", $"--socket-path={_folder["b"]}", "--memory-size=1M", "--num-queues=3", "--quiet");
        await using OutboardProcess bridge = OutboardProcess.Start(
            "bridge", $"--vfio-user-socket={_folder["s"]}", $"--vhost-user-socket={_folder["b"]}");
        await bridge.ListensAsync(_folder["s"]);
        Outcome outcome = await InspectAsync();
        Assert.Contains("1af4:1042 (virtio block)", outcome.Output);
        Assert.Contains("virtio: doorbells, BAR 0 0x3000, 12 bytes", outcome.Output);
        bridge.Signal("TERM");
        Assert.Equal(0, (await bridge.EndAsync()).ExitCode);
        Assert.False(File.Exists(_folder["s"]));
        (await OutboardProcess.RunAsync("bridge", $"--vfio-user-socket={_folder["s"]}"))
            .AssertFailed(2, "--vhost-user-socket");
        (await OutboardProcess.RunAsync("bridge", $"--vhost-user-socket={_folder["b"]}"))
            .AssertFailed(2, "--vfio-user-socket");
        (await OutboardProcess.RunAsync("bridge", "--vfio-user-socket=a", "--vhost-user-socket=b", "--mac=1"))
            .AssertFailed(2, "--mac");
    }

    [Fact]
    public async Task A_bridge_has_to_know_the_type()
    {
        await using OutboardProcess rng = OutboardProcess.Start("rng", $"--socket-path={_folder["b"]}", "--quiet");
        await rng.ListensAsync(_folder["b"]);
        string[] arguments =
            ["bridge", $"--vfio-user-socket={_folder["s"]}", $"--vhost-user-socket={_folder["b"]}"];
        (await OutboardProcess.RunAsync(arguments)).AssertFailed(1, "--type");
    }

    [Fact]
    public async Task Mistakes_are_told_in_one_line()
    {
        string path = _folder["nobody"];
        (await OutboardProcess.RunAsync("inspect", $"--vfio-user-socket={path}")).AssertFailed(1, path);
        (await OutboardProcess.RunAsync("inspect")).AssertFailed(2, "--vfio-user-socket");
        (await OutboardProcess.RunAsync("inspect", "--socket-path=a", "--vfio-user-socket=b"))
            .AssertFailed(2, "exclude each other");
        (await OutboardProcess.RunAsync("rng", "--socket-path=a", "--vfio-user-socket=b"))
            .AssertFailed(2, "give one of them");
        (await OutboardProcess.RunAsync("test-card")).AssertFailed(2, "--vfio-user-socket");
        (await OutboardProcess.RunAsync("test-card", $"--vfio-user-socket={path}/x")).AssertFailed(1, path);
    }

    private Task<Outcome> InspectAsync() =>
        OutboardProcess.RunAsync("inspect", $"--vfio-user-socket={_folder["s"]}");
}
