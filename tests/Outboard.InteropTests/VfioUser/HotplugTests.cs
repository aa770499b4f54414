// HotplugTests.cs - PCI devices of ours come and go while a stock guest runs; and what a guest sees of a server that
// was killed: all ones, and no writes, while the machine works on, and so does a device that is plugged in after it.
// QEMU 11.1.3 ends itself when a vfio-user device with MSI-X is unplugged (docs/VFIO-USER-BEHAVIOURS.md says why), so
// those that go have none.
using System.Text.Json.Nodes;
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.VfioUser;

public sealed class HotplugTests
{
    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);

    /// <summary>Plugged in, written and read, unplugged; the same once more: the data is there.</summary>
    [Theory]
    [InlineData("block", "/dev/vda")]
    [InlineData("nvme", "/dev/nvme0n1")]
    public async Task A_disk_is_plugged_in_and_out_twice(string command, string node)
    {
        using TempFolder folder = new();
        string socket = folder.Combine("disk.sock");
        await using PeerProcess disk = await ServeAsync(socket, command, "--memory-size=64M", "--no-msix");
        await using GuestVm guest = await StartAsync("hotplug.sh", new() { ["NODE"] = node });
        for (int round = 1; round <= 2; round++)
        {
            await guest.WaitForLineAsync($"PLUG {round}");
            await PlugAsync(guest, socket);
            await guest.WaitForLineAsync($"USED {round}");
            await UnplugAsync(guest, round);
        }

        (await guest.FinishAsync()).RequireSuccess();
        await disk.TerminateAsync();
        Assert.Equal(0, disk.ExitCode);
        Assert.DoesNotContain("warning", disk.Errors.Text, StringComparison.Ordinal);
    }

    /// <summary>The test card's process is killed, and started again: what was plugged in stays lost.</summary>
    [Fact]
    public async Task A_card_whose_server_is_killed_reads_as_ones()
    {
        using TempFolder folder = new();
        string socket = folder.Combine("card.sock");
        await using PeerProcess card = await ServeAsync(socket, "test-card");
        await using GuestVm guest = await StartAsync("lost-card.sh");
        await guest.WaitForLineAsync("PLUG");
        await PlugAsync(guest, socket);
        await guest.WaitForLineAsync("KILL");
        await card.KillAsync();
        await guest.SendAsync("KILLED\n");
        await guest.WaitForLineAsync("RESTART");
        File.Delete(socket);
        await using PeerProcess second = await ServeAsync(socket, "test-card");
        await guest.SendAsync("RESTARTED\n");
        (await guest.FinishAsync()).RequireSuccess();
        Assert.DoesNotContain("connected", second.Errors.Text, StringComparison.Ordinal);
    }

    /// <summary>
    /// A disk's process is killed while the guest writes: writes fail, the disk is unplugged, and the next process is
    /// plugged in with what the first one wrote.
    /// </summary>
    [Fact]
    public async Task A_disk_whose_server_is_killed_is_replaced()
    {
        using TempFolder folder = new();
        string socket = folder.Combine("disk.sock");
        string image = folder.CreateImage("disk.img", 64 << 20);
        await using PeerProcess killed = await ServeAsync(socket, "nvme", $"--blk-file={image}", "--no-msix");
        await using GuestVm guest = await StartAsync("lost-disk.sh");
        await guest.WaitForLineAsync("PLUG 1");
        await PlugAsync(guest, socket);
        await guest.WaitForLineAsync("KILL");
        await killed.KillAsync();
        await guest.SendAsync("KILLED\n");
        await guest.WaitForLineAsync("LOST");
        await UnplugAsync(guest, 1);
        File.Delete(socket);
        await using PeerProcess second = await ServeAsync(socket, "nvme", $"--blk-file={image}", "--no-msix");
        await guest.WaitForLineAsync("PLUG 2");
        await PlugAsync(guest, socket);
        (await guest.FinishAsync()).RequireSuccess();
    }

    private static async Task<PeerProcess> ServeAsync(string socket, string command, params string[] options)
    {
        PeerProcess server = PeerProcess.StartProgram(
            "dotnet", [OutboardProgram.Path, command, $"--vfio-user-socket={socket}", .. options]);
        await server.WaitForSocketAsync(socket, s_startLimit);
        return server;
    }

    private static Task<GuestVm> StartAsync(string script, Dictionary<string, string>? variables = null) =>
        GuestVm.StartAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("pci-hotplug.sh") + GuestOptions.ReadScript(script),
            Variables = variables ?? [],
            OffersQmp = true,
            DeviceArguments = ["-device", "pcie-root-port,id=hot0,chassis=1,slot=1,mem-reserve=16M"],
        });

    private static Task PlugAsync(GuestVm guest, string socket) => guest.QmpAsync("device_add", new JsonObject
    {
        ["driver"] = "vfio-user-pci",
        ["id"] = "plugged",
        ["bus"] = "hot0",
        ["socket"] = new JsonObject { ["type"] = "unix", ["path"] = socket },
    });

    /// <summary>Asks the guest to let go, and waits until it has, the given time.</summary>
    private static async Task UnplugAsync(GuestVm guest, int time)
    {
        QmpClient qmp = await guest.ConnectQmpAsync();
        await qmp.ExecuteAsync("device_del", new JsonObject { ["id"] = "plugged" });
        await qmp.WaitForEventAsync("DEVICE_DELETED", data => (string?)data["device"] == "plugged", time);
    }
}
