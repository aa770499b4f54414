// The program as the device over vfio-user, and as the back-end behind it, without a virtual machine.
using Outboard.Devices.Block.Driver;
using Outboard.Linux.Memory;
using Outboard.Memory;
using Outboard.VhostUser.Frontend;
using Outboard.Virtio.Queue.Driver;
using Xunit;

namespace Outboard.Tests.Cli;

public sealed class ApplianceCommandTests : IDisposable
{
    private const int MemoryBytes = 4 << 20;

    private readonly TemporaryFolder _folder = new();

    public void Dispose() => _folder.Dispose();

    [Fact]
    public async Task A_disk_is_served_through_a_device_over_vfio_user_and_comes_back_when_it_was_killed()
    {
        string image = _folder["disk.img"];
        await using (FileStream file = new(image, FileMode.CreateNew, FileAccess.Write))
        {
            file.SetLength(1 << 20);
        }

        await using OutboardProcess device = OutboardProcess.Start(
            "virtio-vhost-user", $"--vhost-user-socket={_folder["f"]}", $"--vfio-user-socket={_folder["v"]}",
            $"--memory-file={_folder["memory"]}", "--window=16M");
        await device.ListensAsync(_folder["v"]);
        byte[] data = new byte[64 << 10];
        Random.Shared.NextBytes(data);
        OutboardProcess disk = StartDisk(image);
        await CheckAsync(disk => disk.Write(4096, data));
        disk.Signal("KILL");
        await disk.EndAsync();
        await disk.DisposeAsync();
        disk = StartDisk(image);
        byte[] found = new byte[data.Length];
        await CheckAsync(disk => disk.Read(4096, found));
        Assert.Equal(data, found);
        disk.Signal("TERM");
        Outcome outcome = await disk.EndAsync();
        Assert.True(outcome.ExitCode == 0, outcome.Errors);
        await disk.DisposeAsync();
        device.Signal("TERM");
        outcome = await device.EndAsync();
        Assert.True(outcome.ExitCode == 0, outcome.Errors);
        Assert.Contains("memory-backend-file", outcome.Errors, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_server_of_something_else_is_refused()
    {
        await using OutboardProcess card =
            OutboardProcess.Start("test-card", $"--vfio-user-socket={_folder["v"]}", "--quiet");
        await card.ListensAsync(_folder["v"]);
        string address = $"--virtio-vhost-user=vfio-user:{_folder["v"]}";
        (await OutboardProcess.RunAsync("block", "--null-size=1M", address))
            .AssertFailed(1, address, "no modern virtio device");
        address = $"--virtio-vhost-user=vfio-user:{_folder["nobody"]}";
        (await OutboardProcess.RunAsync("block", "--null-size=1M", address)).AssertFailed(1, address);
    }

    private OutboardProcess StartDisk(string image) => OutboardProcess.Start(
        "block", $"--virtio-vhost-user=vfio-user:{_folder["v"]}", $"--blk-file={image}", "--quiet");

    private async Task CheckAsync(Action<BlockDriver> action)
    {
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        using DriverMemory memory = new(
            new FileSharedMemory(SharedFile.Open(_folder["memory"], MemoryBytes)), 0, MemoryBytes, 0x1_0000_0000);
        memory.Segment.Span.Clear();
        await using VhostUserFrontend frontend =
            await VhostUserFrontend.ConnectAsync(_folder["f"], cancellation: cancellation);
        await frontend.ShareMemoryAsync(memory, cancellation);
        using FrontendQueue queue = await frontend.StartQueueAsync(0, 64, memory, cancellation);
        await Task.Run(() => action(new BlockDriver(queue, 4, 64 << 10)), cancellation);
        await frontend.StopQueueAsync(queue, cancellation);
    }
}
