// NvmeGuestTests.cs - our NVMe controller in a stock guest: Linux' own driver, by stock QEMU's vfio-user-pci.
using System.Text.Json.Nodes;
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.VfioUser;

public sealed class NvmeGuestTests
{
    private const long DiskLength = 96 << 20;
    private const int SectorLength = 512;
    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);

    /// <summary>Long enough for QEMU to answer all that was asked for; short against the 5 s that it waits.</summary>
    private static readonly TimeSpan s_standstill = TimeSpan.FromMilliseconds(150);

    /// <summary>Queues of several CPUs, two namespaces, both block sizes; doorbells in memory and by message.</summary>
    [Theory]
    [InlineData(1, 512, "")]
    [InlineData(2, 4096, "--no-shadow-doorbells")]
    public async Task Namespaces_keep_their_files(int processors, int blockSize, string option)
    {
        using TempFolder folder = new();
        string[] options = option.Length == 0 ? [] : [option];
        await using PeerProcess controller = await StartAsync(
            folder,
            [$"--blk-file={MakeDisk(folder, "one.img")}", $"--block-size={blockSize}",
                $"--namespace={MakeDisk(folder, "two.img")}", "--serial=SN-4711", .. options]);

        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("nvme.sh"),
            Processors = processors,
            Variables = Variables(blockSize, hasSecond: true),
            DeviceArguments = VfioUserGuest.Device(folder.Combine("nvme.sock")),
        });

        outcome.RequireSuccess();
        Assert.Contains("serial: SN-4711", outcome.Serial, StringComparison.Ordinal);
        await RequireCleanEndAsync(controller);
    }

    /// <summary>Nothing is mapped: rings, lists and data go by messages.</summary>
    [Fact]
    public async Task A_guest_whose_memory_is_not_shared_is_served_by_messages()
    {
        using TempFolder folder = new();
        await using PeerProcess controller = await StartAsync(folder, [$"--blk-file={MakeDisk(folder, "one.img")}"]);

        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("nvme.sh"),
            Variables = Variables(SectorLength, hasSecond: false),
            SharesMemory = false,
            DeviceArguments = VfioUserGuest.Device(folder.Combine("nvme.sock")),
        });

        outcome.RequireSuccess();
        await RequireCleanEndAsync(controller);
    }

    /// <summary>The server stands still now and then, so that QEMU's socket to it is full: QEMU cuts off what there is
    /// no room for, so nothing may be asked for that could be cut.</summary>
    [Fact]
    public async Task A_server_that_stands_still_now_and_then_keeps_its_place_in_the_messages()
    {
        using TempFolder folder = new();
        await using PeerProcess controller = await StartAsync(folder, [$"--blk-file={MakeDisk(folder, "one.img")}"]);
        Task<GuestOutcome> running = GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("nvme-writes.sh"),
            SharesMemory = false,
            DeviceArguments = VfioUserGuest.Device(folder.Combine("nvme.sock")),
        });
        while (!running.IsCompleted)
        {
            await controller.SignalAsync("STOP");
            await Task.Delay(s_standstill);
            await controller.SignalAsync("CONT");
            await Task.WhenAny(running, Task.Delay(s_standstill));
        }

        (await running).RequireSuccess();
        await RequireCleanEndAsync(controller);
    }

    /// <summary>No vectors: the pin, with its level, tells of completions.</summary>
    [Fact]
    public async Task A_guest_without_message_signalled_interrupts_uses_the_pin()
    {
        using TempFolder folder = new();
        await using PeerProcess controller = await StartAsync(folder, [$"--blk-file={MakeDisk(folder, "one.img")}"]);

        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("nvme.sh"),
            KernelArguments = "pci=nomsi",
            Variables = Variables(SectorLength, hasSecond: false, vectors: 0),
            DeviceArguments = VfioUserGuest.Device(folder.Combine("nvme.sock")),
        });

        outcome.RequireSuccess();
        await RequireCleanEndAsync(controller);
    }

    /// <summary>
    /// The controller is put into a running machine. Pulling it out ends QEMU 11.1.3, since it has MSI-X; without, see
    /// <see cref="HotplugTests"/>.
    /// </summary>
    [Fact]
    public async Task A_controller_is_plugged_into_a_running_machine()
    {
        using TempFolder folder = new();
        await using PeerProcess controller = await StartAsync(folder, [$"--blk-file={MakeDisk(folder, "one.img")}"]);
        await using GuestVm guest = await GuestVm.StartAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("nvme-hotplug.sh"),
            OffersQmp = true,
            DeviceArguments = ["-device", "pcie-root-port,id=rp,slot=4"],
        });

        await guest.WaitForLineAsync("PLUG");
        await guest.QmpAsync("device_add", new JsonObject
        {
            ["driver"] = "vfio-user-pci", ["id"] = "nvme", ["bus"] = "rp",
            ["socket"] = new JsonObject { ["type"] = "unix", ["path"] = folder.Combine("nvme.sock") },
        });

        (await guest.FinishAsync()).RequireSuccess();
        await RequireCleanEndAsync(controller);
    }

    /// <summary>
    /// QEMU does not look for a server that has gone: the guest's driver loses the disk, and the machine goes on. The
    /// file is whole, and served again at once to the next machine.
    /// </summary>
    [Fact]
    public async Task A_guest_loses_a_controller_that_is_killed_and_the_next_one_finds_the_data()
    {
        using TempFolder folder = new();
        string disk = MakeDisk(folder, "one.img");
        await using PeerProcess killed = await StartAsync(folder, [$"--blk-file={disk}"]);
        GuestOptions options = new()
        {
            Script = GuestOptions.ReadScript("nvme-kill.sh"),
            Variables = new Dictionary<string, string> { ["SECOND"] = "" },
            DeviceArguments = VfioUserGuest.Device(folder.Combine("nvme.sock")),
        };
        await using (GuestVm guest = await GuestVm.StartAsync(options))
        {
            await guest.WaitForLineAsync("KILL");
            await killed.KillAsync();
            await guest.SendAsync("KILLED\n");
            await guest.WaitForLineAsync("LOST");
        }

        File.Delete(folder.Combine("nvme.sock"));
        await using PeerProcess second = await StartAsync(folder, [$"--blk-file={disk}"]);
        GuestOutcome outcome = await GuestVm.RunAsync(
            options with { Variables = new Dictionary<string, string> { ["SECOND"] = "yes" } });
        outcome.RequireSuccess();
        await RequireCleanEndAsync(second);
    }

    private static Dictionary<string, string> Variables(
        int blockSize, bool hasSecond, int resets = 3, int vectors = 1) => new()
    {
        ["SECTORS"] = $"{DiskLength / SectorLength}",
        ["SECTORS2"] = hasSecond ? $"{DiskLength / SectorLength}" : "0",
        ["BLOCK"] = $"{blockSize}",
        ["VECTORS"] = $"{vectors}",
        ["RESETS"] = $"{resets}",
    };

    private static string MakeDisk(TempFolder folder, string name)
    {
        string path = folder.Combine(name);
        using FileStream file = File.Create(path);
        file.SetLength(DiskLength);
        return path;
    }

    private static async Task<PeerProcess> StartAsync(TempFolder folder, string[] options)
    {
        string socket = folder.Combine("nvme.sock");
        PeerProcess controller = PeerProcess.StartProgram(
            "dotnet", [OutboardProgram.Path, "nvme", $"--vfio-user-socket={socket}", .. options]);
        await controller.WaitForSocketAsync(socket, s_startLimit);
        return controller;
    }

    private static async Task RequireCleanEndAsync(PeerProcess controller)
    {
        await controller.TerminateAsync();
        Assert.Equal(0, controller.ExitCode);
        Assert.DoesNotContain("refused", controller.Errors.Text);
        Assert.DoesNotContain("warning", controller.Errors.Text);
    }
}
