// What a vfio-user server's PCI function is, as plain aligned text, much as lspci has it: identity, regions,
// interrupts, capabilities. Nothing of the function is changed. What a server tells wrongly is shown as far as it goes.
using System.Buffers.Binary;
using System.Text;
using Outboard.Cli.Text;
using Outboard.Pci.Interrupts;
using Outboard.Pci.Spec;
using Outboard.VfioUser.Client;
using Outboard.VfioUser.Protocol;
using Outboard.Virtio.Spec;

namespace Outboard.Cli.Inspect;

internal static class FunctionText
{
    private const int NameWidth = 20;
    private const int ConfigRegion = 7;

    private static readonly string[] s_regions =
        ["BAR 0", "BAR 1", "BAR 2", "BAR 3", "BAR 4", "BAR 5", "ROM", "configuration", "VGA"];

    private static readonly string[] s_kinds = ["INTx", "MSI", "MSI-X", "error", "request"];

    /// <summary>Asks everything there is to ask.</summary>
    /// <exception cref="IOException">The server does not answer, or refuses the first questions.</exception>
    public static async Task<string> DescribeAsync(
        string path, VfioUserClient client, CancellationToken cancellation)
    {
        StringBuilder text = new();
        Line(text, "socket", ErrorLine.From(path));
        VersionCapabilities server = client.Server;
        Line(
            text, "protocol", $"{server.MaxMessageFds} descriptors, {server.MaxDataTransferBytes} bytes in a message"
            + (server.TwinSocket == true ? ", second socket" : string.Empty)
            + (server.WriteMultiple == true ? ", write multiple" : string.Empty));
        DeviceInfoPayload info = await client.GetInfoAsync(cancellation).ConfigureAwait(false);
        byte[] config = await ReadConfigAsync(client, cancellation).ConfigureAwait(false);
        AppendIdentity(text, config);
        for (int region = 0; region < Math.Min(info.RegionCount, (uint)s_regions.Length); region++)
        {
            using RegionInfo told = await client.GetRegionInfoAsync(region, cancellation).ConfigureAwait(false);
            if (told.Flags != RegionFlags.None)
            {
                Line(text, s_regions[region], Describe(told, region, config));
            }
        }

        for (int kind = 0; kind < Math.Min(info.IrqCount, (uint)s_kinds.Length); kind++)
        {
            IrqInfoPayload told =
                await client.GetIrqInfoAsync((InterruptKind)kind, cancellation).ConfigureAwait(false);
            Line(text, $"interrupts, {s_kinds[kind]}", $"{told.Count}");
        }

        AppendCapabilities(text, config);
        AppendExtended(text, config);
        return text.ToString();
    }

    private static async Task<byte[]> ReadConfigAsync(VfioUserClient client, CancellationToken cancellation)
    {
        using RegionInfo region = await client.GetRegionInfoAsync(ConfigRegion, cancellation).ConfigureAwait(false);
        if (region.SizeBytes is not (PciRegister.FirstExtended or PciRegister.ExpressBytes))
        {
            throw new IOException($"the configuration space has {region.SizeBytes} bytes: this is no PCI function");
        }

        byte[] config = new byte[region.SizeBytes];
        await client.ReadAsync(ConfigRegion, 0, config, cancellation).ConfigureAwait(false);
        return config;
    }

    private static void AppendIdentity(StringBuilder text, byte[] config)
    {
        ushort vendor = Get16(config, PciRegister.VendorId);
        ushort device = Get16(config, PciRegister.DeviceId);
        string virtio = vendor == VirtioPci.VendorId && device > VirtioPci.FirstDeviceId
            ? $" (virtio {DeviceTypeWords.Of((VirtioDeviceId)(device - VirtioPci.FirstDeviceId))})"
            : string.Empty;
        Line(text, "device", $"{vendor:x4}:{device:x4}{virtio}");
        Line(
            text, "subsystem",
            $"{Get16(config, PciRegister.SubsystemVendorId):x4}:{Get16(config, PciRegister.SubsystemId):x4}");
        Line(
            text, "class",
            $"{Get32(config, PciRegister.Revision) >> 8:x6}, revision {config[PciRegister.Revision]:x2}");
        Line(
            text, "command", $"0x{Get16(config, PciRegister.Command):x4}, status "
            + $"0x{Get16(config, PciRegister.Status):x4}");
    }

    private static string Describe(RegionInfo told, int region, byte[] config)
    {
        StringBuilder text = new($"{told.SizeBytes} bytes");
        if (region < 6)
        {
            uint register = Get32(config, PciRegister.Bar0 + (region * sizeof(uint)));
            text.Append((register & 7) switch { 1 or 3 or 5 or 7 => ", ports", 4 => ", 64-bit", _ => ", 32-bit" });
            text.Append((register & 9) == 8 ? ", prefetchable" : string.Empty);
        }

        text.Append(told.Areas.Count == 0 ? string.Empty : ", mappable: " + string.Join(
            ' ', told.Areas.Select(area => $"0x{area.Offset:x}+0x{area.SizeBytes:x}")));
        return text.ToString();
    }

    private static void AppendCapabilities(StringBuilder text, byte[] config)
    {
        int at = config[PciRegister.CapabilityPointer] & ~3;

        // each has 4 bytes at least, so a longer list goes round
        for (int seen = 0; at >= PciRegister.FirstCapability && seen < PciRegister.FirstExtended / 4; seen++)
        {
            Line(text, $"capability 0x{at:x2}", config[at] switch
            {
                PciCapabilityId.PowerManagement => "power management",
                PciCapabilityId.Msi => $"MSI, control 0x{Get16(config, at + 2):x4}",
                PciCapabilityId.Msix => Msix(config, at),
                PciCapabilityId.Express => "PCI Express",
                PciCapabilityId.Vendor => Vendor(config, at),
                byte id => $"id 0x{id:x2}",
            });
            at = config[at + 1] & ~3;
        }
    }

    private static string Msix(byte[] config, int at) =>
        $"MSI-X, {(Get16(config, at + 2) & 0x7ff) + 1} vectors, table BAR {Get32(config, at + 4) & 7} "
        + $"0x{Get32(config, at + 4) & ~7u:x}, pending bits BAR {Get32(config, at + 8) & 7} "
        + $"0x{Get32(config, at + 8) & ~7u:x}";

    private static string Vendor(byte[] config, int at)
    {
        if (Get16(config, PciRegister.VendorId) != VirtioPci.VendorId)
        {
            return $"vendor specific, {config[at + 2]} bytes";
        }

        string part = config[at + 3] switch
        {
            VirtioPci.CommonConfig => "common configuration",
            VirtioPci.NotifyConfig => "doorbells",
            VirtioPci.IsrConfig => "interrupt status",
            VirtioPci.DeviceConfig => "device configuration",
            VirtioPci.PciConfig => "configuration access",
            byte type => $"part {type}",
        };
        return $"virtio: {part}, BAR {config[at + 4]} 0x{Get32(config, at + 8):x}, {Get32(config, at + 12)} bytes";
    }

    private static void AppendExtended(StringBuilder text, byte[] config)
    {
        int at = config.Length > PciRegister.FirstExtended ? PciRegister.FirstExtended : 0;
        for (int seen = 0; at >= PciRegister.FirstExtended && seen < config.Length / 4; seen++)
        {
            uint header = Get32(config, at);
            if (header == 0)
            {
                return;
            }

            Line(text, $"capability 0x{at:x3}", (header & 0xffff) switch
            {
                PciCapabilityId.ExtendedSerialNumber =>
                    $"serial number {Get32(config, at + 8):x8}-{Get32(config, at + 4):x8}",
                PciCapabilityId.ExtendedVendor => $"vendor specific 0x{Get16(config, at + 4):x4}",
                uint id => $"id 0x{id:x4}",
            });
            at = (int)(header >> 20) & ~3;
        }
    }

    private static void Line(StringBuilder text, string name, string value) =>
        text.Append(name.PadRight(NameWidth)).Append(' ').Append(value).Append('\n');

    /// <summary>Bytes beyond the end are zero.</summary>
    private static ushort Get16(byte[] config, int at) => (ushort)Get32(config, at);

    private static uint Get32(byte[] config, int at)
    {
        Span<byte> bytes = stackalloc byte[sizeof(uint)];
        bytes.Clear();
        config.AsSpan(at, Math.Min(sizeof(uint), config.Length - at)).CopyTo(bytes);
        return BinaryPrimitives.ReadUInt32LittleEndian(bytes);
    }
}
