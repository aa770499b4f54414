// PCI Express, version 2, of an endpoint: 2 capabilities u16, 4 device capabilities u32, 8 device control u16, 10
// device status u16, 12 link capabilities u32, 16 link control u16, 18 link status u16, 20-35 slot and root (none), 36
// device capabilities 2 u32, 40 device control 2 u16, 44 link capabilities 2 u32, 48 link control 2 u16; 60 bytes.
using Outboard.Pci.Spec;

namespace Outboard.Pci.Capabilities;

/// <summary>The PCI Express capability of an endpoint, with function level reset.</summary>
public sealed class ExpressCapability : PciCapability
{
    private const int TotalBytes = 60;
    private const int DeviceControl = 8;
    private const ushort InitiateReset = 1 << 15;
    private const uint RoleBasedErrors = 1 << 15;
    private const uint FunctionLevelReset = 1 << 28;

    /// <summary>One lane at 2.5 GT/s, as capability and as status.</summary>
    private const uint Link = 0x11;

    /// <summary>Creates the capability.</summary>
    /// <param name="sizeBytes">Bytes: 60, or more up to the next capability.</param>
    public ExpressCapability(int sizeBytes = TotalBytes)
        : base(PciCapabilityId.Express, sizeBytes)
    {
        Field(2, sizeof(ushort), 2);
        Field(4, sizeof(uint), RoleBasedErrors | FunctionLevelReset);
        Field(DeviceControl, sizeof(ushort), 0, 0x7fff);
        Field(10, sizeof(ushort), 0, 0, 0xf);
        Field(12, sizeof(uint), Link);
        Field(16, sizeof(ushort), 0, 0x0fff);
        Field(18, sizeof(ushort), Link);
        Field(40, sizeof(ushort), 0, ushort.MaxValue);
        Field(48, sizeof(ushort), 0, ushort.MaxValue);
    }

    /// <summary>Whether a write to the configuration space asks for a function level reset.</summary>
    internal bool AsksForReset(uint offset, ReadOnlySpan<byte> data)
    {
        // the bit is the highest of the control register's second byte
        long at = Offset + DeviceControl + 1 - (long)offset;
        return at >= 0 && at < data.Length && (data[(int)at] & (InitiateReset >> 8)) != 0;
    }
}
