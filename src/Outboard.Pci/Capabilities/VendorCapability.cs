// Capabilities whose content is the vendor's: conventional (2 length u8, then anything), extended (4 header u32: id,
// revision, length), and the device serial number (4 lower, 8 upper u32).
using Outboard.Pci.Spec;

namespace Outboard.Pci.Capabilities;

/// <summary>A vendor-specific capability.</summary>
public sealed class VendorCapability : PciCapability
{
    private const int HeaderBytes = 3;

    /// <summary>Creates the capability.</summary>
    /// <param name="content">What follows the length byte.</param>
    /// <param name="isWritable">Whether a guest may write the content.</param>
    public VendorCapability(ReadOnlySpan<byte> content, bool isWritable = false)
        : base(PciCapabilityId.Vendor, HeaderBytes + content.Length)
    {
        Field(2, 1, (ulong)SizeBytes);
        Bytes(HeaderBytes, content, isWritable);
    }
}

/// <summary>An extended vendor-specific capability.</summary>
public sealed class ExtendedVendorCapability : PciCapability
{
    private const int HeaderBytes = 8;

    /// <summary>Creates the capability.</summary>
    /// <param name="vendorId">The vendor's number for it.</param>
    /// <param name="revision">0 to 15.</param>
    /// <param name="content">What follows the header.</param>
    /// <param name="isWritable">Whether a guest may write the content.</param>
    public ExtendedVendorCapability(
        ushort vendorId, int revision, ReadOnlySpan<byte> content, bool isWritable = false)
        : base(PciCapabilityId.ExtendedVendor, HeaderBytes + content.Length, isExtended: true)
    {
        Field(4, sizeof(uint), vendorId | ((uint)revision << 16) | ((uint)SizeBytes << 20));
        Bytes(HeaderBytes, content, isWritable);
    }
}

/// <summary>The device serial number.</summary>
public sealed class SerialNumberCapability : PciCapability
{
    /// <summary>Creates the capability.</summary>
    public SerialNumberCapability(ulong serialNumber)
        : base(PciCapabilityId.ExtendedSerialNumber, 12, isExtended: true) =>
        Field(4, sizeof(ulong), serialNumber);
}
