// Offsets and bits of the configuration space header (type 0), as the PCI Local Bus and PCI Express base
// specifications lay it out. Little-endian; sizes in bytes behind each name.
namespace Outboard.Pci.Spec;

/// <summary>Offsets in the configuration space header.</summary>
public static class PciRegister
{
    /// <summary>Vendor id, 2.</summary>
    public const int VendorId = 0x00;

    /// <summary>Device id, 2.</summary>
    public const int DeviceId = 0x02;

    /// <summary>Command, 2: <see cref="PciCommand"/>.</summary>
    public const int Command = 0x04;

    /// <summary>Status, 2: <see cref="PciStatus"/>.</summary>
    public const int Status = 0x06;

    /// <summary>Revision id, 1.</summary>
    public const int Revision = 0x08;

    /// <summary>Class code, 3: interface, subclass, class.</summary>
    public const int ClassCode = 0x09;

    /// <summary>Cache line size, 1; then the latency timer, 1.</summary>
    public const int CacheLineSize = 0x0c;

    /// <summary>Header type, 1.</summary>
    public const int HeaderType = 0x0e;

    /// <summary>Base address register 0, 4; five more follow.</summary>
    public const int Bar0 = 0x10;

    /// <summary>Subsystem vendor id, 2.</summary>
    public const int SubsystemVendorId = 0x2c;

    /// <summary>Subsystem id, 2.</summary>
    public const int SubsystemId = 0x2e;

    /// <summary>Expansion ROM base address, 4.</summary>
    public const int ExpansionRom = 0x30;

    /// <summary>Offset of the first capability, 1.</summary>
    public const int CapabilityPointer = 0x34;

    /// <summary>Interrupt line, 1: a note of the guest's.</summary>
    public const int InterruptLine = 0x3c;

    /// <summary>Interrupt pin, 1: 0 none, 1 INTA.</summary>
    public const int InterruptPin = 0x3d;

    /// <summary>Where capabilities may begin.</summary>
    public const int FirstCapability = 0x40;

    /// <summary>Where extended capabilities begin, and the size of a conventional configuration space.</summary>
    public const int FirstExtended = 0x100;

    /// <summary>Size of a PCI Express configuration space.</summary>
    public const int ExpressBytes = 0x1000;
}

/// <summary>The command register.</summary>
[Flags]
public enum PciCommand : ushort
{
    /// <summary>Nothing is enabled.</summary>
    None = 0,

    /// <summary>I/O BARs answer.</summary>
    Io = 1 << 0,

    /// <summary>Memory BARs answer.</summary>
    Memory = 1 << 1,

    /// <summary>The function may access memory by itself.</summary>
    Dma = 1 << 2,

    /// <summary>Parity error response.</summary>
    Parity = 1 << 6,

    /// <summary>System errors are reported.</summary>
    SystemError = 1 << 8,

    /// <summary>INTx is off.</summary>
    IntxDisable = 1 << 10,

    /// <summary>The bits that a driver may change.</summary>
    Writable = Io | Memory | Dma | Parity | SystemError | IntxDisable,
}

/// <summary>The status register.</summary>
[Flags]
public enum PciStatus : ushort
{
    /// <summary>Nothing to tell.</summary>
    None = 0,

    /// <summary>The function asserts INTx, whether or not that is disabled.</summary>
    Interrupt = 1 << 3,

    /// <summary>There are capabilities.</summary>
    Capabilities = 1 << 4,

    /// <summary>Error bits, cleared by writing ones.</summary>
    Errors = 0xf900,
}

/// <summary>Capability ids.</summary>
public static class PciCapabilityId
{
    /// <summary>Power management.</summary>
    public const byte PowerManagement = 0x01;

    /// <summary>Message signalled interrupts.</summary>
    public const byte Msi = 0x05;

    /// <summary>Vendor specific.</summary>
    public const byte Vendor = 0x09;

    /// <summary>PCI Express.</summary>
    public const byte Express = 0x10;

    /// <summary>MSI-X.</summary>
    public const byte Msix = 0x11;

    /// <summary>Extended: device serial number.</summary>
    public const ushort ExtendedSerialNumber = 0x0003;

    /// <summary>Extended: vendor specific.</summary>
    public const ushort ExtendedVendor = 0x000b;
}
