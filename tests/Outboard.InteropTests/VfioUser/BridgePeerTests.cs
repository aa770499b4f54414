// BridgePeerTests.cs - foreign vhost-user back-ends that are no disks, behind "outboard bridge": a stock guest mounts a
// folder that virtiofsd shares, and gets its address from passt, both as PCI devices over vfio-user.
using System.Security.Cryptography;
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.VfioUser;

public sealed class BridgePeerTests
{
    private const int FileBytes = 4 << 20;
    private static readonly TimeSpan s_startLimit = TimeSpan.FromSeconds(60);

    /// <summary>Files go both ways, larger than the queue; names, links and folders, too.</summary>
    [Fact]
    public async Task A_guest_mounts_a_folder_of_virtiofsd()
    {
        await Peers.RequireAsync("virtiofsd");
        using TempFolder folder = new();
        string shared = Directory.CreateDirectory(folder.Combine("shared")).FullName;
        byte[] data = RandomNumberGenerator.GetBytes(FileBytes);
        CancellationToken cancellation = TestContext.Current.CancellationToken;
        await File.WriteAllBytesAsync(Path.Combine(shared, "from-host"), data, cancellation);
        string back = folder.Combine("back.sock");
        await using PeerProcess daemon = await PeerProcess.StartPeerAsync(
            "virtiofsd", $"--socket-path={back}", $"--shared-dir={shared}", "--sandbox=none", "--cache=auto");
        await daemon.WaitForSocketAsync(back, s_startLimit);
        await RunAsync(
            folder, back, ["--type=fs", "--tag=home"], "bridge-fs.sh",
            new() { ["SUM"] = Convert.ToHexStringLower(SHA256.HashData(data)) });

        byte[] written = await File.ReadAllBytesAsync(Path.Combine(shared, "folder", "from-guest"), cancellation);
        Assert.True(data.AsSpan().SequenceEqual(written));
        Assert.Equal("from-guest", new FileInfo(Path.Combine(shared, "folder", "link")).LinkTarget);
        Assert.False(File.Exists(Path.Combine(shared, "removed")));
    }

    /// <summary>passt has no configuration space, one pair of queues, and offers MRG_RXBUF only.</summary>
    [Fact]
    public async Task A_guest_gets_its_address_from_passt()
    {
        await Peers.RequireAsync("passt");
        using TempFolder folder = new();
        string back = folder.Combine("back.sock");
        await using PeerProcess passt = await PeerProcess.StartPeerAsync(
            "passt", "--foreground", "--vhost-user", "--runas", "0", "--socket-path", back,
            "--address", "10.11.0.2", "--netmask", "24", "--gateway", "10.11.0.1", "--ipv4-only");
        await passt.WaitForSocketAsync(back, s_startLimit);
        await RunAsync(
            folder, back, ["--type=net", "--mac=52:54:00:77:00:09"], "bridge-net.sh",
            new() { ["ADDRESS"] = "10.11.0.2" });
    }

    private static async Task RunAsync(
        TempFolder folder, string back, string[] options, string script, Dictionary<string, string> variables)
    {
        string front = folder.Combine("front.sock");
        await using PeerProcess bridge = PeerProcess.StartProgram(
            "dotnet",
            [OutboardProgram.Path, "bridge", $"--vfio-user-socket={front}", $"--vhost-user-socket={back}", .. options]);
        await bridge.WaitForSocketAsync(front, s_startLimit);
        GuestOutcome outcome = await GuestVm.RunAsync(new GuestOptions
        {
            Script = GuestOptions.ReadScript(script),
            Variables = variables,
            DeviceArguments = VfioUserGuest.Device(front),
        });

        outcome.RequireSuccess();
        await bridge.TerminateAsync();
        Assert.Equal(0, bridge.ExitCode);
        Assert.DoesNotContain("has to be reset", bridge.Errors.Text, StringComparison.Ordinal);
        Assert.DoesNotContain("left out", bridge.Errors.Text, StringComparison.Ordinal);
    }
}
