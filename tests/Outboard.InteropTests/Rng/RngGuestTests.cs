// RngGuestTests.cs - a stock Linux guest takes random numbers from our back-end, through stock QEMU.
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Rng;

public sealed class RngGuestTests
{
    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);

    [Theory]
    [InlineData("--source=/dev/urandom", 2048)]
    [InlineData("--max-rate=16K", 64)]
    public async Task A_guest_reads_random_numbers(string option, int blocks)
    {
        using TempFolder folder = new();
        string socket = folder.Combine("rng.sock");
        await using PeerProcess backend = PeerProcess.StartProgram(
            "dotnet", OutboardProgram.Path, "rng", $"--socket-path={socket}", option);
        await backend.WaitForSocketAsync(socket, s_startLimit);

        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("rng.sh"),
            Variables = new Dictionary<string, string> { ["BLOCKS"] = $"{blocks}" },
            DeviceArguments =
            [
                "-chardev", $"socket,id=rng,path={socket}", "-device", "vhost-user-rng-pci,chardev=rng",
            ],
        });

        outcome.RequireSuccess();
    }
}
