// ApplianceMachine.cs - a stock QEMU machine inside which our program, compiled ahead of time, serves devices of other
// machines; and the "outboard virtio-vhost-user" that stands before each of its devices.
using System.Text.RegularExpressions;
using Outboard.InteropTests.Lab;
using Outboard.InteropTests.Net;

namespace Outboard.InteropTests.Appliance;

/// <summary>What an appliance serves its tenants through.</summary>
internal enum ApplianceDevice
{
    /// <summary>QEMU's vhost-user device of any kind.</summary>
    VhostUser,

    /// <summary>The same virtio device over vfio-user; the tenant's memory lies in a file.</summary>
    VfioUser,

    /// <summary>A vhost-pci adapter, over vfio-user.</summary>
    VhostPci,
}

/// <summary>What an appliance is to be.</summary>
internal sealed record ApplianceOptions
{
    /// <summary>What each of our programs in it is started with, besides its device.</summary>
    public IReadOnlyList<string> Programs { get; init; } = [ApplianceMachine.DiskProgram];

    /// <summary>Whether it has an IOMMU; otherwise it runs VFIO without one.</summary>
    public bool HasIommu { get; init; } = true;

    /// <summary>What its devices are.</summary>
    public ApplianceDevice Device { get; init; }

    /// <summary>A file that is /test/data in it, for the servers behind a tap; null for none.</summary>
    public string? ServedFile { get; init; }

    /// <summary>Files to bring along, besides the program.</summary>
    public IReadOnlyDictionary<string, string> Files { get; init; } = new Dictionary<string, string>();
}

/// <summary>An appliance that runs, with the devices before it.</summary>
internal sealed partial class ApplianceMachine : IAsyncDisposable
{
    public const long DiskBytes = 96 << 20;

    /// <summary>Serves a disk in the appliance's memory.</summary>
    public const string DiskProgram = "block --blk-file=/dev/shm/disk.img --num-queues=2 --verbose";

    private const int DeviceType = 22;
    private const int Rings = 4;
    private static readonly TimeSpan s_limit = TimeSpan.FromMinutes(2);

    private readonly TempFolder _folder;
    private readonly List<PeerProcess> _devices;
    private readonly GuestVm _machine;

    private ApplianceMachine(TempFolder folder, List<PeerProcess> devices, GuestVm machine)
    {
        _folder = folder;
        _devices = devices;
        _machine = machine;
    }

    /// <summary>Starts it, and waits until all of its programs serve.</summary>
    public static async Task<ApplianceMachine> StartAsync(ApplianceOptions? options = null)
    {
        options ??= new ApplianceOptions();
        TempFolder folder = new();
        List<PeerProcess> devices = [];
        GuestVm? machine = null;
        try
        {
            for (int i = 0; i < options.Programs.Count; i++)
            {
                devices.Add(StartDevice(options, folder, i));
                await devices[i].WaitForSocketAsync(ApplianceSocket(folder, i), s_limit);
            }

            machine = await GuestVm.StartAsync(await MachineAsync(options, folder));
            ApplianceMachine appliance = new(folder, devices, machine);
            for (int i = 0; i < options.Programs.Count; i++)
            {
                await appliance.WaitForServingAsync(i, 0);
            }

            await appliance.WaitForAsync(ReadyPattern, 0);
            return appliance;
        }
        catch
        {
            await DisposeAsync(folder, devices, machine);
            throw;
        }
    }

    /// <summary>The file of a tenant's memory, where the device needs one.</summary>
    public string MemoryFile(int program = 0) => MemoryFile(_folder, program);

    /// <summary>Where a front-end finds the device.</summary>
    public string TenantSocket(int program = 0) => _folder.Combine($"tenant{program}.sock");

    /// <summary>A machine whose disk the appliance serves.</summary>
    public GuestOptions Tenant(int queues, int program = 0) => new()
    {
        Script = "",
        TimeLimit = TimeSpan.FromSeconds(100),
        Processors = queues,
        DeviceArguments =
        [
            "-chardev", $"socket,id=disk,path={TenantSocket(program)},reconnect-ms=500",
            "-device", $"vhost-user-blk-pci,chardev=disk,num-queues={queues}",
        ],
    };

    /// <summary>Ends a program as a crash would.</summary>
    public Task KillBackendAsync(int program = 0) => EndBackendAsync("KILL", program, 137);

    /// <summary>Asks a program to end.</summary>
    public Task StopBackendAsync(int program = 0) => EndBackendAsync("STOP", program, 0);

    /// <summary>Starts a program again.</summary>
    public async Task StartBackendAsync(int program = 0)
    {
        int position = _machine.Serial.Length;
        await _machine.SendAsync($"START {program}\n");
        await WaitForServingAsync(program, position);
    }

    /// <summary>Fails with everything that was said, unless the machine succeeded.</summary>
    public void Require(GuestOutcome outcome)
    {
        try
        {
            outcome.RequireSuccess();
        }
        catch (LabException failure)
        {
            throw Explain(failure);
        }
    }

    /// <summary>A failure, with what the appliance and the devices said.</summary>
    public LabException Explain(Exception failure) => new(
        $"{failure.Message}\n--- appliance ---\n{_machine.Serial.Text}\n"
        + string.Join('\n', _devices.Select(device => device.Describe())), failure);

    /// <summary>Ends the programs, which have to end well, and the machine.</summary>
    public async Task EndAsync()
    {
        await _machine.SendAsync("END\n");
        Require(await _machine.FinishAsync());
    }

    public async ValueTask DisposeAsync() => await DisposeAsync(_folder, _devices, _machine);

    [GeneratedRegex(@"^APPLIANCE-READY$", RegexOptions.Multiline)]
    private static partial Regex ReadyPattern { get; }

    private static string ApplianceSocket(TempFolder folder, int program) =>
        folder.Combine($"appliance{program}.sock");

    private static string MemoryFile(TempFolder folder, int program) => folder.Combine($"memory{program}");

    private static PeerProcess StartDevice(ApplianceOptions options, TempFolder folder, int program)
    {
        string socket = ApplianceSocket(folder, program);
        string[] kind = options.Device switch
        {
            ApplianceDevice.VhostPci => ["--personality=vhost-pci", $"--vfio-user-socket={socket}"],
            ApplianceDevice.VfioUser =>
                [$"--vfio-user-socket={socket}", $"--memory-file={MemoryFile(folder, program)}"],
            _ => [$"--appliance-socket={socket}", $"--device-type={DeviceType}"],
        };
        return PeerProcess.StartProgram(
            "dotnet",
            [
                OutboardProgram.Path, "virtio-vhost-user",
                $"--vhost-user-socket={folder.Combine($"tenant{program}.sock")}", .. kind, $"--rings={Rings}",
                "--window=1G", "--verbose",
            ]);
    }

    /// <summary>What QEMU is told of the device that a program uses.</summary>
    private static string[] DeviceArguments(ApplianceOptions options, TempFolder folder, int program)
    {
        string socket = ApplianceSocket(folder, program);
        return options.Device is not ApplianceDevice.VhostUser
            ?
            [
                "-device",
                $$$"""
                {"driver":"vfio-user-pci","addr":"0x1{{{program}}}","socket":{"type":"unix","path":"{{{socket}}}"}}
                """,
            ]
            :
            [
                "-chardev", $"socket,id=vvu{program},path={socket}",
                "-device",
                $"vhost-user-test-device-pci,chardev=vvu{program},virtio-id={DeviceType},addr=0x1{program},"
                    + $"num_vqs={3 + (2 * Rings)},config_size=24",
            ];
    }

    private static async Task<GuestOptions> MachineAsync(ApplianceOptions options, TempFolder folder)
    {
        Dictionary<string, string> variables = new()
        {
            ["LAST"] = $"{options.Programs.Count - 1}",
            ["IOMMU"] = options.HasIommu ? "on" : "off",
            ["DISK_BYTES"] = $"{DiskBytes}",
            ["HOST"] = options.ServedFile is null ? "" : TapNetwork.HostAddress,
        };
        List<string> devices = [];
        if (options.HasIommu)
        {
            devices.AddRange(["-device", "intel-iommu,intremap=on"]);
        }

        for (int i = 0; i < options.Programs.Count; i++)
        {
            variables[$"PROGRAM_{i}"] = options.Programs[i];
            devices.AddRange(DeviceArguments(options, folder, i));
        }

        Dictionary<string, string> files = new(await GuestProgram.FilesAsync());
        foreach ((string inside, string outside) in options.Files)
        {
            files[inside] = outside;
        }

        if (options.ServedFile is { } served)
        {
            files["/test/data"] = served;
        }

        if (!options.HasIommu)
        {
            (string inside, string outside) = await GuestKernel.VfioWithoutIommuAsync();
            files[inside] = outside;
        }

        return new GuestOptions
        {
            Script = GuestOptions.ReadScript("appliance.sh"),
            Variables = variables,
            Files = files,
            Machine = options.HasIommu ? "q35,kernel-irqchip=split" : "q35",
            KernelArguments = options.HasIommu ? "intel_iommu=on" : "",
            DeviceArguments = devices,
        };
    }

    private static async ValueTask DisposeAsync(TempFolder folder, List<PeerProcess> devices, GuestVm? machine)
    {
        if (machine is not null)
        {
            await machine.DisposeAsync();
        }

        foreach (PeerProcess device in devices)
        {
            await device.DisposeAsync();
        }

        folder.Dispose();
    }

    private async Task EndBackendAsync(string command, int program, int status)
    {
        int position = _machine.Serial.Length;
        await _machine.SendAsync($"{command} {program}\n");
        await WaitForAsync(new Regex($"^APPLIANCE-ENDED {program} {status}$", RegexOptions.Multiline), position);
    }

    /// <summary>The back-end has its device, or says why not.</summary>
    private async Task WaitForServingAsync(int program, int position)
    {
        Regex pattern = new(
            $@"^(outboard.*: serving .*0000:00:1{program}\.0|(?<ended>APPLIANCE-ENDED {program} ).*)$",
            RegexOptions.Multiline);
        Match match = await WaitForAsync(pattern, position);
        if (match.Groups["ended"].Success)
        {
            throw Explain(new LabException("the back-end did not start"));
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
            throw Explain(failure);
        }
    }
}
