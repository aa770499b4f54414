// ApplianceTests.cs - two stock QEMU machines: the tenant's vhost-user disk, and its network, are served by our
// program inside the other one, the appliance. Between the two stands "outboard virtio-vhost-user".
using System.Security.Cryptography;
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Outboard.InteropTests.Lab;
using Outboard.InteropTests.Net;
using Xunit;

namespace Outboard.InteropTests.Appliance;

public sealed partial class ApplianceTests
{
    private const string Mac = "52:54:00:77:00:02";
    private const int FileBytes = 3 << 20;
    private const int SectorBytes = 512;

    [Fact]
    public async Task A_tenant_uses_a_disk_and_a_network_that_another_machine_serves()
    {
        using TempFolder folder = new();
        string file = folder.Combine("data");
        byte[] data = RandomNumberGenerator.GetBytes(FileBytes);
        await File.WriteAllBytesAsync(file, data, TestContext.Current.CancellationToken);
        await using ApplianceMachine appliance = await ApplianceMachine.StartAsync(new ApplianceOptions
        {
            Programs = [ApplianceMachine.DiskProgram, $"net --tap={TapNetwork.TapName} --queue-pairs=2 --verbose"],
            ServedFile = file,
        });
        GuestOptions tenant = appliance.Tenant(2);
        GuestOutcome outcome = await GuestVm.RunAsync(tenant with
        {
            Script = $"{GuestOptions.ReadScript("block.sh")}\n{GuestOptions.ReadScript("net.sh")}",
            Variables = new Dictionary<string, string>
            {
                ["QUEUES"] = "2",
                ["SECTORS"] = $"{ApplianceMachine.DiskBytes / SectorBytes}",
                ["HOST"] = TapNetwork.HostAddress,
                ["GUEST"] = TapNetwork.GuestAddress,
                ["MTU"] = "1500",
                ["SUM"] = Convert.ToHexStringLower(SHA256.HashData(data)),
            },
            DeviceArguments =
            [
                .. tenant.DeviceArguments,
                "-chardev", $"socket,id=net,path={appliance.TenantSocket(1)}",
                "-netdev", "vhost-user,id=net,chardev=net,queues=2",
                "-device", $"virtio-net-pci,netdev=net,mac={Mac},romfile=,mq=on,vectors=6",
            ],
        });
        appliance.Require(outcome);
        await appliance.EndAsync();
    }

    [Fact]
    public async Task A_tenant_outlives_crashes_and_ends_of_the_back_end_inside_an_appliance_without_an_IOMMU()
    {
        await using ApplianceMachine appliance = await ApplianceMachine.StartAsync(
            new ApplianceOptions { HasIommu = false });
        await using GuestVm tenant = await GuestVm.StartAsync(appliance.Tenant(1) with
        {
            Script = GuestOptions.ReadScript("block-restart.sh"),
            Variables = new Dictionary<string, string> { ["PASSES"] = "5" },
        });
        int position = 0;
        for (int end = 0; end < 4; end++)
        {
            await tenant.WaitForAsync(ProgressPattern, position);
            position = tenant.Serial.Length;
            await (end % 2 == 0 ? appliance.KillBackendAsync() : appliance.StopBackendAsync());
            await appliance.StartBackendAsync();
        }

        appliance.Require(await tenant.FinishAsync());
        await appliance.EndAsync();
    }

    /// <summary>Each ring has an interrupt of its own, and the machine maps the tenant's memory from the beginning.
    /// </summary>
    [Fact]
    public async Task A_tenant_with_memory_in_a_file_is_served_over_vfio_user_and_outlives_a_crash()
    {
        await using ApplianceMachine appliance = await ApplianceMachine.StartAsync(
            new ApplianceOptions { HasIommu = false, Device = ApplianceDevice.VfioUser });
        await using GuestVm tenant = await GuestVm.StartAsync(appliance.Tenant(1) with
        {
            Script = GuestOptions.ReadScript("block-restart.sh"),
            Variables = new Dictionary<string, string> { ["PASSES"] = "2" },
            MemoryFile = appliance.MemoryFile(),
        });
        Match progress = await tenant.WaitForAsync(ProgressPattern);
        await appliance.KillBackendAsync();
        await appliance.StartBackendAsync();
        await tenant.WaitForAsync(ProgressPattern, progress.Index + progress.Length);
        appliance.Require(await tenant.FinishAsync());
        await appliance.EndAsync();
    }

    [Fact]
    public async Task A_tenant_reboots_and_finds_its_files()
    {
        await using ApplianceMachine appliance = await ApplianceMachine.StartAsync();
        GuestOutcome outcome = await GuestVm.RunAsync(appliance.Tenant(1) with
        {
            Script = GuestOptions.ReadScript("block-reboot.sh"),
            AllowsReboot = true,
        });
        appliance.Require(outcome);
        Assert.Contains("SECOND-BOOT", outcome.Serial, StringComparison.Ordinal);
        await appliance.EndAsync();
    }

    [Fact]
    public async Task A_tenant_uses_its_disk_through_memory_that_was_plugged_in()
    {
        await using ApplianceMachine appliance = await ApplianceMachine.StartAsync();
        await using GuestVm tenant = await GuestVm.StartAsync(appliance.Tenant(1) with
        {
            Script = GuestOptions.ReadScript("memory-hotplug.sh"),
            MemorySlots = ",slots=4,maxmem=2G",
            OffersQmp = true,
        });
        await tenant.WaitForLineAsync("READY");
        await tenant.QmpAsync("object-add", new JsonObject
        {
            ["qom-type"] = "memory-backend-memfd", ["id"] = "more", ["size"] = 256 << 20, ["share"] = true,
        });
        await tenant.QmpAsync("device_add", new JsonObject
        {
            ["driver"] = "pc-dimm", ["id"] = "dimm", ["memdev"] = "more",
        });
        await tenant.WaitForLineAsync("UNPLUG");
        await tenant.QmpAsync("device_del", new JsonObject { ["id"] = "dimm" });
        GuestOutcome outcome = await tenant.FinishAsync();
        appliance.Require(outcome);
        Assert.DoesNotContain("BROKEN", outcome.Serial, StringComparison.Ordinal);
        await appliance.EndAsync();
    }

    [GeneratedRegex(@"^PROGRESS \d+ \d+$", RegexOptions.Multiline)]
    private static partial Regex ProgressPattern { get; }
}
