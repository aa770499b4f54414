// ApplianceTests.cs - two stock QEMU machines: the tenant's vhost-user disk is served by our program, which runs inside
// the other one, the appliance. Between the two stands "outboard virtio-vhost-user".
using System.Text.Json.Nodes;
using System.Text.RegularExpressions;
using Outboard.InteropTests.Lab;
using Xunit;

namespace Outboard.InteropTests.Appliance;

public sealed partial class ApplianceTests
{
    private const long DiskBytes = 96 << 20;
    private const int SectorBytes = 512;

    [Fact]
    public async Task A_tenant_uses_a_disk_that_another_machine_serves()
    {
        await using Appliance appliance = await Appliance.StartAsync();
        GuestOutcome outcome = await GuestVm.RunAsync(appliance.Tenant(2) with
        {
            Script = GuestOptions.ReadScript("block.sh"),
            Variables = new Dictionary<string, string>
            {
                ["QUEUES"] = "2",
                ["SECTORS"] = $"{DiskBytes / SectorBytes}",
            },
        });
        appliance.Require(outcome);
        await appliance.EndAsync();
    }

    [Fact]
    public async Task A_tenant_outlives_crashes_of_the_back_end_inside_the_appliance()
    {
        await using Appliance appliance = await Appliance.StartAsync();
        await using GuestVm tenant = await GuestVm.StartAsync(appliance.Tenant(1) with
        {
            Script = GuestOptions.ReadScript("block-restart.sh"),
            Variables = new Dictionary<string, string> { ["PASSES"] = "5" },
        });
        int position = 0;
        for (int crash = 0; crash < 3; crash++)
        {
            await tenant.WaitForAsync(ProgressPattern, position);
            position = tenant.Serial.Length;
            await appliance.KillBackendAsync();
            await appliance.StartBackendAsync();
        }

        appliance.Require(await tenant.FinishAsync());
        await appliance.EndAsync();
    }

    [Fact]
    public async Task A_tenant_reboots_and_finds_its_files()
    {
        await using Appliance appliance = await Appliance.StartAsync();
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
        await using Appliance appliance = await Appliance.StartAsync();
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

    [GeneratedRegex(@"^APPLIANCE-KILLED$", RegexOptions.Multiline)]
    private static partial Regex KilledPattern { get; }

    [GeneratedRegex(@"^outboard.*: (?<serving>serving .*|.*)$", RegexOptions.Multiline)]
    private static partial Regex ServingPattern { get; }

    /// <summary>The device between the machines, and the machine that serves.</summary>
    private sealed class Appliance : IAsyncDisposable
    {
        private const int DeviceType = 22;
        private const int Rings = 4;
        private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(2);

        private readonly TempFolder _folder;
        private readonly PeerProcess _device;
        private readonly GuestVm _machine;

        private Appliance(TempFolder folder, PeerProcess device, GuestVm machine)
        {
            _folder = folder;
            _device = device;
            _machine = machine;
        }

        public static async Task<Appliance> StartAsync()
        {
            TempFolder folder = new();
            string socket = folder.Combine("appliance.sock");
            PeerProcess device = PeerProcess.StartProgram(
                "dotnet",
                [
                    OutboardProgram.Path, "virtio-vhost-user", $"--vhost-user-socket={folder.Combine("tenant.sock")}",
                    $"--appliance-socket={socket}", $"--rings={Rings}", "--window=1G",
                    $"--device-type={DeviceType}", "--verbose",
                ]);
            try
            {
                await device.WaitForSocketAsync(socket, s_limit);
                GuestVm machine = await GuestVm.StartAsync(new GuestOptions
                {
                    Script = GuestOptions.ReadScript("appliance.sh"),
                    Variables = new Dictionary<string, string>
                    {
                        ["TYPE"] = $"{DeviceType}",
                        ["DISK_BYTES"] = $"{DiskBytes}",
                        ["OPTIONS"] = "--verbose",
                    },
                    Files = await GuestProgram.FilesAsync(),
                    Machine = "q35,kernel-irqchip=split",
                    KernelArguments = "intel_iommu=on",
                    DeviceArguments =
                    [
                        "-device", "intel-iommu,intremap=on",
                        "-chardev", $"socket,id=vvu,path={socket}",
                        "-device",
                        $"vhost-user-test-device-pci,chardev=vvu,virtio-id={DeviceType},"
                            + $"num_vqs={3 + (2 * Rings)},config_size=24",
                    ],
                });
                Appliance appliance = new(folder, device, machine);
                await appliance.WaitForServingAsync(0);
                return appliance;
            }
            catch
            {
                await device.DisposeAsync();
                folder.Dispose();
                throw;
            }
        }

        /// <summary>A machine whose disk the appliance serves.</summary>
        public GuestOptions Tenant(int queues) => new()
        {
            Script = "",
            TimeLimit = TimeSpan.FromSeconds(100),
            Processors = queues,
            DeviceArguments =
            [
                "-chardev", $"socket,id=disk,path={_folder.Combine("tenant.sock")},reconnect-ms=500",
                "-device", $"vhost-user-blk-pci,chardev=disk,num-queues={queues}",
            ],
        };

        public async Task KillBackendAsync()
        {
            int position = _machine.Serial.Length;
            await _machine.SendAsync("KILL\n");
            await WaitForAsync(KilledPattern, position);
        }

        public async Task StartBackendAsync()
        {
            int position = _machine.Serial.Length;
            await _machine.SendAsync("START\n");
            await WaitForServingAsync(position);
        }

        /// <summary>Fails with everything that was said, unless the tenant succeeded.</summary>
        public void Require(GuestOutcome tenant)
        {
            try
            {
                tenant.RequireSuccess();
            }
            catch (LabException failure)
            {
                throw new LabException(
                    $"{failure.Message}\n--- appliance ---\n{_machine.Serial.Text}\n{_device.Describe()}", failure);
            }
        }

        public async Task EndAsync()
        {
            await _machine.SendAsync("END\n");
            Require(await _machine.FinishAsync());
        }

        public async ValueTask DisposeAsync()
        {
            await _machine.DisposeAsync();
            await _device.DisposeAsync();
            _folder.Dispose();
        }

        /// <summary>The back-end has its device, or says why not.</summary>
        private async Task WaitForServingAsync(int position)
        {
            Match match = await WaitForAsync(ServingPattern, position);
            if (!match.Groups["serving"].Success)
            {
                throw new LabException($"the back-end did not start:\n{_machine.Serial.Text}\n{_device.Describe()}");
            }
        }

        private async Task<Match> WaitForAsync(Regex pattern, int position)
        {
            try
            {
                return await _machine.WaitForAsync(pattern, position);
            }
            catch (LabException failure)
            {
                throw new LabException(
                    $"{failure.Message}\n{_machine.Serial.Text}\n{_device.Describe()}", failure);
            }
        }
    }
}
