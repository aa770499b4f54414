// PciCardGuestTests.cs - PCI cards of ours in a stock guest, by stock QEMU's vfio-user-pci.
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.VfioUser;

public sealed class PciCardGuestTests
{
    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan s_buildLimit = TimeSpan.FromMinutes(10);

    /// <summary>The sample: 45 lines, and Linux drives it with the driver that it has for the real card.</summary>
    [Fact]
    public async Task Linux_drives_the_sample_card_with_its_own_driver()
    {
        using TempFolder folder = new();
        string socket = folder.Combine("card.sock");
        string program = await BuildSampleAsync("HelloPci", folder);
        await using PeerProcess card = PeerProcess.StartProgram(program, socket);
        await card.WaitForSocketAsync(socket, s_startLimit);

        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("gpio.sh"),
            DeviceArguments = VfioUserGuest.Device(socket),
        });

        outcome.RequireSuccess();
    }

    /// <summary>DMA through mapped memory, and (where nothing is shared) through messages to QEMU.</summary>
    [Theory]
    [InlineData(true)]
    [InlineData(false)]
    public async Task A_guest_talks_to_the_test_card(bool sharesMemory)
    {
        using TempFolder folder = new();
        string socket = folder.Combine("card.sock");
        await using PeerProcess card = PeerProcess.StartProgram(
            "dotnet", OutboardProgram.Path, "test-card", $"--vfio-user-socket={socket}", "--async-dma");
        await card.WaitForSocketAsync(socket, s_startLimit);

        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("test-card.sh"),
            Variables = new Dictionary<string, string> { ["PAGE"] = "0x8000000" },
            KernelArguments = "memmap=64K$0x8000000 iomem=relaxed",
            SharesMemory = sharesMemory,
            DeviceArguments = VfioUserGuest.Device(socket),
        });

        outcome.RequireSuccess();
        Assert.DoesNotContain("refused", card.Errors.Text);
        Assert.DoesNotContain("failed", card.Errors.Text);
    }
    private static async Task<string> BuildSampleAsync(string name, TempFolder folder)
    {
        string source = Path.Combine(Peers.RepositoryFolder, "samples", $"{name}.cs");
        string output = folder.Combine(name);
        await using PeerProcess build = PeerProcess.StartProgram(
            "dotnet", "build", source, "--output", output, "--verbosity", "quiet");
        int status = await build.WaitForExitAsync(s_buildLimit);
        Assert.True(status == 0, build.Describe());
        return Path.Combine(output, name);
    }
}
