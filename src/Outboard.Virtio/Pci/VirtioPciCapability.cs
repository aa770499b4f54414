// Where a driver finds the parts of a virtio device: 2 length u8, 3 type u8, 4 BAR u8, 5 id u8, 8 offset u32, 12 length
// u32; then 16 the multiplier (notify) or the data (configuration access) u32. Of a shared memory region, 16 the upper
// half of the offset u32, 20 that of the length u32.
using Outboard.Pci.Capabilities;
using Outboard.Pci.Spec;

namespace Outboard.Virtio.Pci;

/// <summary>A capability that names a part of a BAR.</summary>
internal sealed class VirtioPciCapability : PciCapability
{
    internal const int BarField = 4;
    internal const int OffsetField = 8;
    internal const int LengthField = 12;
    internal const int DataField = 16;
    internal const int IdField = 5;
    internal const int UpperOffsetField = 16;
    internal const int UpperLengthField = 20;
    private const int PlainBytes = 16;

    internal VirtioPciCapability(byte type, int bar, uint offset, uint length)
        : this(type, PlainBytes, bar, offset, length)
    {
    }

    private VirtioPciCapability(byte type, int sizeBytes, int bar, uint offset, uint length)
        : base(PciCapabilityId.Vendor, sizeBytes)
    {
        Field(2, 1, (ulong)sizeBytes);
        Field(3, 1, type);
        Field(BarField, 1, (ulong)bar);
        Field(OffsetField, sizeof(uint), offset);
        Field(LengthField, sizeof(uint), length);
    }

    /// <summary>Doorbells: each lies a multiple of a number behind the first.</summary>
    internal static VirtioPciCapability Multiplied(byte type, int bar, uint offset, uint length, uint multiplier)
    {
        VirtioPciCapability capability = new(type, PlainBytes + sizeof(uint), bar, offset, length);
        capability.Field(DataField, sizeof(uint), multiplier);
        return capability;
    }

    /// <summary>A shared memory region, virtio-v1.3 "4.1.4.7 Shared memory capability".</summary>
    internal static VirtioPciCapability SharedMemory(int bar, byte id, ulong offset, ulong length)
    {
        VirtioPciCapability capability = new(
            Spec.VirtioPci.SharedMemoryConfig, PlainBytes + (2 * sizeof(uint)), bar, (uint)offset, (uint)length);
        capability.Field(IdField, 1, id);
        capability.Field(UpperOffsetField, sizeof(uint), offset >> 32);
        capability.Field(UpperLengthField, sizeof(uint), length >> 32);
        return capability;
    }

    /// <summary>The window by which firmware reaches the BARs through the configuration space.</summary>
    internal static VirtioPciCapability ConfigAccess()
    {
        VirtioPciCapability capability = new(Spec.VirtioPci.PciConfig, PlainBytes + sizeof(uint), 0, 0, 0);
        capability.Field(BarField, 1, 0, byte.MaxValue);
        capability.Field(OffsetField, sizeof(uint), 0, uint.MaxValue);
        capability.Field(LengthField, sizeof(uint), 0, uint.MaxValue);
        capability.Field(DataField, sizeof(uint), 0, uint.MaxValue);
        return capability;
    }
}
