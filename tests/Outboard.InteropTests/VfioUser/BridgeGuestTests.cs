// BridgeGuestTests.cs - "outboard bridge" between a stock QEMU guest, which sees a PCI device over vfio-user, and
// somebody else's vhost-user back-end: qemu-storage-daemon and passt. And our own one, killed under the guest.
using Outboard.InteropTests.Block;
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.VfioUser;

public sealed class BridgeGuestTests
{
    private const long DiskLength = 96 << 20;
    private const int SectorLength = 512;

    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    public async Task A_file_system_on_the_storage_daemon_keeps_its_files(int queueCount)
    {
        using TempFolder folder = new();
        BlockBackendOptions options = new()
        {
            SocketPath = folder.Combine("back.sock"),
            ImagePath = folder.CreateImage("disk.img", DiskLength),
            QueueCount = queueCount,
        };
        await using StorageDaemonBackend backend = await StorageDaemonBackend.StartAsync(options);
        string socket = folder.Combine("front.sock");
        await using PeerProcess bridge = await StartAsync(socket, options.SocketPath);
        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("virtio-pci.sh") + GuestOptions.ReadScript("block.sh"),
            Processors = queueCount,
            Variables = new Dictionary<string, string>
            {
                ["QUEUES"] = $"{queueCount}",
                ["SECTORS"] = $"{DiskLength / SectorLength}",
                ["PACKED"] = "0",
                ["VECTORS"] = $"{queueCount}",
            },
            DeviceArguments = VfioUserGuest.Device(socket),
        });

        outcome.RequireSuccess();
        await bridge.TerminateAsync();
        Assert.Equal(0, bridge.ExitCode);
        Assert.DoesNotContain("warning", bridge.Errors.Text, StringComparison.Ordinal);
    }

    /// <summary>The back-end is killed and started again while the guest writes: it notices nothing but the
    /// wait.</summary>
    [Theory]
    [InlineData("--split-rings")]
    [InlineData("--verbose")]
    public async Task A_back_end_that_is_killed_costs_nothing_but_time(string option)
    {
        using TempFolder folder = new();
        string image = folder.CreateImage("disk.img", DiskLength);
        string back = folder.Combine("back.sock");
        string socket = folder.Combine("front.sock");
        PeerProcess disk = StartDisk(back, image);
        try
        {
            await disk.WaitForSocketAsync(back, s_startLimit);
            await using PeerProcess bridge = await StartAsync(socket, back, option);
            await using GuestVm guest = await GuestVm.StartAsync(new GuestOptions
            {
                Script = GuestOptions.ReadScript("block-restart.sh"),
                Variables = new Dictionary<string, string> { ["PASSES"] = "4" },
                DeviceArguments = VfioUserGuest.Device(socket),
            });
            for (int pass = 1; pass <= 3; pass++)
            {
                await guest.WaitForLineAsync($"PROGRESS {pass} 32");
                await disk.KillAsync();
                await disk.DisposeAsync();
                disk = StartDisk(back, image);
                await disk.WaitForSocketAsync(back, s_startLimit);
            }

            (await guest.FinishAsync()).RequireSuccess();
            await bridge.TerminateAsync();
            Assert.Equal(0, bridge.ExitCode);
            Assert.DoesNotContain("has to be reset", bridge.Errors.Text, StringComparison.Ordinal);
        }
        finally
        {
            await disk.DisposeAsync();
        }
    }

    private static PeerProcess StartDisk(string socket, string image)
    {
        File.Delete(socket);
        return PeerProcess.StartProgram(
            "dotnet", OutboardProgram.Path, "block", $"--socket-path={socket}", $"--blk-file={image}");
    }

    private static async Task<PeerProcess> StartAsync(string front, string back, params string[] options)
    {
        PeerProcess bridge = PeerProcess.StartProgram(
            "dotnet",
            [OutboardProgram.Path, "bridge", $"--vfio-user-socket={front}", $"--vhost-user-socket={back}", .. options]);
        await bridge.WaitForSocketAsync(front, s_startLimit);
        return bridge;
    }
}
