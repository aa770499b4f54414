// NetGuestTests.cs - a stock Linux guest under stock QEMU reaches a host through our back-end: a tap in a network
// namespace of the test's own, with TCP servers of busybox behind it.
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Net;

public sealed class NetGuestTests
{
    private const string Mac = "52:54:00:77:00:02";

    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);

    [Theory]
    [InlineData(1, "mrg_rxbuf=on")]
    [InlineData(1, "mrg_rxbuf=off")]
    [InlineData(1, "packed=on")]
    [InlineData(1, "csum=off,guest_csum=off,gso=off")]
    [InlineData(2, "mq=on,vectors=6")]
    public async Task A_guest_and_a_host_exchange_packets_by_a_tap(int pairs, string properties)
    {
        using TempFolder folder = new();
        string socket = folder.Combine("net.sock");
        await using TapHost host = await TapHost.StartAsync(folder, pairs);
        await using PeerProcess backend = PeerProcess.StartProgram(
            "ip",
            host.Network.Inside(
                "dotnet", OutboardProgram.Path, "net", $"--socket-path={socket}", $"--tap={TapNetwork.TapName}",
                $"--queue-pairs={pairs}"));
        await backend.WaitForSocketAsync(socket, s_startLimit);

        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript("net.sh"),
            Processors = pairs,
            Variables = host.GuestVariables,
            DeviceArguments =
            [
                "-chardev", $"socket,id=net,path={socket}",
                "-netdev", $"vhost-user,id=net,chardev=net,queues={pairs}",
                "-device", $"virtio-net-pci,netdev=net,mac={Mac},romfile=,{properties}",
            ],
        });

        outcome.RequireSuccess();
        await backend.TerminateAsync();
        Assert.Equal(0, backend.ExitCode);
    }
}
