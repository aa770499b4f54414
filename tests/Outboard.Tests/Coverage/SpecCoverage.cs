// docs/SPEC-COVERAGE.md as a program: rows come from the tables that the product itself uses, code and tests are looked
// up in the sources, and only what foreign programs do is written down here.
using System.Net.NetworkInformation;
using System.Text;
using System.Text.RegularExpressions;
using Outboard.Devices.Block;
using Outboard.Devices.Block.Backends;
using Outboard.Devices.Net;
using Outboard.Devices.Net.Backends;
using Outboard.Virtio.Spec;
using Outboard.VhostUser.Frontend;
using Outboard.VhostUser.Protocol;

namespace Outboard.Tests.Coverage;

/// <summary>Renders the page.</summary>
internal sealed partial class SpecCoverage(string root)
{
    internal const string PagePath = "docs/SPEC-COVERAGE.md";

    private const string None = "-";
    private const string Qemu = "QEMU";
    private const string Libblkio = "libblkio";
    private const string Dpdk = "DPDK";
    private const string StorageDaemon = "qemu-storage-daemon";
    private const string OtherBackends = "other back-ends";
    private const string RequestTests = "tests/Outboard.Tests/VhostUser/Requests";
    private const string Backend = "src/Outboard.VhostUser/Backend";
    private const string Frontend = "src/Outboard.VhostUser/Frontend";
    private const string BlockTests = "tests/Outboard.Tests/Devices/Block";

    /// <summary>Requests seen on the wire from QEMU, given the protocol features that the back-end offers.</summary>
    private static readonly FrontendRequest[] s_qemu =
    [
        FrontendRequest.GetFeatures, FrontendRequest.SetFeatures, FrontendRequest.SetOwner, FrontendRequest.SetVringNum,
        FrontendRequest.SetVringAddr, FrontendRequest.SetVringBase, FrontendRequest.GetVringBase,
        FrontendRequest.SetVringKick, FrontendRequest.SetVringCall, FrontendRequest.SetVringErr,
        FrontendRequest.GetProtocolFeatures, FrontendRequest.SetProtocolFeatures, FrontendRequest.GetQueueNum,
        FrontendRequest.SetVringEnable, FrontendRequest.SetBackendReqFd, FrontendRequest.GetConfig,
        FrontendRequest.ResetDevice, FrontendRequest.GetMaxMemSlots, FrontendRequest.AddMemReg,
        FrontendRequest.SetStatus, FrontendRequest.GetStatus, FrontendRequest.GetInflightFd,
        FrontendRequest.SetInflightFd, FrontendRequest.SetLogBase, FrontendRequest.SendRarp,
        FrontendRequest.PostcopyAdvise, FrontendRequest.PostcopyListen, FrontendRequest.PostcopyEnd,
        FrontendRequest.IotlbMsg, FrontendRequest.GetShmemConfig, FrontendRequest.SetDeviceStateFd,
        FrontendRequest.CheckDeviceState,
    ];

    /// <summary>Requests seen on the wire from libblkio.</summary>
    private static readonly FrontendRequest[] s_libblkio =
    [
        FrontendRequest.GetFeatures, FrontendRequest.SetFeatures, FrontendRequest.SetOwner, FrontendRequest.SetVringNum,
        FrontendRequest.SetVringAddr, FrontendRequest.SetVringBase, FrontendRequest.SetVringKick,
        FrontendRequest.SetVringCall, FrontendRequest.GetProtocolFeatures, FrontendRequest.SetProtocolFeatures,
        FrontendRequest.GetQueueNum, FrontendRequest.SetVringEnable, FrontendRequest.GetConfig,
        FrontendRequest.GetMaxMemSlots, FrontendRequest.AddMemReg,
    ];

    /// <summary>Requests that the load generator sends to qemu-storage-daemon, whatever that one offers.</summary>
    private static readonly FrontendRequest[] s_storageDaemon =
    [
        FrontendRequest.GetFeatures, FrontendRequest.SetFeatures, FrontendRequest.SetOwner, FrontendRequest.SetVringNum,
        FrontendRequest.SetVringAddr, FrontendRequest.SetVringBase, FrontendRequest.GetVringBase,
        FrontendRequest.SetVringKick, FrontendRequest.SetVringCall, FrontendRequest.GetProtocolFeatures,
        FrontendRequest.SetProtocolFeatures, FrontendRequest.SetVringEnable, FrontendRequest.GetConfig,
    ];

    /// <summary>
    /// Requests that our front-end sends to virtiofsd, passt, vhost-device-vsock or DPDK's net_vhost beyond those
    /// above.
    /// </summary>
    private static readonly FrontendRequest[] s_otherBackends =
    [
        FrontendRequest.SetMemTable, FrontendRequest.SetStatus, FrontendRequest.AddMemReg,
        FrontendRequest.GetMaxMemSlots, FrontendRequest.GetQueueNum, FrontendRequest.SetBackendReqFd,
        FrontendRequest.GpuSetSocket,
    ];

    /// <summary>Requests seen on the wire from DPDK's net_virtio_user.</summary>
    private static readonly FrontendRequest[] s_dpdk =
    [
        FrontendRequest.GetFeatures, FrontendRequest.SetFeatures, FrontendRequest.SetOwner, FrontendRequest.SetVringNum,
        FrontendRequest.SetVringAddr, FrontendRequest.SetVringBase, FrontendRequest.GetVringBase,
        FrontendRequest.SetVringKick, FrontendRequest.SetVringCall, FrontendRequest.GetProtocolFeatures,
        FrontendRequest.SetProtocolFeatures, FrontendRequest.SetVringEnable, FrontendRequest.SetMemTable,
        FrontendRequest.SetStatus, FrontendRequest.GetStatus,
    ];

    private static readonly ProtocolFeatures s_qemuFeatures =
        ProtocolFeatures.MultiQueue | ProtocolFeatures.ReplyAck | ProtocolFeatures.BackendReq | ProtocolFeatures.Config
        | ProtocolFeatures.GetVringBaseInflight
        | ProtocolFeatures.ResetDevice | ProtocolFeatures.ConfigureMemSlots | ProtocolFeatures.Status
        | ProtocolFeatures.InflightShmFd | ProtocolFeatures.LogShmFd
        | ProtocolFeatures.Rarp | ProtocolFeatures.PageFault | ProtocolFeatures.GpaAddresses
        | ProtocolFeatures.BackendSendFd | ProtocolFeatures.HostNotifier | ProtocolFeatures.Shmem
        | ProtocolFeatures.DeviceState;

    private static readonly ProtocolFeatures s_libblkioFeatures =
        ProtocolFeatures.MultiQueue | ProtocolFeatures.ReplyAck | ProtocolFeatures.Config
        | ProtocolFeatures.ConfigureMemSlots;

    private static readonly Dictionary<string, Place> s_ring = new()
    {
        ["LogAll"] = new(
            $"{Backend}/BackendSession.Log.cs", "UpdateLogs",
            "tests/Outboard.Tests/VhostUser/LoggingTests.cs", Qemu),
        ["IndirectDescriptors"] = new(
            "src/Outboard.Virtio/Queue/SplitVirtqueue.cs", "FollowIndirect",
            "tests/Outboard.Tests/Virtio/SplitVirtqueueFaultTests.cs", Qemu),
        ["EventIndex"] = new(
            "src/Outboard.Virtio/Queue/SplitVirtqueue.cs", "ShouldCall",
            "tests/Outboard.Tests/Virtio/NotificationTests.cs", Qemu),
        ["ProtocolFeatures"] = new(
            $"{Backend}/BackendSession.Features.cs", "GetProtocolFeatures",
            $"{RequestTests}/GetProtocolFeaturesTests.cs", $"{Qemu}, {Libblkio}"),
        ["Version1"] = new(
            "src/Outboard.Virtio/Queue/Virtqueue.cs", "Create",
            "tests/Outboard.Tests/Virtio/VirtqueuePropertyTests.cs", $"{Qemu}, {Libblkio}"),
        ["AccessPlatform"] = new(
            "src/Outboard.Virtio/Queue/Virtqueue.Translation.cs", "OnTranslated",
            "tests/Outboard.Tests/VhostUser/IommuTests.cs", Qemu),
        ["RingPacked"] = new(
            "src/Outboard.Virtio/Queue/PackedVirtqueue.cs", "TryTake",
            "tests/Outboard.Tests/Virtio/VirtqueuePropertyTests.cs", $"{Qemu}, {Dpdk}"),
        ["InOrder"] = new(
            "src/Outboard.Virtio/Queue/Virtqueue.InOrder.cs", "ReturnInOrder",
            "tests/Outboard.Tests/Virtio/InOrderTests.cs", Dpdk),
        ["NotificationData"] = new(
            "src/Outboard.Virtio/Pci/VirtioPciFunction.cs", "Ring",
            "tests/Outboard.Tests/VfioUser/Virtio/VirtioPciTests.cs", None),
        ["RingReset"] = new(
            "src/Outboard.Virtio/Pci/VirtioPciFunction.Queues.cs", "ResetQueue",
            "tests/Outboard.Tests/VfioUser/Virtio/VirtioPciTests.cs", None),
    };

    private static readonly Dictionary<string, Place> s_block = new()
    {
        ["SizeMax"] = Block("BlockDevice.cs", "DescribeDisk", "ConfigTests.cs", Qemu),
        ["SegMax"] = Block("BlockDevice.cs", "DescribeDisk", "ConfigTests.cs", Qemu),
        ["ReadOnly"] = Block("BlockQueue.cs", "Begin", "MalformedRequestTests.cs", $"{Qemu}, {Libblkio}"),
        ["BlockSize"] = Block("BlockDevice.cs", "IsInRange", "MalformedRequestTests.cs", Qemu),
        ["Flush"] = Block("BlockQueue.cs", "Begin", "ConfigTests.cs", $"{Qemu}, {Libblkio}"),
        ["Topology"] = Block("BlockDevice.cs", "DescribeDisk", "ConfigTests.cs", Qemu),
        ["ConfigWriteCache"] = Block("BlockDevice.cs", "UpdateWriteBack", "ConfigTests.cs", Qemu),
        ["MultiQueue"] = Block("BlockDevice.cs", "DescribeDisk", "BacklogTests.cs", $"{Qemu}, {Libblkio}"),
        ["Discard"] = Block("BlockQueue.cs", "Clear", "RangeTests.cs", Libblkio),
        ["WriteZeroes"] = Block("BlockQueue.cs", "Clear", "RangeTests.cs", Libblkio),
    };

    private static readonly Dictionary<string, Place> s_net = new()
    {
        ["Checksum"] = Net("Backends/NetOffload.cs", "IsSendable", "PacketTests.cs", None),
        ["HostTso4"] = Net("Backends/NetOffload.cs", "IsSendable", "PacketTests.cs", None),
        ["HostTso6"] = Net("Backends/NetOffload.cs", "IsSendable", "PacketTests.cs", None),
        ["HostEcn"] = Net("Backends/NetOffload.cs", "IsSendable", "PacketTests.cs", None),
        ["HostUfo"] = Net("Backends/NetOffload.cs", "IsSendable", "PacketTests.cs", None),
        ["HostUso"] = Net("Backends/NetOffload.cs", "IsSendable", "PacketTests.cs", None),
        ["GuestChecksum"] = Net("Backends/NetOffload.cs", "Restrict", "PacketTests.cs", None),
        ["GuestTso4"] = Net("Backends/NetOffload.cs", "Restrict", "PacketTests.cs", None),
        ["GuestTso6"] = Net("Backends/NetOffload.cs", "Restrict", "PacketTests.cs", None),
        ["GuestEcn"] = Net("Backends/NetOffload.cs", "Restrict", "PacketTests.cs", None),
        ["GuestUfo"] = Net("Backends/NetOffload.cs", "Restrict", "PacketTests.cs", None),
        ["GuestUso4"] = Net("Backends/NetOffload.cs", "Restrict", "PacketTests.cs", None),
        ["GuestUso6"] = Net("Backends/NetOffload.cs", "Restrict", "PacketTests.cs", None),
        ["MergeableBuffers"] = Net("NetReceiveQueue.cs", "Deliver", "PacketTests.cs", $"{Qemu}, {Dpdk}"),
        ["Status"] = Net("NetDevice.cs", "SetLink", "NetDeviceTests.cs", None),
        ["Mac"] = Net("NetDevice.cs", "SetMac", "NetDeviceTests.cs", Qemu),
        ["Mtu"] = Net("NetDevice.Link.cs", "TrySetMtu", "LinkTests.cs", Qemu),
        ["MultiQueue"] = Net("NetDevice.cs", "TrySetActivePairs", "NetDeviceTests.cs", Qemu),
        ["ControlQueue"] = Net("NetDevice.cs", "TryCarryOut", "NetDeviceTests.cs", Qemu),
        ["ControlReceiveMode"] = Net("NetDevice.cs", "TryCarryOut", "NetDeviceTests.cs", None),
        ["ControlMacAddress"] = Net("NetDevice.cs", "TryCarryOut", "NetDeviceTests.cs", None),
        ["GuestAnnounce"] = Net("NetDevice.cs", "RequestAnnounce", "NetDeviceTests.cs", None),
    };

    private readonly List<string> _problems = [];

    /// <summary>Code or tests that the page names and that are not there.</summary>
    internal IReadOnlyList<string> Problems => _problems;

    internal string Render()
    {
        StringBuilder page = new();
        page.Append(Introduction);
        AppendRequests(page);
        AppendProtocolFeatures(page);
        AppendCommands(page);
        AppendFeatures(page, "Ring and transport features", "VirtioFeatures.cs", s_ring, OfferedRingFeatures);
        AppendFeatures(page, "Block device features", "BlockSpec.cs", s_block, OfferedBlockFeatures());
        AppendFeatures(page, "Network device features", "NetSpec.cs", s_net, OfferedNetFeatures());
        return page.ToString();
    }

    private const string Introduction = """
        # Coverage of the specifications

        Generated from the tables of the product by `SpecCoverageTests`, which also checks that every function and test
        named here exists (`OUTBOARD_WRITE_DOCS=1` writes the page anew).

        * **Built** is carried out. **Not built** is not offered. Features whose code is in `Pci/` are offered to PCI
          drivers, over vfio-user, only. IN_ORDER is offered on request (`--in-order`).
        * **Not needed**: ORDER_PLATFORM asks drivers for the barriers that a device on a bus needs. These devices run
          on the processors of the driver's machine and touch only its memory; a driver's usual barriers suffice.
        * *Used by* names foreign programs of the interoperability tests: QEMU 11.1 with a Linux guest, libblkio
          (qemu-io, qemu-img) and DPDK (testpmd's net_virtio_user) against our back-end; qemu-storage-daemon, virtiofsd,
          passt, vhost-device-vsock, vhost-user-gpu and DPDK's net_vhost against our front-end, "other back-ends" being
          all but the first of these. A dash means that none of them uses it in our runs, though one might elsewhere.
          Given memory slots, for example, QEMU and libblkio never send SET_MEM_TABLE.

        """;

    private const ulong OfferedRingFeatures =
        VirtioFeatures.OfferedByRings | VirtioFeatures.OfferedOnRequest | VirtioFeatures.ProtocolFeatures
        | VirtioFeatures.LogAll | VirtioFeatures.AccessPlatform | VirtioFeatures.NotificationData
        | VirtioFeatures.RingReset;

    private static Place Block(string file, string function, string test, string foreign) =>
        new($"src/Outboard.Devices/Block/{file}", function, $"{BlockTests}/{test}", foreign);

    private static Place Net(string file, string function, string test, string foreign) =>
        new($"src/Outboard.Devices/Net/{file}", function, $"tests/Outboard.Tests/Devices/Net/{test}", foreign);

    private static ulong OfferedNetFeatures()
    {
        using LoopbackBackend backend = new(2);
        NetDeviceOptions options = new()
        {
            Mac = PhysicalAddress.Parse("52-54-00-12-34-56"),
            Mtu = 1500,
            PairCount = 2,
            HasControlQueue = true,
        };
        return new NetDevice(backend, options).DeviceFeatures;
    }

    private static ulong OfferedBlockFeatures()
    {
        using NullDisk disk = new(1 << 20);
        BlockDevice writable = new(disk, new BlockDeviceOptions { QueueCount = 2 });
        BlockDevice readOnly = new(disk, new BlockDeviceOptions { ReadOnly = true });
        return writable.DeviceFeatures | readOnly.DeviceFeatures;
    }

    private void AppendRequests(StringBuilder page)
    {
        page.Append("\n## Requests of front-ends\n\n");
        AppendHeader(page, "request", "gate");
        foreach (RequestRow row in RequestTable.FrontendRows)
        {
            FrontendRequest request = (FrontendRequest)row.Id;
            string test = $"{RequestTests}/{request}Tests.cs";
            string sender = request == FrontendRequest.SetBackendReqFd ? "OpenBackendChannelAsync" : $"{request}Async";
            string code = $"{Find(Backend, request.ToString())}, {Find(Frontend, sender)}";
            string foreign = Join(
                (s_qemu.Contains(request), Qemu), (s_libblkio.Contains(request), Libblkio),
                (s_dpdk.Contains(request), Dpdk), (s_storageDaemon.Contains(request), StorageDaemon),
                (s_otherBackends.Contains(request), OtherBackends));
            AppendRow(page, row.Id, row.Name, isBuilt: true, Gate(row.Gate), code, Existing(test), foreign);
        }

        page.Append("\n## Requests of back-ends\n\n");
        AppendHeader(page, "request", "gate");
        foreach (RequestRow row in RequestTable.BackendRows)
        {
            BackendRequest request = (BackendRequest)row.Id;
            string code = Find(Frontend, request.ToString());
            string file = request switch
            {
                BackendRequest.IotlbMsg => "FrontendIommuTests",
                BackendRequest.ShmemMap or BackendRequest.ShmemUnmap or BackendRequest.VringHostNotifierMsg =>
                    "SharedRegionTests",
                _ => "BackendRequestTests",
            };
            string test = Existing($"tests/Outboard.Tests/VhostUser/Frontend/{file}.cs");
            string foreign = request is BackendRequest.ConfigChangeMsg or BackendRequest.IotlbMsg
                or BackendRequest.ShmemMap or BackendRequest.ShmemUnmap or BackendRequest.VringHostNotifierMsg
                ? Qemu : None;
            AppendRow(page, row.Id, row.Name, isBuilt: true, Gate(row.Gate), code, test, foreign);
        }
    }

    private void AppendProtocolFeatures(StringBuilder page)
    {
        page.Append("\n## Protocol features\n\n");
        AppendHeader(page, "feature", "requests behind it");
        ProtocolFeatures asked = new VhostUserFrontendOptions().ProtocolFeatures;
        string session = Read($"{Backend}/BackendSession.cs");
        string offered = OfferedProtocolFeatures().Match(session).Value
            + Read($"{Backend}/BackendSession.Notifications.cs");
        const string Declarations = "src/Outboard.VhostUser/Protocol/ProtocolFeatures.cs";
        foreach ((string name, string spelling, int bit) in Flags(Declarations))
        {
            ProtocolFeatures feature = Enum.Parse<ProtocolFeatures>(name);
            bool isBuilt = Regex.IsMatch(offered, $@"ProtocolFeatures\.{name}\b");
            bool isOnRequest = feature is ProtocolFeatures.InbandNotifications or ProtocolFeatures.CrossEndian;
            Require(isOnRequest || isBuilt == asked.HasFlag(feature), $"{spelling}: the two halves differ");
            string requests = string.Join(", ", RequestTable.FrontendRows.Concat(RequestTable.BackendRows)
                .Where(row => row.Gate.HasFlag(feature)).Select(row => row.Name));
            string foreign = isBuilt
                ? Join((s_qemuFeatures.HasFlag(feature), Qemu), (s_libblkioFeatures.HasFlag(feature), Libblkio))
                : None;
            string code = isBuilt ? "`Backend/BackendSession.cs`" : None;
            string test = isBuilt ? Existing($"{RequestTests}/SetProtocolFeaturesTests.cs") : None;
            AppendRow(page, (uint)bit, spelling, isBuilt, requests.Length == 0 ? None : requests, code, test, foreign);
        }
    }

    private void AppendFeatures(
        StringBuilder page, string title, string file, Dictionary<string, Place> places, ulong offered)
    {
        page.Append($"\n## {title}\n\n");
        AppendHeader(page, "feature", null);
        foreach ((string name, string spelling, int bit) in Flags($"src/Outboard.Virtio/Spec/{file}"))
        {
            bool isBuilt = (offered & (1UL << bit)) != 0;
            Require(isBuilt == places.ContainsKey(name), $"{spelling}: it is offered without a place, or not at all");
            Place? place = isBuilt ? places.GetValueOrDefault(name) : null;
            string code = place is null ? None : Find(place.File, place.Function);
            string test = place is null ? None : Existing(place.Test);
            string support = Support(isBuilt, 1UL << bit, places);
            AppendRow(page, (uint)bit, spelling, support, null, code, test, place?.Foreign ?? None);
        }
    }

    private static string Support(bool isBuilt, ulong bit, Dictionary<string, Place> places) =>
        ReferenceEquals(places, s_ring) && bit == VirtioFeatures.OrderPlatform ? "not needed"
        : isBuilt ? "built" : "not built";

    private static void AppendHeader(StringBuilder page, string name, string? gate)
    {
        string column = gate is null ? string.Empty : $" {gate} |";
        page.Append($"| nr | {name} | supported |{column} code | test | used by |\n");
        page.Append($"|---|---|---|{(gate is null ? string.Empty : "---|")}---|---|---|\n");
    }

    private static void AppendRow(
        StringBuilder page, uint number, string name, bool isBuilt, string? gate, string code, string test,
        string user) =>
        AppendRow(page, number, name, isBuilt ? "built" : "not built", gate, code, test, user);

    private static void AppendRow(
        StringBuilder page, uint number, string name, string support, string? gate, string code, string test,
        string user)
    {
        string column = gate is null ? string.Empty : $" {gate} |";
        page.Append($"| {number} | {name} | {support} |{column} {code} | {test} | {user} |\n");
    }

    private static string Gate(ProtocolFeatures gate) => gate == ProtocolFeatures.None ? None : gate.ToString();

    private static string Join(params ReadOnlySpan<(bool Applies, string Name)> names)
    {
        List<string> applying = [];
        foreach ((bool applies, string name) in names)
        {
            if (applies)
            {
                applying.Add(name);
            }
        }

        return applying.Count == 0 ? None : string.Join(", ", applying);
    }

    /// <summary>The file, in a folder or given by its path, that declares a function.</summary>
    private string Find(string place, string function)
    {
        string path = Path.Combine(root, place);
        IEnumerable<string> files = Directory.Exists(path) ? Directory.EnumerateFiles(path, "*.cs") : [path];
        string pattern = $@"^    (public|internal|private)[^=;(]*\s{function}(Async)?\(";
        Regex declaration = new(pattern, RegexOptions.Multiline);
        foreach (string file in files.Order(StringComparer.Ordinal))
        {
            Match match = declaration.Match(File.ReadAllText(file));
            if (match.Success)
            {
                string folder = Path.GetFileName(Path.GetDirectoryName(file))!;
                string name = match.Value.TrimEnd('(').Split(' ')[^1];
                return $"`{folder}/{Path.GetFileName(file)}` {name}";
            }
        }

        _problems.Add($"{place} declares no {function}");
        return None;
    }

    private string Existing(string path)
    {
        Require(File.Exists(Path.Combine(root, path)), $"{path} does not exist");
        return $"`{path["tests/Outboard.Tests/".Length..]}`";
    }

    private void Require(bool condition, string problem)
    {
        if (!condition)
        {
            _problems.Add(problem);
        }
    }

    /// <summary>The bits that a file declares, spelled as the specification does in their comments.</summary>
    private IEnumerable<(string Name, string Spelling, int Bit)> Flags(string path) =>
        FlagDeclaration().Matches(Read(path)).Select(match =>
            (match.Groups["name"].Value, match.Groups["spelling"].Value, int.Parse(match.Groups["bit"].Value)));

    private string Read(string path) => File.ReadAllText(Path.Combine(root, path));

    [GeneratedRegex(
        @"<summary>(?<spelling>V[A-Z0-9_]+)[^\n]*\n\s*(public const ulong )?(?<name>\w+) = 1UL << (?<bit>\d+)")]
    private static partial Regex FlagDeclaration();

    [GeneratedRegex(@"ProtocolFeatures BuiltProtocolFeatures =[^;]*;")]
    private static partial Regex OfferedProtocolFeatures();

    private sealed record Place(string File, string Function, string Test, string Foreign);
}
