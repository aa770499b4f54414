// VirtioGuestTests.cs - virtio devices of ours as PCI devices over vfio-user: a stock Linux guest drives them with its
// stock drivers, as it does with the same devices over vhost-user.
using Outboard.InteropTests.Lab;
using Outboard.InteropTests.Net;
using Xunit;

namespace Outboard.InteropTests.VfioUser;

public sealed class VirtioGuestTests
{
    private const long DiskLength = 96 << 20;
    private const int SectorLength = 512;

    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);

    [Theory]
    [InlineData(1, "")]
    [InlineData(4, "")]
    [InlineData(1, "--split-rings")]
    [InlineData(4, "--split-rings")]
    public async Task A_file_system_keeps_its_files(int queueCount, string option)
    {
        using TempFolder folder = new();
        string socket = folder.Combine("disk.sock");
        string image = folder.Combine("disk.img");
        await using (FileStream file = File.Create(image))
        {
            file.SetLength(DiskLength);
        }

        string[] options = option.Length == 0 ? [] : [option];
        await using PeerProcess disk = PeerProcess.StartProgram(
            "dotnet",
            [OutboardProgram.Path, "block", $"--vfio-user-socket={socket}", $"--blk-file={image}",
                $"--num-queues={queueCount}", .. options]);
        await disk.WaitForSocketAsync(socket, s_startLimit);

        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("virtio-pci.sh") + GuestOptions.ReadScript("block.sh"),
            Processors = queueCount,
            Variables = new Dictionary<string, string>
            {
                ["QUEUES"] = $"{queueCount}",
                ["SECTORS"] = $"{DiskLength / SectorLength}",
                ["PACKED"] = option.Length == 0 ? "1" : "0",
                ["VECTORS"] = $"{queueCount}",
            },
            DeviceArguments = VfioUserGuest.Device(socket),
        });

        outcome.RequireSuccess();
        await disk.TerminateAsync();
        Assert.Equal(0, disk.ExitCode);
        Assert.DoesNotContain("refused", disk.Errors.Text);
        Assert.DoesNotContain("warning", disk.Errors.Text);
    }

    /// <summary>
    /// QEMU does not look for a server that has gone: what the guest asks of the disk never ends, and the machine goes
    /// on. The file is whole, and served again at once to the next machine.
    /// </summary>
    [Fact]
    public async Task A_guest_loses_a_disk_that_is_killed_and_the_next_one_finds_the_data()
    {
        using TempFolder folder = new();
        string socket = folder.Combine("disk.sock");
        string[] server =
            [OutboardProgram.Path, "block", $"--vfio-user-socket={socket}",
                $"--blk-file={folder.CreateImage("disk.img", 64 << 20)}"];
        await using PeerProcess killed = PeerProcess.StartProgram("dotnet", server);
        await killed.WaitForSocketAsync(socket, s_startLimit);
        GuestOptions options = new()
        {
            Script = GuestOptions.ReadScript("virtio-kill.sh"),
            Variables = new Dictionary<string, string> { ["SECOND"] = "" },
            DeviceArguments = VfioUserGuest.Device(socket),
        };
        await using (GuestVm guest = await GuestVm.StartAsync(options))
        {
            await guest.WaitForLineAsync("KILL");
            await killed.KillAsync();
            await guest.SendAsync("KILLED\n");
            await guest.WaitForLineAsync("LOST");
        }

        File.Delete(socket);
        await using PeerProcess second = PeerProcess.StartProgram("dotnet", server);
        await second.WaitForSocketAsync(socket, s_startLimit);
        GuestOutcome outcome = await GuestVm.RunAsync(
            options with { Variables = new Dictionary<string, string> { ["SECOND"] = "yes" } });
        outcome.RequireSuccess();
        await second.TerminateAsync();
        Assert.Equal(0, second.ExitCode);
    }

    /// <summary>The disk is a vhost-user back-end; another process serves it once more, as a PCI device.</summary>
    [Fact]
    public async Task A_disk_of_another_process_keeps_its_files()
    {
        using TempFolder folder = new();
        string far = folder.Combine("far.sock");
        string socket = folder.Combine("disk.sock");
        string image = folder.Combine("disk.img");
        await using (FileStream file = File.Create(image))
        {
            file.SetLength(DiskLength);
        }

        await using PeerProcess disk = PeerProcess.StartProgram(
            "dotnet", OutboardProgram.Path, "block", $"--socket-path={far}", $"--blk-file={image}", "--life-cycle");
        await disk.WaitForSocketAsync(far, s_startLimit);
        await using PeerProcess remote = PeerProcess.StartProgram(
            "dotnet", OutboardProgram.Path, "relay", $"--from={far}", $"--vfio-user-socket={socket}");
        await remote.WaitForSocketAsync(socket, s_startLimit);

        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("virtio-pci.sh") + GuestOptions.ReadScript("block.sh"),
            Variables = new Dictionary<string, string>
            {
                ["QUEUES"] = "1",
                ["SECTORS"] = $"{DiskLength / SectorLength}",
                ["PACKED"] = "1",
                ["VECTORS"] = "1",
            },
            DeviceArguments = VfioUserGuest.Device(socket),
        });

        outcome.RequireSuccess();
        await remote.TerminateAsync();
        Assert.Equal(0, remote.ExitCode);
        Assert.DoesNotContain("refused", disk.Errors.Text);
    }

    [Theory]
    [InlineData(1)]
    [InlineData(2)]
    public async Task A_guest_and_a_host_exchange_packets_by_a_tap(int pairs)
    {
        using TempFolder folder = new();
        string socket = folder.Combine("net.sock");
        await using TapHost host = await TapHost.StartAsync(folder, pairs);
        await using PeerProcess card = PeerProcess.StartProgram(
            "ip",
            host.Network.Inside(
                "dotnet", OutboardProgram.Path, "net", $"--vfio-user-socket={socket}", $"--tap={TapNetwork.TapName}",
                $"--queue-pairs={pairs}", "--mac=52:54:00:77:00:02"));
        await card.WaitForSocketAsync(socket, s_startLimit);

        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("net.sh"),
            Processors = pairs,
            Variables = host.GuestVariables,
            DeviceArguments = VfioUserGuest.Device(socket),
        });

        outcome.RequireSuccess();
    }

    /// <summary>The machine starts again with the same device: reset, firmware's memory changes, a second
    /// driver.</summary>
    [Fact]
    public async Task A_reboot_starts_the_disk_again()
    {
        using TempFolder folder = new();
        string socket = folder.Combine("disk.sock");
        await using PeerProcess disk = PeerProcess.StartProgram(
            "dotnet", OutboardProgram.Path, "block", $"--vfio-user-socket={socket}", "--memory-size=96M");
        await disk.WaitForSocketAsync(socket, s_startLimit);

        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("block-reboot.sh"),
            AllowsReboot = true,
            DeviceArguments = VfioUserGuest.Device(socket),
        });

        outcome.RequireSuccess();
        Assert.Contains("SECOND-BOOT", outcome.Serial, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_guest_reads_random_numbers()
    {
        using TempFolder folder = new();
        string socket = folder.Combine("rng.sock");
        await using PeerProcess device = PeerProcess.StartProgram(
            "dotnet", OutboardProgram.Path, "rng", $"--vfio-user-socket={socket}");
        await device.WaitForSocketAsync(socket, s_startLimit);

        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("rng.sh"),
            Variables = new Dictionary<string, string> { ["BLOCKS"] = "256" },
            DeviceArguments = VfioUserGuest.Device(socket),
        });

        outcome.RequireSuccess();
    }
}
