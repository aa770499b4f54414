// OutboardBlockTests.cs - the block tests against our own back-end.
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Block;

public sealed class OutboardBlockGuestTests : BlockGuestTests
{
    private const int Crashes = 6;
    private const int Pauses = 5;

    /// <summary>Killed at any moment, started again at once: nothing is lost, and nothing fails.</summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_file_system_outlives_many_crashes(bool isPacked)
    {
        using TempFolder folder = new();
        BlockBackendOptions options = OptionsIn(folder) with { QueueCount = 2 };
        IBlockBackendUnderTest backend = await StartBackendAsync(options);
        try
        {
            string packed = isPacked ? ",packed=on" : "";
            await using GuestVm guest = await GuestVm.StartAsync(GuestWith(backend, queueCount: 2, packed) with
            {
                Script = GuestOptions.ReadScript("block-crash.sh"),
                Processors = 2,
                Variables = new Dictionary<string, string> { ["PACKED"] = isPacked ? "1" : "0" },
            });
            int position = 0;
            for (int crash = 0; crash < Crashes; crash++)
            {
                await guest.WaitForAsync(ProgressPattern, position);
                position = guest.Serial.Length;
                await backend.KillAsync();
                await backend.DisposeAsync();
                backend = await StartBackendAsync(options);
            }

            (await guest.FinishAsync()).RequireSuccess();
        }
        finally
        {
            await backend.DisposeAsync();
        }
    }

    /// <summary>
    /// Paused with requests in flight, which take longer than the pause: QEMU with inflight-migration=on does not wait
    /// for them, and they are submitted again when the machine goes on.
    /// </summary>
    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public async Task A_guest_is_paused_without_a_wait_for_its_requests(bool isPacked)
    {
        using TempFolder folder = new();
        BlockBackendOptions options = OptionsIn(folder) with { DelayMs = 700 };
        await using OutboardBlockBackend backend = await OutboardBlockBackend.StartAsync(options);
        string packed = isPacked ? ",packed=on" : "";
        await using GuestVm guest = await GuestVm.StartAsync(
            GuestWith(backend, queueCount: 1, $",inflight-migration=on{packed}") with
            {
                Script = GuestOptions.ReadScript("block-pause.sh"),
                OffersQmp = true,
                Variables = new Dictionary<string, string>
                {
                    ["PACKED"] = isPacked ? "1" : "0",
                    ["BLOCKS"] = "8",
                },
            });
        int position = 0;
        for (int pause = 0; pause < Pauses; pause++)
        {
            // Requests take 700 ms, and writers go in step: each pause comes at another moment of theirs.
            await guest.WaitForAsync(ProgressPattern, position);
            await Task.Delay(150 * pause);
            position = guest.Serial.Length;
            await guest.QmpAsync("stop");
            await guest.QmpAsync("cont");
        }

        (await guest.FinishAsync()).RequireSuccess();
        Assert.Contains("requests stay in the in-flight region", backend.Log, StringComparison.Ordinal);
    }

    /// <summary>QEMU listens, and is started a second time while the back-end lives.</summary>
    [Fact]
    public async Task A_back_end_that_connects_outlives_its_QEMU()
    {
        using TempFolder folder = new();
        BlockBackendOptions options = OptionsIn(folder) with { Connects = true, Serial = ExpectedSerial };
        await using IBlockBackendUnderTest backend = await StartBackendAsync(options);
        for (int boot = 0; boot < 2; boot++)
        {
            GuestOutcome outcome = await GuestVm.RunAsync(GuestWith(backend) with
            {
                Script = GuestOptions.ReadScript("block-identity.sh"),
                DeviceArguments =
                [
                    "-chardev", $"socket,id=disk,path={options.SocketPath},server=on,wait=off",
                    "-device", "vhost-user-blk-pci,chardev=disk,num-queues=1",
                ],
                Variables = new Dictionary<string, string> { ["SERIAL"] = ExpectedSerial, ["READ_ONLY"] = "0" },
            });
            outcome.RequireSuccess();
            File.Delete(options.SocketPath);
        }
    }

    private protected override async Task<IBlockBackendUnderTest> StartBackendAsync(BlockBackendOptions options) =>
        await OutboardBlockBackend.StartAsync(options);
}

public sealed class OutboardBlockHostTests : BlockHostTests
{
    /// <summary>Our lock and QEMU's keep each other out.</summary>
    [Fact]
    public async Task An_image_that_is_served_is_locked_for_qemu_too()
    {
        using TempFolder folder = new();
        BlockBackendOptions options = OptionsIn(folder);
        await using IBlockBackendUnderTest backend = await StartBackendAsync(options);

        LabException refusal = await Assert.ThrowsAsync<LabException>(
            () => QemuIo.RunOnFileAsync(options.ImagePath, "read 0 512"));
        Assert.Contains("lock", refusal.Message, StringComparison.Ordinal);
    }

    private protected override async Task<IBlockBackendUnderTest> StartBackendAsync(BlockBackendOptions options) =>
        await OutboardBlockBackend.StartAsync(options);
}
