// Power management: 2 capabilities u16, 4 control and status u16 (bits 0-1 state, bit 3 no soft reset), 6 zero.
using Outboard.Pci.Spec;

namespace Outboard.Pci.Capabilities;

/// <summary>The power management capability, version 3: states D0 and D3, without wake-up.</summary>
public sealed class PowerManagementCapability : PciCapability
{
    private const int Bytes8 = 8;
    private const int ControlOffset = 4;
    private const ushort StateMask = 3;
    private const ushort NoSoftReset = 1 << 3;

    /// <summary>Creates the capability.</summary>
    public PowerManagementCapability()
        : base(PciCapabilityId.PowerManagement, Bytes8)
    {
        Field(2, sizeof(ushort), 3);
        Field(ControlOffset, sizeof(ushort), NoSoftReset, StateMask);
    }

    /// <summary>The power state that the guest has chosen: 0 is D0 (works), 3 is D3.</summary>
    public int State(PciConfigSpace config)
    {
        ArgumentNullException.ThrowIfNull(config);
        return config.Get16(Offset + ControlOffset) & StateMask;
    }
}
