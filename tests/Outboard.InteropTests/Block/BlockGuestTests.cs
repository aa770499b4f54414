// BlockGuestTests.cs - a stock Linux guest under stock QEMU uses a vhost-user-blk disk. The same tests run against any
// back-end: a derived class says how to start it.
using System.Text.RegularExpressions;
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Block;

public abstract partial class BlockGuestTests
{
    private const long DiskLength = 96 << 20;
    private const int SectorLength = 512;

    private static readonly TimeSpan s_downtime = TimeSpan.FromSeconds(2);

    [Theory]
    [InlineData(1)]
    [InlineData(4)]
    public async Task A_file_system_keeps_its_files(int queueCount)
    {
        using TempFolder folder = new();
        BlockBackendOptions options = OptionsIn(folder) with { QueueCount = queueCount };
        await using IBlockBackendUnderTest backend = await StartBackendAsync(options);

        GuestOutcome outcome = await GuestVm.RunAsync(GuestWith(backend, queueCount) with
        {
            Script = GuestOptions.ReadScript("block.sh"),
            Processors = queueCount,
            Variables = new Dictionary<string, string>
            {
                ["QUEUES"] = $"{queueCount}",
                ["SECTORS"] = $"{DiskLength / SectorLength}",
            },
        });

        outcome.RequireSuccess();
    }

    [Fact]
    public async Task A_reboot_starts_the_disk_again()
    {
        using TempFolder folder = new();
        await using IBlockBackendUnderTest backend = await StartBackendAsync(OptionsIn(folder));

        GuestOutcome outcome = await GuestVm.RunAsync(GuestWith(backend) with
        {
            Script = GuestOptions.ReadScript("block-reboot.sh"),
            AllowsReboot = true,
        });

        outcome.RequireSuccess();
        Assert.Contains("FIRST-BOOT", outcome.Serial, StringComparison.Ordinal);
        Assert.Contains("SECOND-BOOT", outcome.Serial, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_reset_under_load_leaves_a_disk_that_recovers()
    {
        using TempFolder folder = new();
        await using IBlockBackendUnderTest backend = await StartBackendAsync(OptionsIn(folder));
        await using GuestVm guest = await GuestVm.StartAsync(GuestWith(backend) with
        {
            Script = GuestOptions.ReadScript("block-reset.sh"),
            AllowsReboot = true,
            OffersQmp = true,
        });

        await guest.WaitForLineAsync("BUSY");
        await guest.QmpAsync("system_reset");

        GuestOutcome outcome = (await guest.FinishAsync()).RequireSuccess();
        Assert.Contains("SECOND-BOOT", outcome.Serial, StringComparison.Ordinal);
    }

    [Fact]
    public async Task A_resize_reaches_the_running_guest()
    {
        using TempFolder folder = new();
        await using IBlockBackendUnderTest backend = await StartBackendAsync(OptionsIn(folder));
        await using GuestVm guest = await GuestVm.StartAsync(GuestWith(backend) with
        {
            Script = GuestOptions.ReadScript("block-resize.sh"),
            Variables = new Dictionary<string, string>
            {
                ["BEFORE"] = $"{DiskLength / SectorLength}",
                ["AFTER"] = $"{DiskLength * 2 / SectorLength}",
            },
        });

        await guest.WaitForLineAsync("WAITING-FOR-RESIZE");
        await backend.ResizeAsync(DiskLength * 2);

        (await guest.FinishAsync()).RequireSuccess();
    }

    [Fact]
    public async Task The_guest_outlives_a_crash_of_the_back_end()
    {
        using TempFolder folder = new();
        BlockBackendOptions options = OptionsIn(folder);
        IBlockBackendUnderTest backend = await StartBackendAsync(options);
        try
        {
            await using GuestVm guest = await GuestVm.StartAsync(GuestWith(backend) with
            {
                Script = GuestOptions.ReadScript("block-restart.sh"),
                Variables = new Dictionary<string, string> { ["PASSES"] = "8" },
            });
            await guest.WaitForAsync(ProgressPattern);

            await backend.KillAsync();
            await backend.DisposeAsync();
            await Task.Delay(s_downtime, TestContext.Current.CancellationToken);
            int position = guest.Serial.Length;
            backend = await StartBackendAsync(options);

            await guest.WaitForAsync(ProgressPattern, position);
            (await guest.FinishAsync()).RequireSuccess();
        }
        finally
        {
            await backend.DisposeAsync();
        }
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task The_disk_tells_its_serial_number_and_whether_it_is_read_only(bool readOnly)
    {
        using TempFolder folder = new();
        BlockBackendOptions options = OptionsIn(folder) with { IsReadOnly = readOnly, Serial = ExpectedSerial };
        await using IBlockBackendUnderTest backend = await StartBackendAsync(options);

        GuestOutcome outcome = await GuestVm.RunAsync(GuestWith(backend) with
        {
            Script = GuestOptions.ReadScript("block-identity.sh"),
            Variables = new Dictionary<string, string>
            {
                ["SERIAL"] = ExpectedSerial,
                ["READ_ONLY"] = readOnly ? "1" : "0",
            },
        });

        outcome.RequireSuccess();
    }

    /// <summary>The serial number that the disk shows when the test asks for this very one.</summary>
    private protected virtual string ExpectedSerial => "outboard-0123456789";

    private protected abstract Task<IBlockBackendUnderTest> StartBackendAsync(BlockBackendOptions options);

    [GeneratedRegex(@"^PROGRESS \d+ \d+$", RegexOptions.Multiline)]
    private protected static partial Regex ProgressPattern { get; }

    private protected static BlockBackendOptions OptionsIn(TempFolder folder) => new()
    {
        SocketPath = folder.Combine("block.sock"),
        ImagePath = folder.CreateImage("disk.img", DiskLength),
    };

    private protected static GuestOptions GuestWith(
        IBlockBackendUnderTest backend, int queueCount = 1, string deviceOptions = "") => new()
    {
        Script = "",
        DeviceArguments =
        [
            "-chardev", $"socket,id=disk,path={backend.SocketPath},reconnect-ms=500",
            "-device", $"vhost-user-blk-pci,chardev=disk,num-queues={queueCount}{deviceOptions}",
        ],
    };
}
