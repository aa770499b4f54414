// RigTests.cs - the rig must be able to fail: a wrong result, a panic, a hang or a program that does not start may
// never look like success.
using System.Text.Json.Nodes;
using Outboard.InteropTests.Block;
using Xunit;

namespace Outboard.InteropTests.Lab;

public sealed class RigTests
{
    private const int BlockLength = 4096;

    [Fact]
    public async Task A_script_tells_its_exit_status_and_its_output()
    {
        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = "echo \"$WORD from $(uname -s)\"; exit 3",
            Variables = new Dictionary<string, string> { ["WORD"] = "greetings" },
        });

        Assert.Equal(3, outcome.ExitStatus);
        LabException exception = Assert.Throws<LabException>(outcome.RequireSuccess);
        Assert.Contains("greetings from Linux\n", exception.Message, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_panic_is_no_success_and_ends_the_machine()
    {
        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = "echo c > /proc/sysrq-trigger; sleep 1000",
            AllowsReboot = true,
        });

        Assert.Null(outcome.ExitStatus);
        Assert.Contains("Kernel panic", outcome.Serial, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_machine_that_hangs_is_ended_at_its_time_limit()
    {
        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = "sleep 1000",
            TimeLimit = TimeSpan.FromSeconds(5),
        });

        Assert.Null(outcome.ExitStatus);
    }

    [Fact]
    public async Task A_test_talks_to_the_machine_by_console_and_commands()
    {
        using TempFolder folder = new();
        string data = folder.Combine("data");
        await File.WriteAllTextAsync(data, "brought along", TestContext.Current.CancellationToken);
        await using GuestVm guest = await GuestVm.StartAsync(new GuestOptions
        {
            Script = "cat /test/data; echo; stty -echo; echo READY; read -r word; echo \"heard $word\"",
            Files = new Dictionary<string, string> { ["/test/data"] = data },
            OffersQmp = true,
        });

        await guest.WaitForLineAsync("brought along");
        await guest.WaitForLineAsync("READY");
        JsonNode status = await guest.QmpAsync("query-status");
        Assert.Equal("running", (string?)status["status"]);
        await Assert.ThrowsAsync<LabException>(() => guest.QmpAsync("no-such-command"));
        await guest.SendAsync("a word\n");
        await guest.WaitForLineAsync("heard a word");

        (await guest.FinishAsync()).RequireSuccess();
    }

    [Fact]
    public async Task A_program_that_does_not_start_says_why()
    {
        using TempFolder folder = new();
        await using PeerProcess process = await PeerProcess.StartPeerAsync("qemu-storage-daemon", "--no-such-option");

        LabException exception = await Assert.ThrowsAsync<LabException>(
            () => process.WaitForSocketAsync(folder.Combine("never.sock"), TimeSpan.FromMinutes(1)));

        Assert.Contains("no-such-option", exception.Message, StringComparison.Ordinal);
        Assert.NotEqual(0, process.ExitCode);
    }

    [Fact]
    public async Task A_program_has_the_process_id_that_is_told()
    {
        using TempFolder folder = new();
        string socket = folder.Combine("monitor.sock");
        PeerProcess process = await PeerProcess.StartPeerAsync(
            "qemu-storage-daemon",
            "--chardev", $"socket,id=m,path={socket},server=on,wait=off",
            "--monitor", "chardev=m");
        await process.WaitForSocketAsync(socket, TimeSpan.FromMinutes(1));
        string command = $"/proc/{process.Id}/cmdline";

        string text = await File.ReadAllTextAsync(command, TestContext.Current.CancellationToken);
        Assert.StartsWith("qemu-storage-daemon\0", text, StringComparison.Ordinal);

        await process.DisposeAsync();
        Assert.False(File.Exists(command));
        Assert.False(ListeningSockets.Contains(socket));
    }

    [Fact]
    public async Task Wrong_data_on_an_image_is_noticed()
    {
        using TempFolder folder = new();
        string image = folder.CreateImage("disk.img", 1 << 20);
        await QemuIo.RunOnFileAsync(image, "write -P 1 0 4k");

        await Assert.ThrowsAsync<LabException>(() => QemuIo.RunOnFileAsync(image, "read -P 2 0 4k"));
    }

    [Fact]
    public async Task A_disk_damaged_between_two_boots_is_noticed()
    {
        using TempFolder folder = new();
        BlockBackendOptions options = new()
        {
            SocketPath = folder.Combine("block.sock"),
            ImagePath = folder.CreateImage("disk.img", 96 << 20),
        };
        await using StorageDaemonBackend backend = await StorageDaemonBackend.StartAsync(options);
        GuestOptions guest = new()
        {
            Script = GuestOptions.ReadScript("block-reboot.sh"),
            DeviceArguments =
            [
                "-chardev", $"socket,id=disk,path={backend.SocketPath}", "-device", "vhost-user-blk-pci,chardev=disk",
            ],
        };

        GuestOutcome first = await GuestVm.RunAsync(guest);
        Assert.Contains("FIRST-BOOT", first.Serial, StringComparison.Ordinal);
        Damage(options.ImagePath);
        GuestOutcome second = await GuestVm.RunAsync(guest);

        Assert.Contains("SECOND-BOOT", second.Serial, StringComparison.Ordinal);
        Assert.True(second.ExitStatus > 0, second.Serial);
    }

    // turns every sixteenth block around that holds something, but spares the start of the file system
    private static void Damage(string path)
    {
        using FileStream file = new(path, FileMode.Open, FileAccess.ReadWrite, FileShare.ReadWrite);
        byte[] block = new byte[BlockLength];
        int used = 0;
        for (long position = 1 << 20; position < file.Length; position += BlockLength)
        {
            file.Position = position;
            file.ReadExactly(block);
            if (block.AsSpan().ContainsAnyExcept((byte)0) && used++ % 16 == 15)
            {
                for (int index = 0; index < block.Length; index++)
                {
                    block[index] ^= 0xFF;
                }

                file.Position = position;
                file.Write(block);
            }
        }
    }
}
