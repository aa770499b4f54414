// Who a function says it is: the read-only part of the configuration space header.
namespace Outboard.Pci;

/// <summary>The identity of a function.</summary>
/// <param name="VendorId">Vendor id.</param>
/// <param name="DeviceId">Device id.</param>
public readonly record struct PciIdentity(ushort VendorId, ushort DeviceId)
{
    /// <summary>Class code, 24 bits: class, subclass, interface from the top.</summary>
    public uint ClassCode { get; init; }

    /// <summary>Revision.</summary>
    public byte Revision { get; init; }

    /// <summary>Subsystem vendor id.</summary>
    public ushort SubsystemVendorId { get; init; }

    /// <summary>Subsystem id.</summary>
    public ushort SubsystemId { get; init; }
}
