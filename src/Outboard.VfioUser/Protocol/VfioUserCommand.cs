// The commands, by number. 14 was DIRTY_PAGES of the first migration protocol and is not used again.
namespace Outboard.VfioUser.Protocol;

/// <summary>Commands.</summary>
public enum VfioUserCommand : ushort
{
    /// <summary>Negotiates version and capabilities.</summary>
    Version = 1,

    /// <summary>Announces a window of guest memory.</summary>
    DmaMap = 2,

    /// <summary>Takes a window away.</summary>
    DmaUnmap = 3,

    /// <summary>Asks what the device is.</summary>
    DeviceGetInfo = 4,

    /// <summary>Asks about a region.</summary>
    DeviceGetRegionInfo = 5,

    /// <summary>Asks for the descriptors by which a region is written without messages.</summary>
    DeviceGetRegionIoFds = 6,

    /// <summary>Asks about interrupts of one kind.</summary>
    DeviceGetIrqInfo = 7,

    /// <summary>Binds, masks or triggers interrupts.</summary>
    DeviceSetIrqs = 8,

    /// <summary>Reads a region.</summary>
    RegionRead = 9,

    /// <summary>Writes a region.</summary>
    RegionWrite = 10,

    /// <summary>The server reads guest memory.</summary>
    DmaRead = 11,

    /// <summary>The server writes guest memory.</summary>
    DmaWrite = 12,

    /// <summary>Resets the device.</summary>
    DeviceReset = 13,

    /// <summary>Writes several small values.</summary>
    RegionWriteMulti = 15,

    /// <summary>Migration and dirty logging.</summary>
    DeviceFeature = 16,

    /// <summary>Reads the migration stream.</summary>
    MigDataRead = 17,

    /// <summary>Writes the migration stream.</summary>
    MigDataWrite = 18,
}
